"""A run's parts, built as `mmsa.experiment.run` builds them, without its folder and records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.plain.loop import EPOCH
from mmsa import build, learning
from mmsa.compose import Composer
from mmsa.data.batches import Fold
from mmsa.data.store import Store
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.model import Learner
from mmsa.training.seeding import generator, initialisation
from mmsa.training.trainer import Trainer
from mmsa.types import Batch

composed = Composer()
"""Choices of groups are composed once."""


class EvenShare:
    """An epoch of a fold of which only some batches are trained on: evenly spaced by length, so of every length.

    Stands for the fold where `Trainer` walks an epoch; the epoch is ordered and pooled as one of CMU-MOSEI is, whose
    utterances are these, as often as it takes.
    """

    def __init__(self, fold: Fold, num_batches: int, batch_size: int) -> None:
        self.fold, self.num_batches, self.batch_size = fold, num_batches, batch_size
        self.steps: list[int] = []
        """Real steps of every utterance of the last epoch."""

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def shuffled(
        self, batch_size: int, generator: torch.Generator, places: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """The chosen batches of one epoch."""
        rows_only: Any = copy(self.fold)
        times = -(-CmuMosei.canonical_sizes["train"] // len(self.fold))
        rows_only.rows, rows_only.steps = (np.tile(held, times) for held in (self.fold.rows, self.fold.steps))
        rows_only.batch = lambda rows: rows % len(self.fold)
        epoch = [rows for rows in rows_only.shuffled(batch_size, generator) if len(rows) == batch_size]
        epoch.sort(key=lambda rows: float(self.fold.steps[rows].mean()))
        shares = (np.arange(self.num_batches) + 0.5) / self.num_batches * len(epoch)
        chosen = [epoch[int(share)] for share in shares]
        self.steps = np.concatenate([self.fold.steps[rows] for rows in chosen]).tolist()
        for index in torch.randperm(len(chosen), generator=generator).tolist():
            yield self.fold.batch(chosen[index])


class Training:
    """A training, ready to take epochs.

    Args:
        overrides: of its configuration.
        store: its data.
        num_train: about as many utterances has an epoch.
        device: where it runs.
    """

    def __init__(self, overrides: Sequence[str], store: Store, num_train: int, device: str = "cpu") -> None:
        self.cfg = cfg = composed(["dataset=cmu_mosei", "tracking=none", f"device={device}", *overrides])
        self.deterministic = bool(cfg.device.deterministic)
        fabric = build.build_fabric(cfg)
        dataset = build.build_dataset(cfg, store)
        self.task = task = build.build_task(cfg, dataset)
        self.data = data = build.load_data(cfg, dataset, store)
        self.train, self.valid = data.fold("train"), data.fold("valid")
        task.begin(self.train.targets)
        generators = {purpose: generator(cfg.seed, purpose) for purpose in ("order", "masks", "objective")}
        with initialisation(cfg.seed):
            self.model = build.build_model(
                cfg, data.widths, task, generators["masks"], data.aligned, data.tables, data.max_steps
            )
            objective = learning.build_objective(cfg, self.model, task, generators["objective"])
        objective.begin(len(self.train), {name: torch.from_numpy(v) for name, v in self.train.targets.items()})
        learner: Any = Learner(self.model, objective)
        optimizers = learning.build_optimizers(cfg, learner)
        chosen = ("max_epochs", "batch_size", "patience", "accumulate", "clip_norm", "clip_value")
        self.trainer = Trainer(fabric, task, Path(), generators, **{key: cfg.trainer[key] for key in chosen})
        self.learner, *ready = fabric.setup(learner, *optimizers.values())
        self.optimizers = dict(zip(optimizers, ready, strict=True))
        self.batch_size = int(cfg.trainer.batch_size)
        self.share: Any = EvenShare(self.train, max(1, num_train // self.batch_size), self.batch_size)

    def epoch(self) -> list[int]:
        """Train on one epoch's share; the real steps of its utterances."""
        torch.use_deterministic_algorithms(self.deterministic)
        self.trainer._train_epoch(self.learner, self.optimizers, None, self.share, EPOCH)
        return self.share.steps

    def batches(self) -> list[Batch]:
        """Those of one epoch's share."""
        return [*self.share.shuffled(self.batch_size, self.trainer.generators["order"])]

    def whole_epoch(self) -> None:
        """Train on all of the train fold."""
        torch.use_deterministic_algorithms(self.deterministic)
        self.trainer._train_epoch(self.learner, self.optimizers, None, self.train, 1)

    def evaluate(self) -> list[int]:
        """Predict and score the validation fold; the real steps of its utterances."""
        torch.use_deterministic_algorithms(self.deterministic)
        self.trainer.evaluate(self.model, self.valid)
        return self.valid.steps.tolist()
