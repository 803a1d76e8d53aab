"""The losses by which MISA shapes its codes; utterances that lack a modality do not count.

Reference: MISA (Hazarika et al., ACM MM 2020). Where we differ: finite gradients for a batch of one and for equal
codes (the original's are NaN there), and absent modalities. `present` (B,) is True for utterances that count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NUM_MOMENTS = 5
EPSILON = 1e-6
"""Added to the norm of a code before dividing by it, as in the original."""


def mean_over(values: Tensor, present: Tensor) -> Tensor:
    """Mean of (B, ...) over the utterances that count, zeros where none does."""
    weights = present.to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
    return (values * weights).sum(dim=0) / weights.sum().clamp(min=1)


def central_moment_discrepancy(x: Tensor, y: Tensor, x_present: Tensor, y_present: Tensor) -> Tensor:
    """Sum of the distances of the means and of the central moments 2 to 5 of two codes; small where they agree.

    Shapes: x (B, H), y (B, H), values in (0, 1), present (B,) each -> scalar; 0 where the batch has none of either
    """
    x_mean, y_mean = mean_over(x, x_present), mean_over(y, y_present)
    x_centred, y_centred = x - x_mean, y - y_mean
    # The gradient of vector_norm is 0 at 0, where that of a written-out square root would be NaN.
    total = torch.linalg.vector_norm(x_mean - y_mean)
    for power in range(2, NUM_MOMENTS + 1):
        moments = mean_over(x_centred**power, x_present) - mean_over(y_centred**power, y_present)
        total = total + torch.linalg.vector_norm(moments)
    return total * (x_present.any() & y_present.any())


def difference(x: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """Mean squared product of two centred codes of unit norm; small where they hold different information.

    Where the paper has a squared Frobenius norm, this is the mean over the entries, as in the original's code.

    Shapes: x (B, H), y (B, H), present (B,) -> scalar
    """

    def normalised(codes: Tensor) -> Tensor:
        centred = (codes - mean_over(codes, present)) * present[:, None]
        norms = torch.linalg.vector_norm(centred.detach(), dim=1, keepdim=True)  # (B, 1)
        return centred / (norms + EPSILON)

    return (normalised(x).T @ normalised(y)).square().mean()


def reconstruction(made: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """Mean squared error; both sides receive its gradient, as in the original.

    Shapes: made (B, H), target (B, H), present (B,) -> scalar
    """
    return mean_over((made - target).square().mean(dim=1), present)


def discrimination(logits: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of telling which modality a code comes from.

    Shapes: logits (M, B, M), row m of the first axis comes from modality m, present (M, B) -> scalar
    """
    num_modalities, num_utterances, _ = logits.shape
    origin = torch.arange(num_modalities, device=logits.device).repeat_interleave(num_utterances)  # (M * B,)
    entropies = functional.cross_entropy(logits.flatten(0, 1), origin, reduction="none")
    return mean_over(entropies, present.flatten())


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reversed_gradient(x: Tensor, weight: float) -> Tensor:
    """The same values, whose gradient is multiplied by -weight."""
    reversed_: Tensor = _Reversal.apply(x, weight)
    return reversed_
