"""How much each modality counts at each step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ModalityWeights(nn.Module):
    """Multiplies each step of each modality by a softmax over the modalities that have this step.

    Reference: the modality weights of slp, by the authors of MMLatch and M3. Where we differ: the map that scores all
    modalities has no bias, which cancels in the softmax, and modalities without the step get no weight.

    Args:
        dim: width of every sequence, >= 1.

    Shapes: sequences (B, T, D) and their paddings (B, T), True at padding -> the same sequences, weighted.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, sequences: Mapping[str, Tensor], padding: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stacked = torch.stack(list(sequences.values()))  # (M, B, T, D)
        absent = torch.stack([padding[modality] for modality in sequences])[..., None]  # (M, B, T, 1)
        scores = self.score(stacked)  # (M, B, T, 1)
        weights = torch.softmax(scores.masked_fill(absent, torch.finfo(scores.dtype).min), dim=0)
        return dict(zip(sequences, weights * stacked, strict=True))
