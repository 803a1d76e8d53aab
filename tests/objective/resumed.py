"""Small trainings of an objective: single batches, and a training that was stopped within an epoch and went on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor

from mmsa import build
from mmsa.data.batches import Data
from mmsa.model import Learner
from mmsa.training.checkpoints import load_checkpoint
from mmsa.training.seeding import generator, initialisation
from mmsa.training.trainer import Trainer
from mmsa.types import Batch, Moment
from tests.contracts.conftest import widths
from tests.data.test_batches import prepared, store_of

Checkpoints = dict[str, dict[str, Any]]
"""The content of last.pt and best.pt."""
EPOCHS, BATCH_SIZE = 3, 16


class StoppedError(Exception):
    """A training is stopped."""


def data_of(folder: Path) -> Data:
    """Utterances with text and audio, a label of all and one of each modality."""
    rows = prepared(60)
    random = np.random.default_rng(1)
    for name in ("sentiment_text", "sentiment_audio"):
        rows.targets[name] = random.normal(size=60).astype(np.float32)
    return Data(store_of(folder / "made.h5", rows), ["text", "audio"])


def learner_of(cfg: DictConfig, dims: Mapping[str, int] | None = None, seed: int = 0) -> Learner:
    """A model of these widths, by default for the batches of `make_batch`, and what it learns from, in training."""
    task = build.build_task(cfg)
    with initialisation(seed):
        model = build.build_model(cfg, dims or widths(3), task, torch.Generator().manual_seed(1))
        objective = build.build_objective(cfg, model, task, torch.Generator().manual_seed(2))
    return Learner(model, objective).train()


def step(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """The losses of a batch, after which its gradients are there and the objective is told."""
    moment = Moment(1, 1, 1, 1)
    losses = learner(batch, moment)
    torch.stack(list(losses.values())).sum().backward()
    learner.objective.after_backward(batch, moment)
    return {name: loss.detach() for name, loss in losses.items()}


def undisturbed_and_resumed(cfg: DictConfig, data: Data, folder: Path) -> tuple[Checkpoints, Checkpoints]:
    """What a training of three epochs leaves, and what one does that was stopped and went on.

    It is stopped in the second batch of epoch 2, and goes on from last.pt with fresh objects, whose weights, memories
    and generators are those of another seed. `assert_equal_bits` compares the two.
    """
    trained(cfg, data, folder / "undisturbed")
    with pytest.raises(StoppedError):
        trained(cfg, data, folder / "resumed", stop_at=(2, 2))
    trained(cfg, data, folder / "resumed", seed=1, resume=True)
    return checkpoints(folder / "undisturbed"), checkpoints(folder / "resumed")


def checkpoints(folder: Path) -> Checkpoints:
    return {name: load_checkpoint(folder / f"{name}.pt") for name in ("last", "best")}


def trained(
    cfg: DictConfig,
    data: Data,
    folder: Path,
    stop_at: tuple[int, int] | None = None,
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train into `folder`; `stop_at` an epoch and a batch of it."""
    fabric, train, valid = Fabric(accelerator="cpu", devices=1), data.fold("train"), data.fold("valid")
    generators = {purpose: generator(seed, purpose) for purpose in ("order", "masks", "objective")}
    task = build.build_task(cfg)
    with initialisation(seed):
        model = build.build_model(cfg, data.widths, task, generators["masks"], data.aligned, max_steps=data.max_steps)
        objective = build.build_objective(cfg, model, task, generators["objective"])
    objective.begin(len(train), {name: torch.from_numpy(values) for name, values in train.targets.items()})
    learner: Any = Learner(model, objective)

    def stop(learner: torch.nn.Module, arguments: tuple[Batch, Moment]) -> None:
        if (arguments[1].epoch, arguments[1].step) == stop_at:
            raise StoppedError

    learner.register_forward_pre_hook(stop)
    optimizers = build.build_optimizers(cfg, learner)
    learner, *ready = fabric.setup(learner, *optimizers.values())
    optimizers = dict(zip(optimizers, ready, strict=True))
    trainer = Trainer(fabric, task, folder, generators, max_epochs=EPOCHS, batch_size=BATCH_SIZE, patience=EPOCHS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        trainer.fit(learner, optimizers, None, train, valid, lambda progress, record: None, resume)


def assert_equal_bits(one: Any, other: Any, place: str = "") -> None:
    """Two checkpoints, or parts of them, are the same."""
    assert type(one) is type(other), place
    if isinstance(one, Mapping):
        assert list(one) == list(other), place
        for key in one:
            assert_equal_bits(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, Sequence) and not isinstance(one, str):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal_bits(*pair, f"{place}[{index}]")
    else:
        assert one == other or (one != one and other != other), place
