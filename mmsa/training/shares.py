"""A batch shared out to the processes of a run: losses and gradients are those of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.model import Learner
from mmsa.stages import Phase, Task
from mmsa.training.phases import lowered, summed
from mmsa.training.seeding import derived_seed
from mmsa.training.together import hindrance_of
from mmsa.training.trainer import Trainer
from mmsa.types import Batch, Moment

COMMON = ("order", "places")
"""The generators whose draws are equal in all processes."""


class Shares:
    """Losses and gradients of whole batches, of which each process computes those of its share.

    Args:
        seed: of the run. Rank 0 draws (dropout, masks) from the run's generators; the others seed theirs anew in each
            epoch, so that a checkpoint needs those of rank 0 alone.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def gradients(
        self, trainer: Trainer, learner: Learner, batches: Sequence[Batch], moments: Sequence[Moment], phase: Phase
    ) -> list[dict[str, Tensor]]:
        """As `mmsa.training.trainer.alone`; equal in all processes."""
        fabric = trainer.fabric
        rank, num_ranks = fabric.global_rank, fabric.world_size
        if rank and moments[0].step == 1:
            self._seed_anew(trainer.generators, f"rank {rank}, epoch {moments[0].epoch}, phase {phase.name}")
        learner.zero_grad(set_to_none=True)
        num_utterances = sum(len(batch.ids) for batch in batches)
        found = []
        for batch, moment in zip(batches, moments, strict=True):
            rows = range(rank, len(batch.ids), num_ranks)  # alternate ones: they lie in the order of their lengths
            own = batch.part(rows or [0]).to(fabric.device)  # of a process without any, one that counts as none
            with fabric.no_backward_sync(learner, enabled=batch is not batches[-1]):  # type: ignore[arg-type]
                losses = lowered(learner(own, moment), phase)
                fabric.backward(summed(losses) * (num_ranks * len(rows) / num_utterances))  # DDP takes the mean
            found.append({name: loss.detach() * (len(rows) / len(batch.ids)) for name, loss in losses.items()})
        total = fabric.all_reduce(torch.stack([torch.stack(list(of.values())) for of in found]), reduce_op="sum")
        return [dict(zip(of, row, strict=True)) for of, row in zip(found, total, strict=True)]

    def _seed_anew(self, generators: Mapping[str, torch.Generator], when: str) -> None:
        for name, source in generators.items():
            if name not in COMMON:
                source.manual_seed(derived_seed(self._seed, f"{name}, {when}"))
        torch.manual_seed(derived_seed(self._seed, f"dropout, {when}"))


def check_shares(devices: int, batch_size: int, learner: Learner, task: Task) -> None:
    """Refuse a training whose losses are not those of the whole batch where several devices share it.

    Raises:
        ConfigError: it is one.
    """
    if batch_size < devices:
        raise ConfigError(
            f"trainer.batch_size={batch_size}: each of device.devices={devices} needs an utterance of a batch.\n"
            f"  type device.devices={batch_size}, or trainer.batch_size={devices}"
        )
    if devices > 1 and (reason := _hindrance(learner, task)):
        raise ConfigError(
            f"device.devices={devices}: {reason}, and each device sees its share of a batch alone.\n"
            "  type device.devices=1"
        )


def _hindrance(learner: Learner, task: Task) -> str | None:
    """Why the losses of a batch are not the means of those of its shares, as far as the parts declare it."""
    name = type(learner.objective).__name__
    if any(phase.optimizer is not None for phase in learner.objective.phases):
        return f"{name} has a phase with an optimiser of its own"
    if hindrance_of(type(learner.objective)):
        return f"{name} has a memory"
    if not learner.objective.averages:
        return f"{name} has losses that are not means over all utterances of a batch"
    weights: Mapping[str, float] = getattr(task, "auxiliary", {})
    if compared := [loss for loss, weight in weights.items() if weight]:
        return f"the loss task.auxiliary.{compared[0]} compares the utterances of a batch"
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in learner.modules()):
        return "a batch normalisation is over the utterances of a batch"
    return None
