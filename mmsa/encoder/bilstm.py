"""Recurrent encoder of one modality."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.attentive import AttentiveRNN, Merge
from mmsa.layers.pooling import pool
from mmsa.layers.recurrence import Cell
from mmsa.ranges import Count, DropRate
from mmsa.types import Embedded, Encoded


class RecurrentEncoder(nn.Module):
    """LSTM or GRU over a modality's feature vectors, with optional self-attention.

    Reference: the unimodal encoders of MMLatch (ICASSP 2022) and M3 (Interspeech 2021) are a bidirectional LSTM of
    one layer whose directions are summed and attended to. Where we differ: true lengths everywhere (the originals
    compute, attend to and sum padding), dropout between layers, and the mean over valid steps as the pooled state.
    Self-MM (AAAI 2021) reads audio and video so: one direction, no attention, the last state, dropped out and mapped.

    Args:
        input_dim: width of a feature vector, >= 1.
        hidden_dim: width per direction, >= 1.
        cell: "lstm" or "gru".
        num_layers: recurrent layers, >= 1.
        bidirectional: read the sequence both ways.
        merge: "sum" or "concat" of the directions.
        attention: single-head self-attention over the states.
        pooling: utterance vector: "mean" or "sum" of the sequence over valid steps, or the "last" state.
        dropout: rate in [0, 1), in training only.
        utterance_dim: width >= 1 of a linear map of the utterance vector; None: no map.

    Shapes: Embedded of (B, T, input_dim) -> Encoded with sequence (B, T, sequence_dim) and
    utterance (B, utterance_dim), zeros where the length is 0.

    Raises:
        ConfigError: attention with pooling="last", which would read the states before the attention.
    """

    def __init__(
        self,
        input_dim: Count,
        hidden_dim: Count,
        cell: Cell = "lstm",
        num_layers: Count = 1,
        bidirectional: bool = True,
        merge: Merge = "sum",
        attention: bool = True,
        pooling: Literal["mean", "sum", "last"] = "mean",
        dropout: DropRate = 0.2,
        utterance_dim: Count | None = None,
    ) -> None:
        super().__init__()
        if attention and pooling == "last":
            raise ConfigError(
                "pooling=last takes the recurrent state before the attention, which would then have no effect.\n"
                "  type attention=false, or pooling=mean"
            )
        self.pooling = pooling
        self.rnn = AttentiveRNN(
            input_dim,
            hidden_dim,
            cell=cell,
            num_layers=num_layers,
            bidirectional=bidirectional,
            merge=merge,
            attention=attention,
            dropout=dropout,
        )
        self.input_dim = input_dim
        self.sequence_dim = self.rnn.output_dim
        self.utterance_dim = utterance_dim or self.sequence_dim
        self.map = nn.Linear(self.sequence_dim, utterance_dim) if utterance_dim else None

    def embed(self, features: Tensor) -> Tensor:
        """(B, T, D) feature vectors are their own embedding."""
        return features

    def forward(self, embedded: Embedded) -> Encoded:
        values, lengths = embedded.values, embedded.lengths
        sequence, last = self.rnn(values, lengths)
        utterance: Any = last if self.pooling == "last" else pool(sequence, lengths, self.pooling)  # (B, S)
        if self.map is not None:
            utterance = self.map(utterance) * (lengths > 0)[:, None]  # (B, utterance_dim)
        return Encoded(sequence, utterance, lengths)
