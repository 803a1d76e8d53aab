"""What the fusions of sequences share: weighted modalities, and the way from streams to one vector."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmsa.layers.attentive import AttentiveRNN
from mmsa.layers.modality_weights import ModalityWeights
from mmsa.layers.pooling import Pooling, pool
from mmsa.layers.recurrence import Cell
from mmsa.types import Encoded, padding_mask


def weighted(
    encoded: Mapping[str, Encoded], weights: ModalityWeights | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The sequences (B, T, S), weighted if there are weights, and their paddings (B, T), by modality."""
    sequences = {modality: part.sequence for modality, part in encoded.items()}
    padding = {m: padding_mask(part.lengths, part.sequence.shape[1]) for m, part in encoded.items()}
    return sequences if weights is None else weights(sequences, padding), padding


class StreamReader(nn.Module):
    """An attentive recurrent layer over joined streams, pooled over time.

    Args:
        input_dim: width of the joined streams, >= 1.
        hidden_dim: width per direction of the recurrent layer, >= 1.
        recurrent: read by the recurrent layer; without it the streams are pooled as they are.
        cell: "lstm" or "gru".
        bidirectional: read both ways.
        dropout: rate in [0, 1) of the recurrent layer, in training only.
        pooling: "sum", "mean" or "max" over valid steps.

    Shapes: (B, T, input_dim), lengths (B,) -> (B, output_dim).
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int,
        *,
        recurrent: bool,
        cell: Cell,
        bidirectional: bool,
        dropout: float,
        pooling: Pooling,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.rnn = None
        if recurrent:
            self.rnn = AttentiveRNN(
                input_dim, hidden_dim, cell=cell, bidirectional=bidirectional, merge="concat", dropout=dropout
            )
        self.output_dim = input_dim if self.rnn is None else self.rnn.output_dim

    def forward(self, joined: Tensor, lengths: Tensor) -> Tensor:
        if self.rnn is not None:
            joined, _ = self.rnn(joined, lengths)
        return pool(joined, lengths, self.pooling)
