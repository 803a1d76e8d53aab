"""The training loop: when the learning rate falls, which epoch is kept, and what evaluation computes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mmsa.build import build_model, build_task
from mmsa.compose import compose
from mmsa.data.batches import Data, Fold
from mmsa.errors import DataError, TrainingError
from mmsa.learning import build_schedule
from mmsa.model import Learner, MultimodalModel
from mmsa.objective.task import TaskObjective
from mmsa.stages import Phase
from mmsa.training.checkpoints import load_checkpoint
from mmsa.training.device import one_device
from mmsa.training.schedules import Schedule, plateau
from mmsa.training.trainer import Trainer, TrainingState
from mmsa.types import Moment
from tests.contracts.conftest import configuration
from tests.data.test_batches import prepared, store_of


class Scripted(Trainer):
    """A trainer whose epochs add 1 to the only weight, and whose validation values are given."""

    def __init__(self, folder: Path, scores: Sequence[float], patience: int = 99) -> None:
        fabric, task = one_device(), build_task(configuration())
        super().__init__(fabric, task, folder, {}, max_epochs=len(scores), batch_size=4, patience=patience)
        self.scores = iter(scores)

    def _train_epoch(
        self, learner: Learner, optimizers: Any, schedule: Any, train: Fold, epoch: int
    ) -> dict[str, float]:
        with torch.no_grad():
            for weight in learner.parameters():
                weight.add_(1.0)
        return {"train/loss": 1.0 / epoch}  # it falls in every epoch

    def evaluate(self, model: nn.Module, fold: Fold) -> tuple[dict[str, float], np.ndarray]:
        return {"mae": next(self.scores)}, np.zeros(1)


def learner_of(model: Any) -> Learner:
    return Learner(model, TaskObjective(build_task(configuration())))


def fitted(
    folder: Path, scores: Sequence[float], scheduler: Mapping[str, Any] | None = None, patience: int = 99
) -> tuple[TrainingState, list[float], nn.Module]:
    """What a scripted training came to, its learning rate at each epoch, and its model."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = plateau(optimizer, "min", **scheduler) if scheduler is not None else None
    nothing: Any = None
    trainer = Scripted(folder, scores, patience)
    optimizers = {"main": optimizer}
    progress = trainer.fit(learner_of(model), optimizers, schedule, nothing, nothing, lambda progress, record: None)
    return progress, [record["lr"] for record in progress.history], model


# --- the learning rate ------------------------------------------------------------------------------------------------


def test_the_schedule_steps_once_an_epoch_on_the_validation_value(tmp_path: Path) -> None:
    """Stepped on the falling training loss as well, it would never see a stall."""
    seen: list[float] = []

    class Recorded:
        def step(self, value: float) -> None:
            seen.append(value)

        def state_dict(self) -> dict[str, Any]:
            return {}

    scores = [0.9, 0.8, 0.85, 0.8]
    learner = learner_of(nn.Linear(1, 1))
    optimizers = {"main": torch.optim.SGD(learner.parameters(), lr=1.0)}
    schedule = Schedule(Recorded(), "epoch", reads_score=True)
    nothing: Any = None
    Scripted(tmp_path, scores).fit(learner, optimizers, schedule, nothing, nothing, lambda progress, record: None)
    assert seen == scores
    _, rates, _ = fitted(tmp_path, [0.5] * 12, {"patience": 2, "cooldown": 2})
    assert rates[:4] == [1.0] * 4 and rates[4] == 0.5 and rates[-1] < 0.5


def test_the_learning_rate_falls_before_patience_ends_and_training_goes_on(tmp_path: Path) -> None:
    progress, rates, _ = fitted(tmp_path, [0.5] * 4 + [0.4] + [0.45] * 20, {"patience": 1}, patience=6)
    assert rates[3] == 0.5, "it has fallen while the run goes on"
    assert progress.best_epoch == 5 and progress.epoch == 11
    defaults = compose()
    assert defaults.scheduler.patience < defaults.trainer.patience


def test_a_schedule_is_off_when_it_is_not_chosen(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert build_schedule(configuration("scheduler=none"), optimizer, "min", [Phase()], 1) is None
    assert set(fitted(tmp_path, [0.5] * 30)[1]) == {1.0}


# --- selection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scores", [*itertools.permutations([0.4, 0.5, 0.6]), (0.6, 0.5, 0.4, 0.45, 0.41), (0.3, 0.2, 0.2, 0.9)]
)
def test_the_checkpoint_is_that_of_the_best_epoch(tmp_path: Path, scores: tuple[float, ...]) -> None:
    """Not the runner-up, nor the last."""
    progress, _, model = fitted(tmp_path, scores)
    best = 1 + int(np.argmin(scores))
    assert progress.best_epoch == best
    assert load_checkpoint(tmp_path / "best.pt")["model"]["weight"].item() == best
    Scripted(tmp_path, scores).restore_best(model)
    assert model.weight.item() == best  # type: ignore[operator]


def test_a_value_that_is_not_a_number_is_never_the_best_and_is_not_hidden(tmp_path: Path) -> None:
    progress, _, _ = fitted(tmp_path, [math.nan, 0.5, math.nan, 0.6])
    assert (progress.best_epoch, progress.best_score) == (2, 0.5)
    assert [math.isnan(record["valid/mae"]) for record in progress.history] == [True, False, True, False]


def test_patience_counts_the_epochs_in_which_the_monitor_is_undefined(tmp_path: Path) -> None:
    undefined = [math.nan] * 20
    assert fitted(tmp_path, [0.5, *undefined], patience=3)[0].epoch == 4
    assert fitted(tmp_path, [math.nan, math.nan, 0.5, *undefined], patience=3)[0].best_epoch == 3
    with pytest.raises(TrainingError, match=r"task\.monitor=mae is undefined .* every one of 3 epochs.*\n  type "):
        fitted(tmp_path, [*undefined, 0.5], patience=3)
    rates = fitted(tmp_path, [*undefined[:2], 0.5], {"patience": 0, "cooldown": 0}, patience=9)[1]
    assert rates == [1.0, 0.5, 0.25], "an undefined value is no better one to the schedule either"


def test_without_a_best_checkpoint_nothing_is_tested(tmp_path: Path) -> None:
    """The originals print a line and go on with the weights of the last epoch."""
    with pytest.raises(DataError, match=r"best\.pt is not a checkpoint"):
        Scripted(tmp_path, []).restore_best(nn.Linear(1, 1))


# --- evaluation -------------------------------------------------------------------------------------------------------


class Watched(nn.Module):
    """A model that notes whether gradients were on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients = model, [False]

    def forward(self, batch: Any) -> Any:
        self.gradients.append(torch.is_grad_enabled())
        return self.model(batch)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_metrics_are_those_of_the_whole_fold_whatever_the_batch_size(tmp_path: Path, task: str) -> None:
    """A mean over batches changes with their size; a last batch of one utterance breaks the originals."""
    cfg = configuration(f"task={task}", "regularizer=m3", "feedback=mmlatch")
    store = store_of(tmp_path / "made.h5", prepared(60))
    fold = Data(store, ["text", "audio"]).fold("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Watched(model_of_widths(cfg, {"text": 4, "audio": 3}))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for batch_size in (len(fold), len(fold) - 1, 13, 1):
        assert batch_size in (len(fold), 1) or len(fold) % batch_size == 1
        fabric = one_device()
        trainer = Trainer(fabric, build_task(cfg), tmp_path, {}, max_epochs=1, batch_size=batch_size, patience=1)
        metrics, predictions = trainer.evaluate(model, fold)
        assert predictions.shape == (len(fold),)
        found.append((metrics, predictions))
    for metrics, predictions in found[1:]:
        np.testing.assert_allclose(predictions, found[0][1], rtol=1e-4, atol=1e-5)
        assert metrics == pytest.approx(found[0][0], rel=1e-4, nan_ok=True)
    assert not any(model.gradients)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "evaluation writes nothing"


def model_of_widths(cfg: Any, widths: Mapping[str, int]) -> MultimodalModel:
    return build_model(cfg, dict(widths), build_task(cfg), torch.Generator().manual_seed(0))


def test_a_batch_of_one_takes_a_training_step(tmp_path: Path) -> None:
    store = store_of(tmp_path / "made.h5", prepared(60))
    for task in ("regression", "classification"):
        cfg = configuration(f"task={task}", "regularizer=m3_slp", "fusion=misa", "encoder=misa")
        model = model_of_widths(cfg, {"text": 4, "audio": 3}).train()
        fold = Data(store, ["text", "audio"]).fold("train")
        fabric = one_device()
        trainer = Trainer(fabric, build_task(cfg), tmp_path, {}, max_epochs=1, batch_size=1, patience=1)
        learner = Learner(model, TaskObjective(build_task(cfg)))
        learner, optimizer = fabric.setup(learner, torch.optim.Adam(learner.parameters(), lr=1e-3))
        (losses,) = trainer.step(learner, {"main": optimizer}, [fold.batch(np.array([0]))], [Moment(1, 1, 1, 1)])
        assert torch.isfinite(losses["task"]) and all(torch.isfinite(p).all() for p in model.parameters())
