"""Dropout that costs less than half of PyTorch's on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsa.layers.draws import drawn, drawn_there

OWN_DRAWS = {"cuda"}
"""Kinds of device besides the CPU on which seeds train together, each with its own generator."""

LEVELS = 1 << 16
"""A draw is one of these."""


class Dropout(nn.Module):
    """Sets elements to zero with probability p and scales up the others, in training only.

    On a CPU one random number of 64 bits decides four elements, so that p is rounded to 1/65536; the scale is that of
    the rounded one, and the expectation exactly the input. The global generator of the device draws.

    Args:
        p: rate in [0, 1).
        steps: axes of time, which a joint step of several runs pads.

    Shapes: any -> the same.
    """

    def __init__(self, p: float, steps: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.p, self.steps = p, steps

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type in OWN_DRAWS:
            kept = drawn_there(partial(_kept_there, self.p, x.device), x.shape, self.steps, x.device)
            return x * kept * (1 / (1 - self.p))
        if x.device.type != "cpu":
            return functional.dropout(x, self.p)
        kept, scale = self.kept(x.shape)
        return x * kept.to(x.dtype).mul_(scale)

    def kept(self, shape: Sequence[int]) -> tuple[Tensor, float]:
        """On a CPU in training: which elements of a tensor of this shape it keeps, int8 1 or 0, and their scale."""
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        kept = drawn(_levels, shape, self.steps) >= dropped - LEVELS // 2
        return kept.view(torch.int8), LEVELS / (LEVELS - dropped)  # a bool is converted one by one

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _levels(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Uniform int16, four of a random number."""
    size = math.prod(shape)
    words = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:size].view(shape)


def _kept_there(p: float, device: torch.device, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Bool, True with probability 1 - p."""
    return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - p, generator=generator)
