"""Low-rank multimodal fusion."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import nn
from torch.nn.functional import pad

from mmsa.ranges import Count
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream


class LmfFusion(nn.Module):
    """The outer product of all modalities' vectors, read by a tensor of low rank; neither is ever formed.

    With z̄_m = [1; z_m] of modality m and its factor F_m, element r of the vector is the product over all modalities of
    z̄_m · F_m[r]. Defined for any number of modalities. One that the utterance lacks has z_m = 0, and its 1 remains.

    Reference: LMF (Liu, Shen et al., ACL 2018, arXiv 1806.00064); of one output, the task's head is the w and β of its
    code. Where we differ: several outputs read the same vector, each with weights of its own, where the original's
    factors are as wide as there are outputs and one w serves all; the head starts as linear layers do, not with a
    Xavier-normal w and β = 0; and it learns, which MMSA's optimiser leaves out.

    Args:
        input_dims: utterance width per modality.
        rank: of the tensor, >= 1, and so the width of the vector.

    Shapes: utterance (B, U_m) per modality -> vector (B, rank).
    """

    reads: Reads = "utterance"
    requires_alignment = False

    def __init__(self, input_dims: Mapping[str, int], rank: Count = 4) -> None:
        super().__init__()
        factors = {m: nn.Parameter(torch.empty(rank, 1 + width, 1)) for m, width in input_dims.items()}
        for factor in factors.values():
            nn.init.xavier_normal_(factor)
        self.factors = nn.ParameterDict(factors)
        self.output_dim = rank

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """One stream per modality: its utterance vector."""
        return Interaction({modality: part.part("utterance") for modality, part in encoded.items()})

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, U_m) -> vector (B, rank)."""
        terms = [
            pad(streams[modality].values, (1, 0), value=1.0) @ factor.squeeze(2).T  # (B, rank)
            for modality, factor in self.factors.items()
        ]
        return Fused(reduce(torch.mul, terms))
