"""Optimisers and learning-rate schedules, as a run configures them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mmsa.ranges import NaturalNumber, NonNegative, Positive, Probability


def adam(parameters: Iterable[Any], lr: Positive, weight_decay: NonNegative = 0.0) -> Optimizer:
    """Adam with PyTorch's defaults, fused; `parameters` may be groups with a learning rate of their own."""
    return Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def adamw(parameters: Iterable[Any], lr: Positive, weight_decay: NonNegative = 0.01) -> Optimizer:
    """AdamW (decoupled weight decay) with PyTorch's defaults, fused; `parameters` as of `adam`."""
    return AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def plateau(
    optimizer: Optimizer,
    mode: str,
    factor: Probability = 0.5,
    patience: NaturalNumber = 2,
    cooldown: NaturalNumber = 2,
    min_factor: Probability = 0.05,
) -> ReduceLROnPlateau:
    """Multiply the learning rate by `factor` when the monitored value has not improved for more than `patience` epochs.

    Args:
        optimizer: whose learning rate changes.
        mode: "min" or "max" of the monitored value.
        factor: what the learning rate is multiplied by.
        patience: epochs without improvement that are let pass.
        cooldown: epochs after a change in which none is counted.
        min_factor: the smallest learning rate, as a share of the first.
    """
    lowest = [group["lr"] * min_factor for group in optimizer.param_groups]
    return ReduceLROnPlateau(
        optimizer,
        mode="max" if mode == "max" else "min",
        factor=factor,
        patience=patience,
        cooldown=cooldown,
        min_lr=lowest,
    )


def none(optimizer: Optimizer, mode: str) -> LRScheduler | None:
    """No schedule: the learning rate stays."""
    return None
