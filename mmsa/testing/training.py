"""The laws of training: a stopped one resumes to the bits of an undisturbed one."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mmsa import learning
from mmsa.model import Learner
from mmsa.run_folder import OF_THE_RUN
from mmsa.testing.batches import select
from mmsa.testing.laws import Subject
from mmsa.training.device import one_device
from mmsa.training.trainer import Gradients, Trainer, TrainingState, alone
from mmsa.types import Batch

LENGTHS = [1 + (3 * i) % 7 for i in range(10)]
"""Words of each utterance; the last batch is smaller."""
SIZES = {"max_epochs": 5, "patience": 5, "batch_size": 3}
NUM_BATCHES, STOPPED_IN = 4, 4
"""Batches of an epoch, and the epoch in which a training is stopped, after two of them."""


class Stopped(Exception):
    """A training was stopped in mid-epoch."""


class RandomFold:
    """Utterances of a random batch, instead of a `Fold`.

    Args:
        whole: all of them.
        stop_after: raise Stopped before the batch of this number; None never does.
    """

    def __init__(self, whole: Batch, stop_after: int | None = None) -> None:
        self.whole, self.ids = whole, whole.ids
        self.targets = {name: values.numpy() for name, values in whole.targets.items()}
        self.left = math.inf if stop_after is None else stop_after

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every utterance once, in order."""
        yield from self._cut(np.arange(len(self)), batch_size)

    def shuffled(
        self, batch_size: int, generator: torch.Generator, places: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Every utterance once, in the order of the generator."""
        for batch in self._cut(torch.randperm(len(self), generator=generator).numpy(), batch_size):
            if self.left <= 0:
                raise Stopped
            self.left -= 1
            yield batch

    def _cut(self, order: np.ndarray, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(order), batch_size):
            yield select(self.whole, order[start : start + batch_size].tolist())


def fitted(
    subject: Subject, folder: Path, stop_after: int | None = None, resume: bool = False, gradients: Gradients = alone
) -> tuple[TrainingState, Learner]:
    """Train a small model on random utterances as a run does; all that is random follows from the seed 0.

    Args:
        subject: whose configuration it is; of its trainer the sizes below are taken instead.
        folder: of the checkpoints.
        stop_after: batches after which it is stopped.
        resume: from the folder's last checkpoint.
        gradients: as of the trainer.
    """
    cfg = cast(DictConfig, OmegaConf.merge(subject.cfg, {"trainer": SIZES}))
    whole = subject.batch(lengths=LENGTHS)
    train: Any = RandomFold(whole, stop_after)
    valid: Any = RandomFold(subject.batch(lengths=LENGTHS, seed=1))
    generators = {name: torch.Generator().manual_seed(0) for name in ("order", "masks", "objective")}
    learner = subject.learner(train=whole, generators=generators)
    optimizers = learning.build_optimizers(cfg, learner)
    task, phases = subject.task, learner.objective.phases
    schedule = learning.build_schedule(cfg, optimizers["main"], task.mode, phases, len(train))
    options = {key: value for key, value in cfg.trainer.items() if key not in OF_THE_RUN}
    trainer = Trainer(one_device(), task, folder, generators, gradients=gradients, **options)
    torch.manual_seed(0)
    progress = trainer.restored(learner, optimizers, schedule) if resume else None
    return trainer.fit(learner, optimizers, schedule, train, valid, lambda *_: None, progress), learner


def a_stopped_training_goes_on_to_the_same_bits(subject: Subject) -> None:
    """Stopped in mid-epoch and resumed, it comes to the state of one that was never stopped."""
    with tempfile.TemporaryDirectory() as name:
        whole, stopped = Path(name, "whole"), Path(name, "stopped")
        undisturbed, learner = fitted(subject, whole)
        num_phases = len(learner.objective.phases)
        with suppress(Stopped):
            fitted(subject, stopped, stop_after=(STOPPED_IN - 1) * num_phases * NUM_BATCHES + 2)
            raise AssertionError("the training ended before it was stopped")
        resumed, other = fitted(subject, stopped, resume=True)
    assert same(undisturbed.history, resumed.history), (
        f"a resumed training went another way: {resumed.history[-1]} instead of {undisturbed.history[-1]}"
    )
    states = learner.state_dict(), other.state_dict()
    differ = [name for name in states[0] if not same(states[0][name], states[1][name])]
    assert not differ, f"{differ[0]} differs after a training that was stopped and resumed"


def same(first: Any, second: Any) -> bool:
    """Whether two values, or containers of them, have the same bits; NaN is like NaN."""
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    a, b = torch.as_tensor(first), torch.as_tensor(second)
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
