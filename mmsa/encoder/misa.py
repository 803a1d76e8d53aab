"""The recurrent extractor of MISA for one modality."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.recurrence import Cell, Recurrence, last_states
from mmsa.ranges import Count
from mmsa.types import Embedded, Encoded, Reads, padding_mask


class MisaEncoder(nn.Module):
    """Two bidirectional recurrent layers with a normalisation between them, read out by their final states.

    Reference: MISA (Hazarika, Zimmermann, Poria, ACM MM 2020, arXiv 2005.03545), whose layers are as wide as the
    modality's features and start from orthogonal recurrent matrices.

    Args:
        input_dim: width of a feature vector, >= 1.
        hidden_dim: width per direction, >= 1; None takes `input_dim`, as the paper does.
        cell: "lstm" or "gru".
        reads: part of the encodings that the fusion reads.

    Shapes: Embedded of (B, T, input_dim) -> Encoded with sequence (B, T, 2H), the normalised states of the first layer,
    utterance (B, 4H), the final states of [first, second] layer forward, then backward, and pooled (B, 2H), the final
    states of the second layer.

    Raises:
        ConfigError: a fusion that reads sequences, for which the second layer would do nothing.
    """

    serves: tuple[Reads, ...] = ("utterance",)

    def __init__(
        self,
        input_dim: Count,
        hidden_dim: Count | None = None,
        cell: Cell = "lstm",
        reads: Reads = "utterance",
    ) -> None:
        super().__init__()
        if reads not in self.serves:
            raise ConfigError(
                "encoder=misa makes one vector per utterance, but this fusion reads sequences.\n"
                "  type fusion=misa or fusion=concat, or encoder=bilstm"
            )
        width = hidden_dim or input_dim
        self.first = Recurrence(input_dim, width, cell=cell)
        self.norm = nn.LayerNorm(2 * width)
        self.second = Recurrence(2 * width, width, cell=cell)
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(parameter)
        self.input_dim = input_dim
        self.sequence_dim, self.utterance_dim, self.pooled_dim = 2 * width, 4 * width, 2 * width

    def embed(self, features: Tensor) -> Tensor:
        """(B, T, D) feature vectors are their own embedding."""
        return features

    def forward(self, embedded: Embedded) -> Encoded:
        values, lengths = embedded.values, embedded.lengths
        first = self.first(values, lengths)  # forward and backward, each (B, T, H)
        valid = ~padding_mask(lengths, values.shape[1])[:, :, None]  # (B, T, 1)
        sequence = self.norm(torch.cat(first, dim=-1)) * valid  # (B, T, 2H)
        second = self.second(sequence, lengths)
        top = last_states(second, lengths)
        finals = zip(last_states(first, lengths), top, strict=True)
        utterance = torch.cat([state for direction in finals for state in direction], dim=-1)  # (B, 4H)
        return Encoded(sequence, utterance, lengths, pooled=torch.cat(top, dim=-1))
