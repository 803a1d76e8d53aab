"""Optimisers, as a run configures them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Adam, AdamW, Optimizer

from mmsa.ranges import NonNegative, Positive


def adam(
    parameters: Iterable[Any], lr: Positive, weight_decay: NonNegative = 0.0, decay_biases: bool = True
) -> Optimizer:
    """Adam with PyTorch's defaults, fused.

    Args:
        parameters: tensors, or groups with a learning rate or weight decay of their own.
        lr: learning rate, > 0.
        weight_decay: >= 0, added to the gradient.
        decay_biases: parameters of one axis (biases, scales of norms) decay like the others.
    """
    groups = parameters if decay_biases else _biases_apart(parameters)
    return Adam(groups, lr=lr, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[Any], lr: Positive, weight_decay: NonNegative = 0.01, decay_biases: bool = True
) -> Optimizer:
    """AdamW (decoupled weight decay) with PyTorch's defaults, fused; arguments as of `adam`."""
    groups = parameters if decay_biases else _biases_apart(parameters)
    return AdamW(groups, lr=lr, weight_decay=weight_decay, fused=True)


def _biases_apart(parameters: Iterable[Any]) -> list[dict[str, Any]]:
    """Each group in two: the parameters of several axes as they were, then those of one axis, which do not decay."""
    given = list(parameters)
    groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
    halves: list[dict[str, Any]] = []
    for group in groups:
        members = list(group["params"])
        halves.append({**group, "params": [p for p in members if p.ndim > 1]})
        halves.append({**group, "params": [p for p in members if p.ndim <= 1], "weight_decay": 0.0})
    return [half for half in halves if half["params"]]
