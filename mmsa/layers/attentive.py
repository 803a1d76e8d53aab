"""The attentive recurrent layer that encoders and the attention fusion share."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmsa.layers.attention import Attention
from mmsa.layers.dropout import Dropout
from mmsa.layers.recurrence import Cell, Recurrence, last_states
from mmsa.types import padding_mask

Merge = Literal["sum", "concat"]


class AttentiveRNN(nn.Module):
    """A recurrence whose directions are merged and, optionally, attended to by single-head self-attention.

    Reference: the "attentive RNN" of MMLatch (ICASSP 2022) and M3 (Interspeech 2021). Where we differ: dropout also
    acts between layers, padded steps give zeros, and the last state is the one of the last valid step.

    Args:
        input_dim: width of a step, >= 1.
        hidden_dim: width per direction, >= 1.
        cell: "lstm" or "gru".
        num_layers: recurrent layers, >= 1.
        bidirectional: add the backward direction.
        merge: "sum" or "concat" of the two directions.
        attention: self-attention over the merged states.
        dropout: rate in [0, 1) on the states, between layers and on the attention weights, in training only.

    Shapes: (B, T, input_dim), lengths (B,) -> sequence (B, T, output_dim) and last state (B, output_dim), None where
    attention comes after it.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        cell: Cell = "lstm",
        num_layers: int = 1,
        bidirectional: bool = True,
        merge: Merge = "sum",
        attention: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.output_dim = 2 * hidden_dim if bidirectional and merge == "concat" else hidden_dim
        self.recurrence = Recurrence(
            input_dim,
            hidden_dim,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
        )
        self.dropout = Dropout(dropout, steps=(1,))
        self.attention = Attention(self.output_dim, dropout) if attention else None

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        directions = [self.dropout(states) for states in self.recurrence(x, lengths)]  # each (B, T, H)
        sequence = self._merged(directions)  # (B, T, S)
        padding = padding_mask(lengths, x.shape[1])  # (B, T)
        if self.attention is not None:
            return self.attention(sequence, padding), None
        last = self._merged(last_states(directions, lengths))  # (B, S)
        return sequence.masked_fill(padding[:, :, None], 0.0), last

    def _merged(self, directions: list[Tensor]) -> Tensor:
        return torch.cat(directions, dim=-1) if self.merge == "concat" else sum(directions[1:], directions[0])
