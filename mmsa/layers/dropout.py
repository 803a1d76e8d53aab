"""Dropout whose draws cost a third of PyTorch's on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 1 << 16
"""A draw is one of these."""


class Dropout(nn.Module):
    """Sets elements to zero with probability p and scales up the others, in training only.

    On a CPU one random number of 64 bits decides four elements, so that p is rounded to 1/65536; the scale is that of
    the rounded one, and the expectation exactly the input. Elsewhere it is PyTorch's. The global generator draws.

    Args:
        p: rate in [0, 1).

    Shapes: any -> the same.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2
        scales = torch.empty_like(x)  # as x lies in memory, whose order the draws follow
        torch.mul(kept, LEVELS / (LEVELS - dropped), out=scales.as_strided((x.numel(),), (1,)))
        return x * scales

    def extra_repr(self) -> str:
        return f"p={self.p}"
