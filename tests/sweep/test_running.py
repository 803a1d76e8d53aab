"""Trials in this process: what they read, what their value is, when they end early, and how they go on."""

from __future__ import annotations

import errno
import itertools
import json
import math
import re
import threading
import time
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

import mmsa
from mmsa import cli
from mmsa.data.batches import Data, Fold
from mmsa.errors import ConfigError, DataError
from mmsa.occupancy import run_folders
from mmsa.record import RunRecord
from mmsa.settling import settle
from mmsa.sweep import claims, running, worker
from mmsa.sweep.lasting import StorageAway
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.sampling import make_sampler
from mmsa.sweep.setup import open_sweep
from mmsa.sweep.storage import open_study
from mmsa.sweep.summary import seed_scores
from mmsa.sweep.trials import TrialDesk
from mmsa.sweep.weights import drop_weights
from mmsa.training.trainer import Trainer, TrainingState
from tests.sweep.sweeps import GRID, LR, RANDOM, contents, folder_of, make, result_of, work


def test_no_trial_reads_the_test_fold(base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = Data.fold

    def planted(self: Data, name: str) -> Fold:
        if name == "test":
            raise AssertionError("the test fold was read")
        return fold(self, name)

    monkeypatch.setattr(Data, "fold", planted)
    study = work(make(*base, LR, "sweep.trials=2"))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    result = result_of(study.trials[0], runs)
    assert study.trials[0].value == result["metrics"]["valid/mae"] and result["trial"] == 0
    assert not result["baselines"] and not any(name.startswith("test") for name in result["metrics"])
    predictions = runs / folder_of(study.trials[0]) / "predictions.csv"
    assert ",valid," in predictions.read_text() and ",test," not in predictions.read_text()
    grid = make(*base, "seed=1,2", option="grid", sampler=GRID)
    assert worker.work(Path(grid.spec.folder)) == worker.REPLACE, "the plant is there: the runs of a grid read it"
    assert "test fold was read" in open_study(Path(grid.spec.folder)).trials[0].user_attrs["reason"]


def test_the_value_is_the_mean_over_seeds_or_a_bound_of_it(base: list[str], runs: Path) -> None:
    study = work(make(*base, LR, "sweep.trials=1", "sweep.seeds=3", "sweep.study=mean"))
    (trial,) = study.trials
    scores = seed_scores(trial)
    assert len(set(scores)) == 3 and trial.value == pytest.approx(fmean(scores), abs=1e-12)
    assert [result_of(trial, runs, seed)["seed"] for seed in (1, 2, 3)] == [1, 2, 3]
    bound = work(make(*base, LR, "sweep.trials=1", "sweep.seeds=3", "sweep.confidence=0.9", "sweep.study=bound"))
    deviation = math.sqrt(sum((score - fmean(scores)) ** 2 for score in scores) / 2)
    assert seed_scores(bound.trials[0]) == scores
    assert bound.trials[0].value == pytest.approx(fmean(scores) + 1.885618 * deviation / math.sqrt(3), abs=1e-6)


def test_several_objectives(base: list[str], runs: Path) -> None:
    wanted = ["sweep.objectives=[valid/corr,num_parameters]", "sweep.pruner=none", "hidden_dim=2,4"]
    study = work(make(*base, *wanted, "sweep.trials=2", sampler=GRID))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in study.trials:
        result = result_of(trial, runs)
        assert trial.values == [result["metrics"]["valid/corr"], result["num_parameters"]]


def test_a_trial_that_diverges_counts_and_teaches_the_sampler(base: list[str]) -> None:
    study = work(make(*base, "optimizer.lr=choice(1e30, 0.001)", "sweep.trials=3", "sweep.max_failures=1"))
    ended = [trial for trial in study.trials if trial.state == TrialState.PRUNED]
    assert ended and all("loss is nan" in trial.user_attrs["reason"] for trial in ended)
    assert all(trial.params["optimizer.lr"] == 1e30 for trial in ended)
    assert [trial.state for trial in study.trials if trial not in ended] == [TrialState.COMPLETE] * (3 - len(ended))


def test_a_full_disk_is_no_fault_of_the_trial_which_goes_on(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=1")

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "last.pt")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Trainer, "fit", full)
        worker.work(Path(made.spec.folder))
    (left,) = open_study(Path(made.spec.folder)).trials
    record = RunRecord.read(runs / folder_of(left))
    assert left.state == TrialState.RUNNING and str(record.reason).startswith("last.pt cannot be written: No space")
    (done,) = work(made).trials
    assert done.state == TrialState.COMPLETE and done.user_attrs["attempts"] == 1
    settle(made.base, print)
    assert [folder.name for folder in run_folders(runs.parent)] == [folder_of(done)]


def test_a_score_that_is_undefined_in_every_epoch_is_a_failure_everywhere_and_its_weights_go(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=2", "sweep.max_failures=1")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_better", lambda *arguments: False)
        failed = work(made).trials[0]
    record = RunRecord.read(runs / folder_of(failed))
    assert failed.state == TrialState.FAIL and record.status == "failed"
    assert failed.user_attrs["reason"] == record.reason and "is undefined on the validation fold" in record.reason
    done = work(make(*base, LR, "sweep.trials=2")).trials[1]
    (runs / folder_of(failed) / ".lock").touch()
    record.model_copy(update={"status": "running", "reason": None}).write(runs / folder_of(failed))  # its process died
    for _ in range(2):
        drop_weights(made.study, Path(made.spec.folder))
        assert not list((runs / folder_of(failed) / "checkpoints").iterdir())
        assert RunRecord.read(runs / folder_of(failed)).reason == record.reason, "it is not taken for one that died"
    assert (runs / folder_of(done) / "checkpoints" / "best.pt").is_file()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_search_learns_from_lack_of_memory_and_a_grid_tries_again(
    error: Exception, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "fit", fit)
    for option, state in (("search", TrialState.PRUNED), ("grid", TrialState.FAIL)):
        made = make(*base, "hidden_dim=4,6", option=option, sampler=GRID if option == "grid" else RANDOM)
        assert worker.work(Path(made.spec.folder)) == worker.REPLACE
        (trial,) = [trial for trial in open_study(Path(made.spec.folder)).trials if trial.state.is_finished()]
        assert trial.state == state and "memory" in trial.user_attrs["reason"]


def test_what_is_pruned_is_drawn_less_and_what_failed_is_not() -> None:
    drawn = {}
    for state in (TrialState.PRUNED, TrialState.FAIL):
        study = optuna.create_study(sampler=make_sampler({"_target_": "optuna.samplers.TPESampler", "seed": None}, 1))
        for _ in range(30):
            trial = study.ask()
            good = trial.suggest_categorical("x", [0.001, 1e38]) == 0.001
            study.tell(trial, 1.0 if good else None, state=TrialState.COMPLETE if good else state)
        drawn[state] = sum(trial.params["x"] == 1e38 for trial in study.trials[10:])  # the first ten are random
    assert 2 * drawn[TrialState.PRUNED] <= drawn[TrialState.FAIL]


def test_an_unexpected_error_ends_the_process_after_it_is_told(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=2")
    monkeypatch.setattr(Trainer, "fit", lambda *arguments, **more: 1 / 0)
    assert worker.work(Path(made.spec.folder)) == worker.REPLACE
    (trial,) = open_study(Path(made.spec.folder)).trials
    assert trial.state == TrialState.FAIL and "ZeroDivisionError" in trial.user_attrs["reason"]


ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SystemExit("no data"), "FAIL", "sys.exit('no data') was called in its run"),
        (SystemExit(), "FAIL", "sys.exit() was called in its run"),
        (MemoryError(), "PRUNED", "The memory of this machine ran out."),
        (
            RuntimeError(ALLOCATOR),
            "PRUNED",
            "The memory of this machine ran out: 4,000,000,000,000 bytes were asked for.",
        ),
    ],
)
def test_what_ends_a_run_is_the_trials_reason_in_plain_words(error: BaseException, state: str, reason: str) -> None:
    ended: list[Any] = []
    desk = SimpleNamespace(tell=lambda *arguments: ended.append(arguments))
    runner = SimpleNamespace(run=lambda *arguments: raised(error), spec=SimpleNamespace(options={"final": False}))
    trial: Any = SimpleNamespace(number=0)
    assert not worker.run_one(desk, runner, trial)  # type: ignore[arg-type]
    assert [(told[1].name, told[3]) for told in ended] == [(state, reason)]


def test_a_signal_that_a_library_turns_into_an_error_is_no_fault_of_the_trial() -> None:
    def run(*arguments: Any) -> None:
        try:
            raise worker.Stopped
        finally:
            raise AttributeError("at putting a list in order")

    with pytest.raises(worker.Stopped):
        worker.run_one(SimpleNamespace(), SimpleNamespace(run=run), SimpleNamespace(number=0))  # type: ignore[arg-type]


def raised(error: BaseException) -> Any:
    raise error


def test_a_run_that_another_worker_took_over_is_left_without_a_trace(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=3", "trainer.patience=9")
    desk, runner = open_sweep(made.spec, "")
    desk.open()
    ended: list[Any] = []
    monkeypatch.setattr("mmsa.tracking.tracker.Tracker.fail", lambda *arguments: ended.append("fail"))
    monkeypatch.setattr("mmsa.tracking.tracker.Tracker.finish", lambda *arguments, **more: ended.append("finish"))
    train, restore = Trainer._train_epoch, Trainer.restore_best
    before: list[Any] = []

    def taken_over() -> None:
        """As a worker of another host does, while this one sleeps; then this one wakes."""
        trial = made.study.trials[-1]
        owner = {"worker": "w", "place": "elsewhere:1", "slot": "", "since": 0.0, "claim": 2}
        made.study._storage.set_trial_user_attr(trial._trial_id, "owner", owner)
        monkeypatch.setattr(claims, "now", lambda: math.inf)
        before[:] = contents(runs), made.study.trials

    def trains(trainer: Trainer, *arguments: Any) -> Any:
        found = train(trainer, *arguments)
        if arguments[-1] == 2 and moment != "end":
            taken_over()
            return found if moment == "epoch" else raised(ValueError("whatever it is"))
        return found

    def restores(trainer: Trainer, model: Any) -> str:
        if moment == "end":
            taken_over()
        return restore(trainer, model)

    monkeypatch.setattr(Trainer, "_train_epoch", trains)
    monkeypatch.setattr(Trainer, "restore_best", restores)
    for moment in ("epoch", "end", "error"):
        monkeypatch.setattr(claims, "now", lambda: 0.0)
        trial = desk.next()
        assert trial is not None
        assert worker.run_one(desk, runner, trial) is (moment != "error")
        assert (contents(runs), made.study.trials) == tuple(before) and not ended, moment
    desk.close()


def test_a_finished_trial_never_becomes_a_failed_one_while_the_storage_is_away(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=2", "sweep.storage_minutes=0")
    tell, check, train, restore = optuna.Study.tell, TrialDesk.check, Trainer._train_epoch, Trainer.restore_best
    ends, trained, away = itertools.count(1), [], []

    def tells(*arguments: Any, **more: Any) -> Any:
        return tell(*arguments, **more) if next(ends) > 1 else raised(StorageAway("it did not answer"))

    def checks(desk: TrialDesk, trial: optuna.Trial) -> None:
        if away == [1, 2]:  # where the second run ends
            away.append(0)
            raise StorageAway("it did not answer")
        check(desk, trial)

    def restores(trainer: Trainer, model: Any) -> str:
        away.append(len(away) + 1)
        return restore(trainer, model)

    def trains(*arguments: Any) -> Any:
        trained.append(arguments[-1])
        return train(*arguments)

    monkeypatch.setattr(optuna.Study, "tell", tells)
    monkeypatch.setattr(TrialDesk, "check", checks)
    monkeypatch.setattr(Trainer, "restore_best", restores)
    monkeypatch.setattr(Trainer, "_train_epoch", trains)
    for running_trial in (0, 1):
        assert worker.work(Path(made.spec.folder)) == worker.AWAY
        assert open_study(Path(made.spec.folder)).trials[running_trial].state == TrialState.RUNNING
    study = work(made)
    assert [(trial.state, trial.value) for trial in study.trials] == [
        (TrialState.COMPLETE, seed_scores(trial)[0]) for trial in study.trials
    ]
    assert trained == [1, 2, 1, 2], "nothing is trained again"


def test_a_trial_trains_on_while_the_storage_takes_no_report(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(*base, LR, "sweep.trials=1", "trainer.max_epochs=4", "trainer.patience=9")
    report, asked = optuna.Trial.report, itertools.count(1)
    monkeypatch.setattr(running, "REPORT_PAUSE", 0.0)
    monkeypatch.setattr(
        optuna.Trial, "report", lambda *arguments: raised(StorageAway("")) if next(asked) < 3 else report(*arguments)
    )
    (trial,) = work(made).trials
    assert trial.state == TrialState.COMPLETE and set(trial.intermediate_values) == {1, 2, 3, 4}


def test_a_trial_behind_the_others_is_pruned(base: list[str], runs: Path) -> None:
    rates = "optimizer.lr=choice(0.01, 0.009, 0.008, 0.007, 0.006, 1e-9)"
    pruned = ["sweep.pruner=median", "sweep.min_epochs=1", "trainer.max_epochs=4", "trainer.patience=10"]
    study = work(make(*base, rates, *pruned, sampler=GRID))
    states = [trial.state for trial in study.trials]
    assert states[-1] == TrialState.PRUNED and "behind the other trials" in study.trials[-1].user_attrs["reason"]
    last = study.trials[-1]
    assert max(last.intermediate_values) < 4 and result_of(last, runs)["status"] == "pruned"
    assert not list((runs / folder_of(last) / "checkpoints").iterdir()), "nobody resumes it"
    log = (runs / folder_of(last) / "run.log").read_text()
    assert re.search(
        r"^pruned after \d+ s and \d epochs?; .*\n  epoch \d with valid/mae .*: behind the other", log, re.M
    )
    assert set(study.trials[0].intermediate_values) == {1, 2, 3, 4}


def test_what_is_pruned_by_is_the_objective_and_its_direction(base: list[str], runs: Path) -> None:
    rates = "optimizer.lr=choice(0.01, 0.009, 0.008, 0.007, 0.006, 1e-9)"
    wanted = ["sweep.objectives=[valid/corr]", "sweep.min_epochs=1", "trainer.max_epochs=3", "trainer.patience=10"]
    study = work(make(*base, rates, *wanted, sampler=GRID))
    assert [trial.state.name for trial in study.trials][-1] == "PRUNED"
    assert study.trials[-1].params["optimizer.lr"] == 1e-9
    first = study.trials[0]
    history = (runs / folder_of(first) / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("valid/corr")
    assert list(first.intermediate_values.values()) == [float(line.split(",")[column]) for line in history[1:]]


def test_a_trial_whose_worker_died_before_it_could_tell_that_it_was_pruned(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=1", "sweep.min_epochs=1")
    tell = TrialDesk.tell
    monkeypatch.setattr(running.TrialRunner, "_compare_seeds", lambda *arguments: None)
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: True)

    def dies(*arguments: Any, **keywords: Any) -> bool:
        raise worker.Stopped

    monkeypatch.setattr(TrialDesk, "tell", dies)
    with pytest.raises(worker.Stopped):
        worker.work(Path(made.spec.folder))
    monkeypatch.setattr(TrialDesk, "tell", tell)
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: False)
    study = work(make(*base, LR, "sweep.trials=1", "sweep.min_epochs=1"))
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED and set(trial.intermediate_values) == {1}


def test_a_trial_goes_on_with_what_its_dead_worker_had(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = work(make(*base, LR, "sweep.trials=1", "sweep.seeds=2", "trainer.max_epochs=3", "sweep.study=whole"))
    made = make(*base, LR, "sweep.trials=1", "sweep.seeds=2", "trainer.max_epochs=3", "sweep.study=killed")
    epochs: list[Path] = []
    fit = Trainer.fit

    def dies(trainer: Any, *arguments: Any, progress: TrainingState) -> Any:
        if len(epochs) == 1:  # in the second seed, after two of three epochs
            *front, _ = arguments

            def stop(state: TrainingState, metrics: Any) -> None:
                if state.epoch == 2:
                    raise worker.Stopped

            arguments = (*front, stop)
        epochs.append(trainer.folder)
        return fit(trainer, *arguments, progress=progress)

    monkeypatch.setattr(Trainer, "fit", dies)
    with pytest.raises(worker.Stopped):
        worker.work(Path(made.spec.folder))
    monkeypatch.setattr(Trainer, "fit", fit)
    trained: list[Any] = []
    monkeypatch.setattr(
        Trainer,
        "fit",
        lambda trainer, *rest, progress: (
            trained.append((trainer.folder, progress.epoch)),
            fit(trainer, *rest, progress=progress),
        )[1],
    )
    study = work(made)
    assert trained == [(epochs[1], 2)], "one run, resumed in its folder; the finished one is not run again"
    assert study.trials[0].values == whole.trials[0].values and seed_scores(study.trials[0]) == seed_scores(
        whole.trials[0]
    )


def test_a_trial_costs_little_beside_its_training(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The short version of what test_demonstrations measures by the clock, which on a busy machine tells nothing."""
    made = make(*base, LR, "sweep.trials=7", "sweep.pruner=none")
    fit = Trainer.fit
    marks: list[tuple[float, float]] = []

    def timed(*arguments: Any, **more: Any) -> Any:
        before = time.process_time()
        progress = fit(*arguments, **more)
        marks.append((before, time.process_time()))
        return progress

    monkeypatch.setattr(Trainer, "fit", timed)
    work(made)
    beside = [begin - end for (_, end), (begin, _) in itertools.pairwise(marks)]
    assert len(beside) == 6 and sum(beside) / len(beside) < 0.5


def test_the_data_are_opened_once_for_all_trials_of_a_held_out_part(
    base: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, "dataset.num_folds=3", "dataset.held_out=0,2", "seed=1,2", option="grid", sampler=GRID)
    opened: list[str] = []
    original = running.build.open_data
    monkeypatch.setattr(
        running.build, "open_data", lambda cfg, **more: (opened.append(cfg.dataset.held_out), original(cfg, **more))[1]
    )
    study = work(made)
    assert opened == [0, 2]
    folders = [trial.user_attrs["seeds"]["run"]["folder"] for trial in study.trials]
    read = [RunRecord.read(runs / folder).data for folder in folders]
    assert [data.held_out for data in read] == [trial.params["dataset.held_out"] for trial in study.trials]
    assert len({data.parts for data in read}) == 1 and read[0].parts and {data.num_folds for data in read} == {3}


def test_the_run_of_a_trial_meets_the_test_fold_by_no_other_way(base: list[str], runs: Path) -> None:
    study = work(make(*base, LR, "sweep.trials=1"))
    folder = str(runs / folder_of(study.trials[0]))
    for way in ([], ["--missing"]):
        with pytest.raises(DataError, match="never reads the test fold"):
            cli.command(["evaluate", folder, *way])
    with pytest.raises(DataError, match="never reads the test fold"):
        mmsa.load(folder).evaluate("test")
    cli.command(["evaluate", folder, "--fold", "valid"])
    record = json.loads(Path(folder, "result.json").read_text())
    Path(folder, "result.json").write_text(json.dumps({**record, "status": "failed"}))
    with pytest.raises(ConfigError, match="never reads the test fold"):
        mmsa.run([*base, f"trainer.resume={folder}"], quiet=True)


def test_a_worker_that_is_told_to_end_starts_no_trial(base: list[str]) -> None:
    made = make(*base, LR, "sweep.trials=2")
    stop = threading.Event()
    stop.set()
    assert worker.work(Path(made.spec.folder), stop=stop) == worker.DONE
    assert worker.work(Path(made.spec.folder), until=0.0) == worker.DONE
    assert not open_study(Path(made.spec.folder)).trials


def test_a_failed_point_of_a_grid_is_tried_again_by_the_same_command(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*base, "seed=1,2"]
    made = make(*command, option="grid", sampler=GRID)
    monkeypatch.setattr(Trainer, "fit", lambda *arguments, **more: 1 / 0)
    worker.work(Path(made.spec.folder))
    monkeypatch.undo()
    monkeypatch.setenv("MMSA_LOCKS", str(Path(made.spec.folder)))
    study = work(make(*command, option="grid", sampler=GRID))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    desk, runner = open_sweep(SweepSpec.load(Path(made.spec.folder)), "")
    assert desk.is_complete() and [desk.reached(trial) for trial in study.trials] == [0, 2, 2]
    assert desk.reached == runner.epochs_of
