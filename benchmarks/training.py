"""Training and evaluation of a recipe, beside the plain version."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from benchmarks.corpus import store
from benchmarks.floor import Operations
from benchmarks.measuring import Contender, Contest, Size, Work
from benchmarks.ours import Training
from benchmarks.plain import loop

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}

MakePlain = Callable[[Mapping[str, int], int], nn.Module]
"""The plain model of these features and this hidden width."""


@dataclass(frozen=True)
class Recipe:
    """A recipe whose training and evaluation are measured.

    Args:
        overrides: that make it.
        plain: makes its plain version.
        batch_size: of its batches; None: the recipe's.
        precisions: of ours, each a contender.
    """

    overrides: tuple[str, ...]
    plain: MakePlain
    batch_size: int | None = None
    precisions: tuple[str, ...] = ("fp32",)


class Plain:
    """The plain version of a training, over the same utterances.

    Args:
        ours: whose utterances, optimiser's options and groups of batches it takes.
        make: makes the model.
    """

    def __init__(self, ours: Training, make: MakePlain) -> None:
        self.model = make(ours.data.widths, ours.cfg.hidden_dim)
        chosen = {key: ours.cfg.optimizer[key] for key in ("lr", "weight_decay")}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **chosen)
        self.train = loop.items(ours.train, ours.task.target)
        self.valid = loop.items(ours.valid, ours.task.target)
        if hasattr(self.model, "begin"):
            self.model.begin(self.train)  # type: ignore[operator]
        self.order = random.Random(1)
        self.clip_value, self.accumulate = ours.cfg.trainer.clip_value, ours.cfg.trainer.accumulate
        self.batch_size, self.num_batches = ours.batch_size, ours.share.num_batches

    def epoch(self) -> list[int]:
        """Train on one epoch's share; the real steps of its utterances."""
        torch.use_deterministic_algorithms(False)
        chosen = self.order.sample(self.train, self.num_batches * self.batch_size)
        batches = loop.loader(self.model, chosen, self.batch_size, shuffle=True)
        loop.train(self.model, self.optimizer, batches, self.clip_value, self.accumulate)
        return [len(each["text"]) for each in chosen]

    def evaluate(self) -> list[int]:
        """Predict the validation fold; the real steps of its utterances."""
        torch.use_deterministic_algorithms(False)
        loop.evaluate(self.model, loop.loader(self.model, self.valid, self.batch_size, shuffle=False))
        return [len(each["text"]) for each in self.valid]


def operations(plain: Plain, widths: Mapping[str, int]) -> Operations:
    """Those of the plain model, counted on single utterances of features so wide."""

    def forward(num_steps: int) -> object:
        features = {m: torch.zeros(1, num_steps, width) for m, width in widths.items()}
        return plain.model(features, torch.tensor([num_steps]))

    return Operations(forward)


@dataclass(frozen=True)
class Sides:
    """Ours by the names of their precisions, the plain side, and the operations of an utterance."""

    ours: Mapping[str, Training]
    plain: Plain
    operations: Operations


@lru_cache(maxsize=1)
def sides(recipe: Recipe, folder: Path, size: Size) -> Sides:
    """Those of a recipe, which its training and its evaluation share."""
    corpus = store(folder, size)
    own = [f"trainer.batch_size={recipe.batch_size}"] if recipe.batch_size else []
    ours = {
        name: Training(
            [*recipe.overrides, *own, *size.overrides, f"device.precision={precision}"], corpus, size.num_train
        )
        for name, precision in PRECISIONS.items()
        if name in recipe.precisions
    }
    first = next(iter(ours.values()))
    plain = Plain(first, recipe.plain)
    return Sides(ours, plain, operations(plain, first.data.widths))


def training(recipe: Recipe, folder: Path, size: Size) -> Contest:
    """Training of a recipe.

    Args:
        recipe: which.
        folder: of the corpus, which is made where it is not there yet.
        size: how much of it.
    """
    found = sides(recipe, folder, size)
    return _contest(found, lambda side: side.epoch(), found.operations.training)


def evaluation(recipe: Recipe, folder: Path, size: Size) -> Contest:
    """Evaluation of a recipe; arguments as of `training`."""
    found = sides(recipe, folder, size)
    return _contest(found, lambda side: side.evaluate(), found.operations.forward)


def _contest(
    found: Sides, act: Callable[[Training | Plain], list[int]], count: Callable[[Sequence[int]], float]
) -> Contest:
    def contender(name: str, side: Training | Plain) -> Contender:
        def turn() -> Work:
            steps = act(side)
            return Work(len(steps), count(steps))

        return Contender(name, turn)

    return Contest(
        "utterance",
        [contender(name, side) for name, side in found.ours.items()],
        contender("plain", found.plain),
    )
