"""The losses that a phase of an objective lowers, and the parameters that it steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa.errors import ConfigError
from mmsa.model import Learner
from mmsa.stages import Phase


def num_batches(phase: Phase, num_utterances: int, batch_size: int) -> int:
    """Batches of a phase in an epoch in which it is due."""
    return math.ceil(phase.share * math.ceil(num_utterances / batch_size))


def num_steps(
    phases: Sequence[Phase], num_utterances: int, *, max_epochs: int, batch_size: int, accumulate: int
) -> int:
    """Steps of the run's optimiser in a training of all epochs."""
    return sum(
        math.ceil(num_batches(phase, num_utterances, batch_size) / accumulate)
        for epoch in range(1, max_epochs + 1)
        for phase in phases
        if phase.optimizer is None and phase.is_due(epoch)
    )


def lowered(losses: Mapping[str, Tensor], phase: Phase) -> dict[str, Tensor]:
    """The losses that a phase lowers.

    Raises:
        ConfigError: the objective does not return one of them.
    """
    if phase.losses is None:
        return dict(losses)
    absent = [name for name in phase.losses if name not in losses]
    if absent:
        raise ConfigError(
            f"the phase {phase.name} of the objective lowers the loss {absent[0]}, which is not returned; choose from "
            f"{', '.join(losses) or 'none'}.\n  type objective=task, or correct the objective"
        )
    return {name: losses[name] for name in phase.losses}


def summed(losses: Mapping[str, Tensor]) -> Tensor:
    """Their sum, over the runs of a joint step too."""
    return torch.stack([*losses.values()]).sum()


def stepped(phase: Phase, learner: Learner) -> list[nn.Parameter]:
    """The parameters that a phase steps.

    Raises:
        ConfigError: one of its patterns fits no parameter.
    """
    named = learner.named()
    for pattern in phase.parameters:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise ConfigError(
                f"the phase {phase.name} of the objective steps {pattern}, and no parameter has such a name; there is "
                f"{', '.join(sorted({name.rpartition('.')[0] or name for name in named}))}.\n"
                "  type objective=task, or correct the objective"
            )
    return [named[name] for name in named if any(fnmatchcase(name, pattern) for pattern in phase.parameters)]


@contextmanager
def only_those_of(phase: Phase, learner: Learner, optimizer: Optimizer) -> Iterator[None]:
    """Hide the gradients of an optimiser's parameters that a phase does not step; they come back afterwards."""
    if "*" in phase.parameters:
        yield
        return
    own = set(stepped(phase, learner))
    others = [p for group in optimizer.param_groups for p in group["params"] if p not in own]
    kept = [parameter.grad for parameter in others]
    for parameter in others:
        parameter.grad = None
    yield
    for parameter, gradient in zip(others, kept, strict=True):
        parameter.grad = gradient
