"""Shared by the fusions of sequences: weighted modalities, and the way from streams to one vector."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmsa.layers.attentive import AttentiveRNN
from mmsa.layers.modality_weights import ModalityWeights
from mmsa.layers.pooling import Pooling, pool
from mmsa.layers.recurrence import Cell
from mmsa.layers.support import check_equal
from mmsa.types import Encoded, Stream, padding_mask


def weighted(encoded: Mapping[str, Encoded], weights: ModalityWeights | None) -> dict[str, Stream]:
    """The sequences (B, T, S), weighted if there are weights, by modality.

    Raises:
        ConfigError: they are not on one time axis.
    """
    num_steps = {modality: part.sequence.shape[1] for modality, part in encoded.items()}
    needs = "this fusion reads the modalities step by step, and their encoders give steps of"
    check_equal(num_steps, needs, "fusion=concat, or an encoder that keeps the steps, such as encoder=bilstm")
    sequences = {modality: part.sequence for modality, part in encoded.items()}
    lengths = {modality: part.lengths for modality, part in encoded.items()}
    if weights is not None:
        sequences = weights(sequences, {m: padding_mask(lengths[m], num_steps[m]) for m in sequences})
    return {modality: Stream(sequence, lengths[modality]) for modality, sequence in sequences.items()}


def longest(streams: Mapping[str, Stream]) -> Tensor:
    """(B,) steps that any stream has."""
    return torch.stack([stream.lengths for stream in streams.values()]).amax(dim=0)


def side_by_side(streams: Mapping[str, Stream]) -> Tensor:
    """Streams (B, T, S_m) or (B, S_m) -> (B, T, sum of S_m) or (B, sum of S_m)."""
    return torch.cat([stream.values for stream in streams.values()], dim=-1)


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
