"""Padded sequences reversed within their own lengths."""

from __future__ import annotations

import torch
from torch import Tensor


class Reversal:
    """Reverses each sequence within its own length; padding stays at the end.

    Reversed sequences are laid out time first, as the recurrent kernels read and write them.

    Args:
        lengths: (B,) of the sequences.
        num_steps: T, of the padded ones.
    """

    def __init__(self, lengths: Tensor, num_steps: int) -> None:
        self.shape = len(lengths), num_steps
        steps = torch.arange(num_steps, device=lengths.device)[None, :]  # (1, T)
        rows = torch.arange(len(lengths), device=lengths.device)[:, None]  # (B, 1)
        mirrored = lengths[:, None] - 1 - steps  # (B, T), negative at padding
        order = torch.where(mirrored >= 0, mirrored, steps)
        self._there = (rows * num_steps + order).t().flatten()  # (T * B,)
        self._back = (order * len(lengths) + rows).flatten()  # (B * T,)

    def reversed(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D), time first in memory."""
        return x.flatten(0, 1).index_select(0, self._there).unflatten(0, self.shape[::-1]).transpose(0, 1)

    def undone(self, x: Tensor) -> Tensor:
        """(B, T, D) that were reversed, best time first in memory -> (B, T, D) as they were."""
        return x.transpose(0, 1).flatten(0, 1).index_select(0, self._back).unflatten(0, self.shape)
