"""Padded sequences reversed within their own lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Permuted(torch.autograd.Function):
    """Rows (N, D) in another order, `back` undoes it; the gradient goes back by indexing too, not by adding into zeros.

    Shapes: rows (N, D), there (N,) and back (N,) int64 -> (N, D), row i of it being row there[i].
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back, there)
        return rows.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Permuted.apply(gradient, *ctx.saved_tensors), None, None


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
        return Permuted.apply(x.flatten(0, 1), self._there, self._back).unflatten(0, self.shape[::-1]).transpose(0, 1)

    def undone(self, x: Tensor) -> Tensor:
        """(B, T, D) that were reversed, best time first in memory -> (B, T, D) as they were."""
        return Permuted.apply(x.transpose(0, 1).flatten(0, 1), self._back, self._there).unflatten(0, self.shape)
