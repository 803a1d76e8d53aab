"""Dropout that costs less than half of PyTorch's on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial

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
        if x.device.type not in {"cpu", *OWN_DRAWS}:
            return functional.dropout(x, self.p)
        return x * self.mask(x.shape, x.dtype, x.device)

    def mask(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, also: Tensor | None = None
    ) -> Tensor:
        """In training, on a CPU or with draws of its own: the factors of a tensor, zeros or the scale, times `also`."""
        kept, scale = self.kept(shape, device)
        if also is not None:
            return kept.to(dtype).mul_(also * scale)
        if dtype.itemsize == kept.itemsize:
            return (kept * _bits(scale, dtype)).view(dtype)
        return kept.to(dtype).mul_(scale)

    def kept(self, shape: Sequence[int], device: torch.device) -> tuple[Tensor, float]:
        """As `mask`: the elements that it keeps, int16 1 or 0, or bool, and their scale."""
        if device.type in OWN_DRAWS:
            return drawn_there(partial(_kept_there, self.p, device), shape, self.steps, device), 1 / (1 - self.p)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        return drawn(partial(_kept, dropped), shape, self.steps), LEVELS / (LEVELS - dropped)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _kept(dropped: int, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Zeros at this many of all levels, else ones, int16; four are of one random number."""
    size = math.prod(shape)
    words = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    levels = words.view(torch.int16)[:size].view(shape)
    return levels.ge_(dropped - LEVELS // 2)  # in place, as a comparison that gives a bool takes ten times as long


@lru_cache
def _bits(value: float, dtype: torch.dtype) -> int:
    """Of a positive value in a type of 16 bits, as an integer."""
    return int(torch.tensor(value, dtype=dtype).view(torch.int16))


def _kept_there(p: float, device: torch.device, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Bool, True with probability 1 - p."""
    return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - p, generator=generator)
