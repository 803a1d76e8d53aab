"""Matrix products of float32 on a CPU by oneDNN, which PyTorch itself asks for its recurrences and bfloat16 only.

It uses all of a processor's vector units where the library of PyTorch's other products may not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmsa.layers.draws import current

LARGE = 1 << 12
"""Elements of weights from which on the faster product pays for its call."""
IS_THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this PyTorch has it: the operation is that of its compiler, and other versions may have none."""


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows times rows: left (N, K), right (M, K), bias (M,) -> (N, M)."""
    if not _by_onednn(left):
        return left @ right.t() if bias is None else torch.addmm(bias, left, right.t())
    right = right if right.t().is_contiguous() else right.contiguous()  # of other strides it takes seconds
    return torch.ops.mkldnn._linear_pointwise(left.contiguous(), right, bias, "none", [], "")


def of_columns(left: Tensor, right: Tensor) -> Tensor:
    """Columns times columns: left (K, N), right (K, M) -> (N, M)."""
    return product(right.t(), left.t()).t()  # which copies the right one, the smaller


def linears(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """As `torch.nn.functional.linear` without a bias, by each weight: x (…, D), weights (E, D) -> (…, E) each."""
    large = sum(weight.numel() for weight in weights) >= LARGE
    lower = x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.dtype == torch.get_autocast_dtype("cpu")
    if not large or current() is not None or not (lower or _by_onednn(x)):
        return tuple(functional.linear(x, weight) for weight in weights)
    stacked = _Linear.apply(x.flatten(0, -2), torch.cat(weights).to(x.dtype))
    parts = stacked.unflatten(0, x.shape[:-1]).chunk(len(weights), dim=-1)
    return tuple(part.contiguous() for part in parts) if lower else parts  # or its batched products copy them


def _by_onednn(x: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    return IS_THERE and plain and bool(torch.backends.mkldnn.enabled) and not torch.is_autocast_enabled("cpu")


class _Linear(torch.autograd.Function):
    """Rows (N, D), weight (E, D) -> (N, E)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return product(rows, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        to_rows, to_weight = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if to_rows else None,
            of_columns(gradient, rows) if to_weight else None,
        )
