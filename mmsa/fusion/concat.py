"""Fusion by concatenation of the modalities' utterance vectors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mmsa.layers.streams import side_by_side
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream


class ConcatFusion(nn.Module):
    """Late fusion: the pooled states concatenated; for any number of modalities.

    Args:
        input_dims: utterance width per modality, in the order of the concatenation.

    Shapes: utterance (B, U_m) per modality -> vector (B, sum of U_m).
    """

    reads: Reads = "utterance"
    requires_alignment = False

    def __init__(self, input_dims: Mapping[str, int]) -> None:
        super().__init__()
        self.output_dim = sum(input_dims.values())

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """One stream per modality: its utterance vector."""
        return Interaction({modality: part.part("utterance") for modality, part in encoded.items()})

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, U_m) -> vector (B, F)."""
        return Fused(side_by_side(streams))
