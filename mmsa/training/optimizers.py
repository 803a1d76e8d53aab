"""Optimisers, as a run configures them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from mmsa.ranges import NonNegative, Positive
from mmsa.training.groups import divided


def adam(
    parameters: Iterable[Any],
    lr: Positive,
    weight_decay: NonNegative = 0.0,
    decay_biases: bool = True,
    groups: Mapping[str, Any] | None = None,
    named: Mapping[str, nn.Parameter] | None = None,
) -> Optimizer:
    """Adam with PyTorch's defaults, fused.

    Args:
        parameters: tensors, or groups with a learning rate or weight decay of their own.
        lr: learning rate, > 0.
        weight_decay: >= 0, added to the gradient.
        decay_biases: parameters of one axis (biases, scales of norms) decay like the others.
        groups: a tree of modules' names, such as {"encoders": {"text": {"lr": 5e-5}}}, with an lr, a weight_decay or a
            decay_biases for the parameters below; those that `parameters` itself gives go before them.
        named: the parameters by name; the objective's begin with "objective.".
    """
    return Adam(divided(parameters, named, groups, decay_biases), lr=lr, weight_decay=weight_decay, fused=True)


def adamw(
    parameters: Iterable[Any],
    lr: Positive,
    weight_decay: NonNegative = 0.01,
    decay_biases: bool = True,
    groups: Mapping[str, Any] | None = None,
    named: Mapping[str, nn.Parameter] | None = None,
) -> Optimizer:
    """AdamW (decoupled weight decay) with PyTorch's defaults, fused; arguments as of `adam`."""
    return AdamW(divided(parameters, named, groups, decay_biases), lr=lr, weight_decay=weight_decay, fused=True)
