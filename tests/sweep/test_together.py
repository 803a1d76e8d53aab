"""Seeds of sweeps that train together: each trial has what it has with one seed after the other, also after a death."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from mmsa.compose import compose
from mmsa.errors import TrainingError
from mmsa.journal import Journal
from mmsa.record import Packing, RunRecord
from mmsa.sweep import worker
from mmsa.sweep.running import why_apart_in_trials
from mmsa.sweep.summary import seed_scores
from mmsa.training.trainer import Trainer
from tests.sweep.test_running import GRID, LR, base, make, runs, work

__all__ = ["base", "runs"]


@pytest.fixture(autouse=True)
def two_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """More seeds would cost time and show nothing."""
    monkeypatch.setattr("mmsa.seeds.FEWEST", 2)


def records(trial: FrozenTrial, runs: Path) -> dict[str, RunRecord]:
    """Of the runs of a trial, by seed."""
    return {seed: RunRecord.read(runs / run["folder"]) for seed, run in trial.user_attrs["seeds"].items()}


def test_a_pruner_watches_the_first_seed_and_the_others_train_together_to_the_same_end(
    base: list[str], runs: Path
) -> None:
    typed = [*base, "optimizer.lr=choice(0.01, 0.3)", "sweep.seeds=4", "trainer.max_epochs=1", "trainer.batch_size=32"]

    def ended(form: str) -> optuna.Study:
        return work(make(*typed, f"device.pack_seeds={form}", f"sweep.study={form}", sampler=GRID))

    alone, packed = ended("off").trials, ended("auto").trials
    assert [trial.state for trial in packed] == [TrialState.COMPLETE, TrialState.PRUNED]
    for one, other in zip(alone, packed, strict=True):
        assert one.state == other.state and one.user_attrs.get("reason") == other.user_attrs.get("reason")
        num_seeds = len(seed_scores(one))
        assert seed_scores(other)[:num_seeds] == pytest.approx(seed_scores(one), rel=1e-4)
        assert set(other.intermediate_values) == {1}, "epochs of the first seed only: seeds are no epochs"
    assert "behind the same seeds" in packed[1].user_attrs["reason"] and len(seed_scores(alone[1])) == 3
    forms = {seed: record.packed for seed, record in records(packed[0], runs).items()}
    watched = Packing(reason="sweep.pruner=median watches the first seed")
    assert forms == {"1": watched, **dict.fromkeys("234", Packing(seeds=(2, 3, 4)))}
    assert {record.packed for record in records(alone[0], runs).values()} == {Packing()}


TOGETHER = [LR, "sweep.trials=1", "sweep.seeds=2", "sweep.pruner=none"]


def test_the_seeds_of_a_dead_worker_go_on_alone_and_two_sweeps_have_the_same_bits(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,), (again,) = (work(make(*base, *TOGETHER, f"sweep.study={name}")).trials for name in ("whole", "again"))
    ours, theirs = records(whole, runs), records(again, runs)
    assert [one.weights for one in ours.values()] == [other.weights for other in theirs.values()]
    assert whole.values == again.values and {one.packed for one in ours.values()} == {Packing(seeds=(1, 2))}

    made = make(*base, *TOGETHER, "sweep.study=killed")
    batch, fit, calls, resumed = Journal.batch, Trainer.fit, count(1), list[Any]()

    def dies(journal: Journal, epoch: int, share: float) -> None:
        batch(journal, epoch, share)
        if epoch == 2 and next(calls) == 3:
            raise worker.Stopped

    with monkeypatch.context() as patch, pytest.raises(worker.Stopped):
        patch.setattr(Journal, "batch", dies)
        worker.work(Path(made.spec.folder))
    (left,) = made.study.trials
    assert [(one.status, one.reason) for one in records(left, runs).values()] == [("failed", "Stopped")] * 2

    def fits(trainer: Trainer, *arguments: Any) -> Any:
        resumed.append((trainer.folder.parent.name, arguments[-1].epoch))
        return fit(trainer, *arguments)

    monkeypatch.setattr(Trainer, "fit", fits)
    (trial,) = work(made).trials
    assert resumed == [(run["folder"], 1) for run in left.user_attrs["seeds"].values()]
    assert {one.packed for one in records(trial, runs).values()} == {Packing(seeds=(1, 2), epochs=1)}
    assert seed_scores(trial) == pytest.approx(seed_scores(whole), rel=1e-4) and trial.state == TrialState.COMPLETE


def test_a_seed_that_cannot_go_on_ends_alone_and_then_its_trial(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, calls = Trainer.evaluate, count()

    def diverges(trainer: Trainer, *of: Any) -> Any:
        if next(calls) == 2:  # twice of the first seed
            raise TrainingError("the loss is nan")
        return evaluate(trainer, *of)

    monkeypatch.setattr(Trainer, "evaluate", diverges)
    (trial,) = work(make(*base, *TOGETHER, "sweep.seeds=3", "trainer.max_epochs=1")).trials
    assert trial.state == TrialState.PRUNED and trial.user_attrs["reason"] == "the loss is nan"
    assert [one.status for one in records(trial, runs).values()] == ["finished", "failed", "finished"]


def test_joint_steps_are_not_offered_where_a_sweep_counts_seconds() -> None:
    cfg = compose(["device=cpu", "hidden_dim=16"])

    def reason(objective: str, num_seeds: int) -> str | None:
        return why_apart_in_trials(SimpleNamespace(objectives=[objective]), cfg, num_seeds)  # type: ignore[arg-type]

    assert reason("valid/mae", 2) is None and str(reason("valid/mae", 1)).startswith("1 of them")
    assert str(reason("seconds", 2)).startswith("sweep.objectives has seconds")
