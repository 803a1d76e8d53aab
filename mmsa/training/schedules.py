"""Learning-rate schedules, as a run configures them: PyTorch's own, each of which states when it moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, ReduceLROnPlateau, StepLR

from mmsa.errors import ConfigError
from mmsa.ranges import Count, NaturalNumber, Probability

Unit = Literal["epoch", "step"]
Share = Annotated[float, Ge(0.0), Lt(1.0)]
_PLANNED = "planned_epochs"
"""Stands beside the scheduler's own state; the checkpoints of older runs lack it."""


class Schedule:
    """A scheduler, and when it moves.

    Args:
        scheduler: PyTorch's, or one with its `step`, `state_dict` and `load_state_dict`.
        unit: "step" moves after every step of the optimiser, "epoch" after every epoch.
        reads_score: it gets the monitored value of the validation fold; only with "epoch".
        total: planned epochs, >= 1, where the curve depends on them: a run resumes only with as many. Else None.

    Raises:
        ValueError: `reads_score` with "step", after which there is no score.
    """

    def __init__(self, scheduler: Any, unit: Unit, reads_score: bool = False, total: int | None = None) -> None:
        if reads_score and unit == "step":
            raise ValueError("a schedule that reads the score needs unit=epoch: a step has no score")
        self.scheduler, self.unit, self.reads_score, self.total = scheduler, unit, reads_score, total

    def after_step(self) -> None:
        """Due after every step of the optimiser."""
        if self.unit == "step":
            self.scheduler.step()

    def after_epoch(self, score: float) -> None:
        """Due after every epoch, with the monitored value of the validation fold."""
        if self.reads_score:
            self.scheduler.step(score)
        elif self.unit == "epoch":
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Its progress, and its planned length."""
        return {**self.scheduler.state_dict(), _PLANNED: self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state.

        Raises:
            ConfigError: the state is of a curve of another length.
        """
        planned = state.get(_PLANNED)
        if planned != self.total:
            raise ConfigError(
                f"trainer.max_epochs={self.total}: the learning rate of this run follows a curve over {planned} "
                "epochs, and resumes only with as many.\n"
                f"  type trainer.max_epochs={planned}, or leave trainer.resume out"
            )
        self.scheduler.load_state_dict({name: value for name, value in state.items() if name != _PLANNED})


def none() -> None:
    """No schedule: a constant learning rate."""


def plateau(
    optimizer: Optimizer,
    mode: str,
    factor: Probability = 0.5,
    patience: NaturalNumber = 2,
    cooldown: NaturalNumber = 2,
    min_factor: Probability = 0.05,
) -> Schedule:
    """Multiply the learning rate by `factor` when the monitored value has not improved for more than `patience` epochs.

    Args:
        optimizer: whose learning rate changes.
        mode: "min" or "max" of the monitored value.
        factor: what the learning rate is multiplied by.
        patience: epochs without improvement before the rate falls.
        cooldown: epochs after a change in which none is counted.
        min_factor: the smallest learning rate, as a share of the first.
    """
    scheduler = ReduceLROnPlateau(
        optimizer,
        mode="max" if mode == "max" else "min",
        factor=factor,
        patience=patience,
        cooldown=cooldown,
        min_lr=[group["lr"] * min_factor for group in optimizer.param_groups],
    )
    return Schedule(scheduler, "epoch", reads_score=True)


def step(optimizer: Optimizer, factor: Probability = 0.1, every: Count = 10) -> Schedule:
    """Multiply the learning rate by `factor` every `every` epochs.

    Args:
        optimizer: whose learning rate changes.
        factor: what the learning rate is multiplied by.
        every: epochs between two changes, >= 1.
    """
    return Schedule(StepLR(optimizer, step_size=every, gamma=factor), "epoch")


def exponential(optimizer: Optimizer, factor: Probability = 0.95) -> Schedule:
    """Multiply the learning rate by `factor` after every epoch."""
    return Schedule(ExponentialLR(optimizer, gamma=factor), "epoch")


def constant(
    optimizer: Optimizer, total_steps: int, total_epochs: int, warmup: Share = 0.0, unit: Unit = "step"
) -> Schedule:
    """A constant learning rate, after a warm-up.

    Args:
        optimizer: whose learning rate changes.
        total_steps: steps of the optimiser in the whole planned training.
        total_epochs: epochs of the whole planned training.
        warmup: share of the planned training in which the rate rises, in [0, 1).
        unit: of the curve.
    """
    schedule = _curve(optimizer, total_steps, total_epochs, warmup, unit, lambda _: 1.0)
    schedule.total = total_epochs if warmup else None  # without one no length is planned for
    return schedule


def linear(
    optimizer: Optimizer, total_steps: int, total_epochs: int, warmup: Share = 0.0, unit: Unit = "step"
) -> Schedule:
    """The learning rate falls on a straight line to 0 at the end of the planned training, after a warm-up.

    Args: as of `constant`.
    """
    return _curve(optimizer, total_steps, total_epochs, warmup, unit, lambda done: 1.0 - done)


def cosine(
    optimizer: Optimizer,
    total_steps: int,
    total_epochs: int,
    warmup: Share = 0.0,
    min_factor: Probability = 0.0,
    unit: Unit = "step",
) -> Schedule:
    """The learning rate falls on half a cosine to `min_factor` at the end of the planned training, after a warm-up.

    Args: as of `constant`, and
        min_factor: the last learning rate, as a share of the first.

    Reference:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017; without restarts.
    """

    def fall(done: float) -> float:
        return min_factor + (1.0 - min_factor) * (1.0 + math.cos(math.pi * done)) / 2

    return _curve(optimizer, total_steps, total_epochs, warmup, unit, fall)


def _curve(
    optimizer: Optimizer, steps: int, epochs: int, warmup: float, unit: Unit, fall: Callable[[float], float]
) -> Schedule:
    """A rise on a straight line, no part of which is at 0, then `fall` of the share of the rest that is done."""
    total = steps if unit == "step" else epochs
    rise = warmup * total

    def factor(done: int) -> float:
        return (done + 1) / (rise + 1) if done < rise else fall(min(1.0, (done - rise) / (total - rise)))

    return Schedule(LambdaLR(optimizer, factor), unit, total=epochs)
