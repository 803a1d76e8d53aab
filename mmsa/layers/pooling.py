"""From one vector per step to one vector."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmsa.types import padding_mask

Pooling = Literal["sum", "mean", "max"]


def pool(sequence: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """Sum, mean or element-wise maximum over the valid steps; zeros where there is none.

    Shapes: sequence (B, T, D), zeros at padding; lengths (B,) -> (B, D)
    """
    if pooling == "max":
        padding = padding_mask(lengths, sequence.shape[1])[:, :, None]  # (B, T, 1)
        largest = sequence.masked_fill(padding, torch.finfo(sequence.dtype).min).amax(dim=1)
        return torch.where(lengths[:, None] > 0, largest, 0.0)
    total = sequence.sum(dim=1)
    return total if pooling == "sum" else total / lengths.clamp(min=1)[:, None]
