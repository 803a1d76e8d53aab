"""Training and evaluation of a recipe, beside the plain version where there is one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.corpus import WIDTHS, store
from benchmarks.floor import Operations
from benchmarks.measuring import Contender, Contest, Work
from benchmarks.ours import Training
from benchmarks.plain import loop
from mmsa.types import Batch

MakePlain = Callable[[int], nn.Module]
"""The plain model of a hidden width."""


@dataclass(frozen=True)
class Size:
    """How large the benchmarks are.

    Args:
        num_utterances: of the corpus.
        num_train: utterances of a training turn, at least one batch of them.
        overrides: of every recipe.
        batch_sizes: False: every batch has 2 utterances.
        side: of the matrices whose product gives the machine's rate.
    """

    num_utterances: int = 4000
    num_train: int = 256
    overrides: tuple[str, ...] = ()
    side: int = 1536


SHORT = Size(num_utterances=20, num_train=4, overrides=("hidden_dim=4", "trainer.batch_size=2"), side=64)


@dataclass(frozen=True)
class Recipe:
    """A recipe whose training and evaluation are measured.

    Args:
        overrides: that make it.
        plain: makes its plain version; None: there is none.
        batch_size: of its batches.
        precisions: of ours, each a contender.
    """

    overrides: Sequence[str]
    plain: MakePlain | None = None
    batch_size: int = 32
    precisions: Sequence[str] = ("32-true",)


class Plain:
    """The plain version of a training, over the same utterances.

    Args:
        ours: whose utterances and learning rate it takes.
        make: makes the model.
    """

    def __init__(self, ours: Training, make: MakePlain) -> None:
        self.model = make(ours.cfg.hidden_dim)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=ours.cfg.optimizer.lr)
        self.train = loop.items(ours.train, ours.task.target)
        self.valid = loop.items(ours.valid, ours.task.target)
        self.batch_size, self.num_batches = ours.batch_size, ours.share.num_batches

    def epoch(self) -> list[int]:
        """Train on one epoch's share; the real steps of its utterances."""
        torch.use_deterministic_algorithms(False)
        chosen = random.sample(self.train, self.num_batches * self.batch_size)
        loop.train(self.model, self.optimizer, loop.loader(chosen, self.batch_size, shuffle=True))
        return [len(each["text"]) for each in chosen]

    def evaluate(self) -> list[int]:
        """Predict the validation fold; the real steps of its utterances."""
        torch.use_deterministic_algorithms(False)
        loop.evaluate(self.model, loop.loader(self.valid, self.batch_size, shuffle=False))
        return [len(each["text"]) for each in self.valid]


def one_utterance(ours: Training) -> Callable[[int], object]:
    """Our forward pass of one utterance, for its operations."""

    def forward(num_steps: int) -> object:
        features = {m: torch.zeros(1, num_steps, width) for m, width in WIDTHS.items()}
        lengths = torch.tensor([num_steps])
        return ours.model(Batch(features, dict.fromkeys(WIDTHS, lengths), {}, torch.tensor([0]), ("one",)))

    return forward


def one_plain_utterance(plain: Plain) -> Callable[[int], object]:
    """The plain forward pass of one utterance, for its operations."""

    def forward(num_steps: int) -> object:
        features = {m: torch.zeros(1, num_steps, width) for m, width in WIDTHS.items()}
        return plain.model(features, torch.tensor([num_steps]))

    return forward


def contest(recipe: Recipe, folder: Path, size: Size, evaluation: bool) -> Contest:
    """Training, or evaluation, of a recipe.

    Args:
        recipe: which.
        folder: of the corpus, which is made where it is not there yet.
        size: how much of it.
        evaluation: measure the evaluation.
    """
    corpus = store(folder, size.num_utterances)
    overrides = [*recipe.overrides, f"trainer.batch_size={recipe.batch_size}", *size.overrides]
    batch_size = 2 if size is SHORT else recipe.batch_size
    num_batches = max(1, size.num_train // batch_size)
    ours = {p: Training([*overrides, f"device.precision={p}"], corpus, num_batches) for p in recipe.precisions}
    first = next(iter(ours.values()))
    plain = recipe.plain and Plain(first, recipe.plain)
    operations = Operations(one_plain_utterance(plain) if plain else one_utterance(first))
    count = operations.forward if evaluation else operations.training

    def contender(name: str, side: Training | Plain) -> Contender:
        def turn() -> Work:
            steps = side.evaluate() if evaluation else side.epoch()
            return Work(len(steps), count(steps))

        return Contender(name, turn)

    named = {"32-true": "fp32", "bf16-mixed": "bf16"}
    return Contest(
        "utterance",
        [contender(named[precision], side) for precision, side in ours.items()],
        contender("plain", plain) if plain else None,
    )
