"""Recurrent layers over true lengths, without packing."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmsa.layers.draws import current
from mmsa.layers.dropout import Dropout
from mmsa.layers.reversal import Reversal
from mmsa.layers.scan import scanned

Cell = Literal["lstm", "gru"]
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrence(nn.Module):
    """A stack of one- or bidirectional recurrent layers over padded sequences of true lengths.

    The backward direction is a one-way layer over the sequence reversed within its own length. Valid steps equal those
    of a packed `nn.LSTM`, and the fast kernel for equal lengths stays usable (packing falls to a loop over steps).

    Args:
        input_dim: width of a step, >= 1.
        hidden_dim: width of a state per direction, >= 1.
        cell: "lstm" or "gru".
        num_layers: layers, >= 1; a layer reads the concatenated directions of the one below.
        bidirectional: add the backward direction.
        dropout: rate in [0, 1) between layers, in training only.

    Shapes: (B, T, input_dim), lengths (B,) -> one (B, T, hidden_dim) per direction, of any value at
    padding.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        cell: Cell = "lstm",
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bidirectional = bidirectional
        num_directions = 2 if bidirectional else 1
        self.layers = nn.ModuleList()
        for layer in range(num_layers):
            width = input_dim if layer == 0 else num_directions * hidden_dim
            directions = [CELLS[cell](width, hidden_dim, batch_first=True) for _ in range(num_directions)]
            self.layers.append(nn.ModuleList(directions))
        self.dropout = Dropout(dropout, steps=(1,))

    def forward(self, x: Tensor, lengths: Tensor) -> list[Tensor]:
        together = current() is not None
        reversal = Reversal(lengths, x.shape[1]) if self.bidirectional and not together else None
        outputs: list[Tensor] = []
        for depth, directions in enumerate(self.layers):
            if depth > 0:
                x = self.dropout(torch.cat(outputs, dim=-1))
            if together:
                outputs = scanned(x, lengths, directions)
                continue
            outputs = [_read(directions[0], x)]  # type: ignore[index]
            if reversal is not None:
                outputs.append(reversal.undone(_read(directions[1], reversal.reversed(x))))  # type: ignore[index]
        return outputs


def _read(layer: nn.Module, x: Tensor) -> Tensor:
    """The states of a one-way layer, on a GPU in float32: its autocast reads in float16, where gradients vanish."""
    if not torch.is_autocast_enabled("cuda"):
        states: Tensor = layer(x)[0]
        return states
    with torch.autocast("cuda", enabled=False):
        return _read(layer, x.float())


def last_states(outputs: list[Tensor], lengths: Tensor) -> list[Tensor]:
    """Final state of each direction: forward at the last valid step, backward at step 0; zeros where the length is 0.

    Shapes: each (B, T, H), lengths (B,) -> each (B, H)
    """
    forward = outputs[0]
    position = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, forward.shape[-1])
    states = [forward.gather(1, position).squeeze(1)] + [backward[:, 0] for backward in outputs[1:]]
    return [state * (lengths > 0)[:, None] for state in states]
