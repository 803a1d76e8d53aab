"""Fusion by two layers over the modalities' utterance vectors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mmsa.layers.streams import side_by_side
from mmsa.layers.two_layers import TwoLayers
from mmsa.ranges import Count, DropRate
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream


class MlpFusion(nn.Module):
    """Late fusion: the utterance vectors concatenated, then two layers; for any number of modalities.

    Reference: the multimodal task of Self-MM (Yu et al., AAAI 2021, arXiv 2102.04830), whose last layer is the head.

    Args:
        input_dims: utterance width per modality, in the order of the concatenation.
        hidden_dim: width >= 1 of both layers.
        dropout: rate in [0, 1) on the concatenation, in training only.

    Shapes: utterance (B, U_m) per modality -> vector (B, hidden_dim); published is "hidden" (B, hidden_dim), the first
    layer.
    """

    reads: Reads = "utterance"
    requires_alignment = False

    def __init__(self, input_dims: Mapping[str, int], hidden_dim: Count, dropout: DropRate = 0.0) -> None:
        super().__init__()
        self.layers = TwoLayers(sum(input_dims.values()), hidden_dim, dropout)
        self.output_dim = hidden_dim
        self.published_dims = {"hidden": hidden_dim}

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """One stream per modality: its utterance vector."""
        return Interaction({modality: part.part("utterance") for modality, part in encoded.items()})

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, U_m) -> vector (B, F)."""
        first, second = self.layers(side_by_side(streams))
        return Fused(second, published={"hidden": first})
