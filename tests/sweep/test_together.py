"""Seeds of sweeps that train together: each trial has what it has with one seed after the other, also after a death."""

from __future__ import annotations

import io
import math
import signal
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mmsa.compose import compose
from mmsa.errors import Disowned, TrainingError
from mmsa.journal import Journal
from mmsa.record import Packing, RunRecord
from mmsa.sweep import claims, worker
from mmsa.sweep.drive import SweepDisplay, note_on_seeds
from mmsa.sweep.running import APART, why_apart_in_trials
from mmsa.sweep.setup import open_sweep
from mmsa.sweep.slots import Slot
from mmsa.sweep.summary import seed_scores
from mmsa.sweep.supervisor import Seat
from mmsa.sweep.trials import TrialDesk
from mmsa.training.trainer import Trainer, TrainingState
from tests.sweep.sweeps import GRID, LR, contents, make, work


@pytest.fixture(autouse=True)
def two_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """More seeds would cost time and show nothing."""
    monkeypatch.setattr("mmsa.seeds.FEWEST", 2)


def records(trial: FrozenTrial, runs: Path) -> dict[str, RunRecord]:
    """Of the runs of a trial, by seed."""
    return {seed: RunRecord.read(runs / run["folder"]) for seed, run in trial.user_attrs["seeds"].items()}


def test_a_pruner_watches_the_first_seed_and_then_compares_the_others_which_train_together(
    base: list[str], runs: Path
) -> None:
    short = ["sweep.seeds=4", "trainer.max_epochs=1", "trainer.batch_size=64"]
    best, worse = work(make(*base, *short, "optimizer.lr=choice(0.01, 0.3)", sampler=GRID)).trials
    assert (best.state, worse.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert worse.user_attrs["reason"] == "after 3 seeds: behind the same seeds of trial 0"
    assert [len(seed_scores(trial)) for trial in (best, worse)] == [4, 4]
    assert set(worse.intermediate_values) == {1}, "epochs of the first seed only: seeds are no epochs"
    watched = Packing(reason="sweep.pruner=median watches the first seed")
    forms = {seed: record.packed for seed, record in records(best, runs).items()}
    assert forms == {"1": watched, **dict.fromkeys("234", Packing(seeds=(2, 3, 4)))}


TOGETHER = [LR, "sweep.trials=1", "sweep.seeds=2", "sweep.pruner=none", "trainer.batch_size=150"]


def test_two_sweeps_have_the_same_bits_and_the_seeds_of_a_dead_worker_go_on_alone(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,), (again,) = (work(make(*base, *TOGETHER, f"sweep.study={name}")).trials for name in ("whole", "again"))
    ours, theirs = records(whole, runs), records(again, runs)
    assert [one.weights for one in ours.values()] == [other.weights for other in theirs.values()]
    assert whole.values == again.values and {one.packed for one in ours.values()} == {Packing(seeds=(1, 2))}
    (apart,) = work(make(*base, *TOGETHER, "device.pack_seeds=off", "sweep.study=apart")).trials
    assert seed_scores(apart) == pytest.approx(seed_scores(whole), rel=1e-4)
    assert {one.packed for one in records(apart, runs).values()} == {Packing()}

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

    def fits(trainer: Trainer, *arguments: Any, progress: TrainingState) -> Any:
        resumed.append((trainer.folder.parent.name, progress.epoch))
        return fit(trainer, *arguments, progress=progress)

    monkeypatch.setattr(Trainer, "fit", fits)
    (trial,) = work(made).trials
    assert resumed == [(run["folder"], 1) for run in left.user_attrs["seeds"].values()]
    assert {one.packed for one in records(trial, runs).values()} == {Packing(seeds=(1, 2), epochs=1)}
    assert seed_scores(trial) == pytest.approx(seed_scores(whole), rel=1e-4) and trial.state == TrialState.COMPLETE


def test_a_seed_that_cannot_go_on_ends_alone_and_then_its_trial(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, met = Trainer.evaluate, list[Trainer]()

    def diverges(trainer: Trainer, *of: Any) -> Any:
        met.extend([trainer] if trainer not in met else [])
        if met.index(trainer) == 1:
            raise TrainingError("the loss is nan")
        return evaluate(trainer, *of)

    monkeypatch.setattr(Trainer, "evaluate", diverges)
    (trial,) = work(make(*base, *TOGETHER, "sweep.seeds=3", "trainer.max_epochs=1")).trials
    assert trial.state == TrialState.PRUNED and trial.user_attrs["reason"] == "the loss is nan"
    assert [one.status for one in records(trial, runs).values()] == ["finished", "failed", "finished"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "fewer than 2 are as fast so"),
        ({"objectives": ["seconds"]}, "sweep.objectives has seconds"),
        ({"final": True, "trial_minutes": 5}, "sweep.trial_minutes is of one trial at a time"),
        ({"final": True, "retries": 0}, "with sweep.retries=0 the death of one would fail all"),
    ],
)
def test_why_seeds_of_a_sweep_train_one_after_the_other(options: dict[str, Any], said: str) -> None:
    cfg = compose(["device=cpu", "hidden_dim=16"])
    held = {"objectives": ["valid/mae"], "final": False, "trial_minutes": None, "retries": 2} | options
    spec: Any = SimpleNamespace(objectives=held["objectives"], options=held)
    assert str(why_apart_in_trials(spec, cfg, 2 if options else 1)).startswith(said)
    assert why_apart_in_trials(SimpleNamespace(objectives=[], options={"final": False}), cfg, 2) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "slots", "said"),
    [
        (["sweep.seeds=4", "sweep.pruner=none"], ["cpu 1"], []),
        (
            ["sweep.seeds=4", "sweep.pruner=none"],
            ["cuda:0", "cpu 1"],
            ["fewer than 8 on a GPU"],
        ),
        (["sweep.seeds=2"], ["cpu 1"], ["fewer than 2 are as fast so"]),
        (["sweep.seeds=1", "hidden_dim=65"], ["cpu 1"], []),
        (["sweep.seeds=4", "hidden_dim=65"], ["cpu 1"], ["hidden_dim=65 is as fast so (up to 64 they train together)"]),
        (["sweep.seeds=4", "hidden_dim=65", "device.pack_seeds=off"], ["cpu 1"], []),
    ],
)
def test_a_sweep_says_why_its_seeds_train_one_after_the_other(
    typed: list[str], slots: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)  # which workers on slots of a CPU do not see
    cfg = compose(["sweep=search", "hidden_dim=16", *typed])
    spec: Any = SimpleNamespace(objectives=["valid/mae"], options=cfg.sweep)
    summary: Any = SimpleNamespace(seeds=cfg.sweep.seeds, pruner=cfg.sweep.pruner, space={})
    lines = note_on_seeds(spec, cfg, summary, slots)
    assert lines == [f"seeds train one after the other: {reason}" for reason in said]


def test_a_sweep_says_once_why_its_first_joint_step_was_given_up(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [*TOGETHER, "sweep.trials=2", "trainer.max_epochs=1"]
    made, printed, numbers, tell = make(*base, *short), io.StringIO(), count(1), TrialDesk.tell
    display = SweepDisplay(Path(made.spec.folder), made.study, console=Console(file=printed, soft_wrap=True))

    def tells(desk: TrialDesk, *arguments: Any) -> bool:
        told = tell(desk, *arguments)
        display.refresh()
        return told

    monkeypatch.setattr("mmsa.lockstep.hindrance", lambda learner: f"reason {next(numbers)}")
    monkeypatch.setattr(TrialDesk, "tell", tells)
    work(made)
    assert next(numbers) == 3, "each trial has tried"
    first, *trials = printed.getvalue().splitlines()
    assert first == "the seeds train one after the other: reason 1"
    assert [line.split()[:2] for line in trials] == [["trial", "0"], ["trial", "1"]]


def folders(study: optuna.Study) -> list[str]:
    return [trial.user_attrs["seeds"]["run"]["folder"] for trial in study.trials]


def test_points_of_a_grid_that_differ_in_the_seed_train_together_to_the_scores_that_they_have_alone(
    base: list[str], runs: Path
) -> None:
    typed = [*base, "seed=1,2", "trainer.max_epochs=1", "trainer.batch_size=150"]

    def ended(form: str, rates: str) -> dict[tuple[float, int], RunRecord]:
        more = [f"device.pack_seeds={form}", f"optimizer.lr={rates}", f"sweep.study={form}"]
        made, began = make(*typed, *more, option="grid", sampler=GRID), time.monotonic()
        study = work(made)
        assert sum(trial.user_attrs["seconds"] for trial in study.trials) < time.monotonic() - began, "shares of it"
        found = [RunRecord.read(runs / folder) for folder in folders(study)]
        assert [trial.value for trial in study.trials] == [record.metrics["valid/mae"] for record in found]
        rated = [float(trial.params.get("optimizer.lr", rates)) for trial in study.trials]
        return {(rate, record.seed): record for rate, record in zip(rated, found, strict=True)}

    alone, packed = ended("off", "0.01"), ended("auto", "0.001,0.01")
    assert list(packed) == [(0.001, 1), (0.001, 2), (0.01, 1), (0.01, 2)]
    assert {record.packed for record in packed.values()} == {Packing(seeds=(1, 2))}
    for point, record in alone.items():
        assert record.packed == Packing()
        assert packed[point].metrics == pytest.approx(record.metrics, rel=1e-3, abs=1e-4)


def test_a_worker_knows_the_slots_of_its_sweep(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, "seed=1,2", option="grid", sampler=GRID)
    given: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(worker, "work", lambda *arguments: given.append(arguments[-1]))
    command = Seat(Slot("cpu 1", "cpu-1", {}), 3, tmp_path).command(Path(made.spec.folder), None)
    worker.main(command[command.index("mmsa.sweep.worker") + 1 :])
    assert given == [3] and open_sweep(made.spec, "", 3)[0].num_slots == 3
    of_launcher = replace(made.spec, options={**made.spec.options, "workers": 8})
    assert open_sweep(of_launcher, "", 1)[0].num_slots == 8


def test_trials_that_train_together_end_each_by_itself(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, "seed=1,2,3,4", "trainer.batch_size=150", option="grid", sampler=GRID)
    train = Trainer._train_epoch
    before: list[Any] = []

    def trains(trainer: Trainer, *arguments: Any) -> Any:
        found, number = train(trainer, *arguments), 0
        (number,) = (n for n, folder in enumerate(folders(made.study)) if folder == trainer.folder.parent.name)
        if (number, arguments[-1]) == (0, 1):
            raise ZeroDivisionError
        if (number, arguments[-1]) == (1, 2):  # another host takes it over, while this process sleeps; then it wakes
            trial = made.study.trials[number]
            owner = {"worker": "w", "place": "elsewhere:1", "slot": "", "since": 0.0, "claim": 2}
            made.study._storage.set_trial_user_attr(trial._trial_id, "owner", owner)
            monkeypatch.setattr(claims, "now", lambda: math.inf)
            before[:] = contents(runs / folders(made.study)[1]), made.study.trials[1]
        return found

    monkeypatch.setattr(Trainer, "_train_epoch", trains)
    assert worker.work(Path(made.spec.folder)) == worker.REPLACE
    study = made.study
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "COMPLETE", "COMPLETE"]
    assert (contents(runs / folders(study)[1]), study.trials[1]) == tuple(before), "it is left without a trace"
    assert "ZeroDivisionError" in study.trials[0].user_attrs["reason"]
    assert {trial.user_attrs["attempts"] for trial in study.trials} == {1}
    assert {RunRecord.read(runs / folder).packed.seeds for folder in folders(study)} == {(1, 2, 3, 4)}


def test_trials_train_together_without_one_that_is_lost_before_the_first_step(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, "seed=1,2,3", "trainer.max_epochs=1", "trainer.batch_size=150", option="grid", sampler=GRID)
    check = TrialDesk.check

    def checks(desk: TrialDesk, trial: optuna.Trial) -> None:
        if trial.number == 0:
            raise Disowned
        check(desk, trial)

    monkeypatch.setattr(TrialDesk, "check", checks)
    assert worker.work(Path(made.spec.folder)) == worker.DONE
    _, *others = made.study.trials
    forms = [RunRecord.read(runs / trial.user_attrs["seeds"]["run"]["folder"]).packed for trial in others]
    assert forms == [Packing(seeds=(2, 3))] * 2
    assert APART not in made.study.user_attrs
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2


class Impatient(threading.Event):
    """Waits for nobody."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_each_trial_of_a_stopped_worker_is_resumed_alone_to_the_same_bits(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, fit, resumed = Journal.batch, Trainer.fit, list[Any]()

    def fits(trainer: Trainer, *arguments: Any, progress: TrainingState) -> Any:
        resumed.append((trainer.folder.parent.name, progress.epoch))
        return fit(trainer, *arguments, progress=progress)

    def weights(by_parent: bool, attempts: int) -> list[str | None]:
        typed = [*base, "seed=1,2", "trainer.batch_size=150", f"sweep.study=number{attempts}"]
        made, stop, calls = make(*typed, option="grid", sampler=GRID), Impatient(), count(1)

        def dies(journal: Journal, epoch: int, share: float) -> None:
            batch(journal, epoch, share)
            if epoch == 2 and next(calls) == 3:
                if by_parent:
                    stop.set()
                raise worker.Stopped

        with monkeypatch.context() as patch, pytest.raises(worker.Stopped):
            patch.setattr(Journal, "batch", dies)
            worker.work(Path(made.spec.folder), stop=stop)
        left = [(trial.state, trial.user_attrs["attempts"]) for trial in made.study.trials]
        assert left == [(TrialState.RUNNING, attempts)] * 2
        resumed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "fit", fits)
            study = work(made)
        assert resumed == [(folder, 1) for folder in folders(study)]
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
        ended = [RunRecord.read(runs / folder) for folder in folders(study)]
        assert {record.packed for record in ended} == {Packing(seeds=(1, 2), epochs=1)}
        return [record.weights for record in ended]

    assert weights(by_parent=True, attempts=0) == weights(by_parent=False, attempts=1), "only a death counts"
