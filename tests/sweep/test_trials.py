"""The desk of trials: an exact total, one owner per trial, and what becomes of the trials of the dead."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from mmsa.sweep.endings import end_overdue, end_stalled, note_death
from mmsa.sweep.points import FAILED_BEFORE
from mmsa.sweep.trials import TooManyFailures
from tests.sweep.desks import RANDOM, make_desk, objective, points, run

TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 3}


def test_a_study_ends_with_its_total_and_goes_on_to_a_larger_one(url: str) -> None:
    run(make_desk(url, 5))
    assert [state for _, state, _, _ in points(url)] == [TrialState.COMPLETE] * 5
    desk = make_desk(url, 5)
    assert desk.next() is None and desk.is_complete()
    run(make_desk(url, 8))
    assert len(points(url)) == 8


@pytest.mark.parametrize("sampler", [RANDOM, TPE], ids=["random", "tpe"])
def test_an_interrupted_study_has_the_bits_of_one_that_was_not(
    url: str, tmp_path: Path, sampler: dict[str, Any]
) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    run(make_desk(other, 9, sampler))
    run(make_desk(url, 9, sampler), most=4)
    left = make_desk(url, 9, sampler)
    assert left.next() is not None
    left.close()  # dies with a trial
    half = make_desk(url, 9, sampler)
    adopted = half.next()
    assert adopted is not None and adopted.number == 4 and adopted.user_attrs["attempts"] == 2
    half.tell(adopted, TrialState.COMPLETE, [objective(adopted)])
    half.close()
    run(make_desk(url, 9, sampler))
    assert points(url) == points(other)


def test_a_trial_that_died_while_it_was_suggested_gets_the_same_parameters(url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    whole = make_desk(other).next()
    desk = make_desk(url)
    began = desk.study.ask()
    began.suggest_float("lr", 1e-4, 1e-1, log=True)  # killed here: without an owner, with one parameter of three
    adopted = desk.next()
    assert whole is not None and adopted is not None
    assert adopted.number == began.number and adopted.params == whole.params


def test_a_living_worker_keeps_its_trial_and_a_dead_one_loses_it(url: str) -> None:
    first, second, third = make_desk(url), make_desk(url), make_desk(url)
    mine, theirs = first.next(), second.next()
    assert mine is not None and theirs is not None and mine.number != theirs.number
    first.close()
    adopted = third.next()
    assert adopted is not None and adopted.number == mine.number
    assert second.tell(theirs, TrialState.COMPLETE, [1.0]), "it lives, so nobody took it"


def test_nothing_is_told_twice(url: str) -> None:
    slow = make_desk(url)
    trial = slow.next()
    assert trial is not None
    slow.close()  # taken for dead
    quick = make_desk(url)
    adopted = quick.next()
    assert adopted is not None and adopted.number == trial.number
    assert not slow.tell(trial, TrialState.COMPLETE, [0.0])
    assert quick.tell(adopted, TrialState.COMPLETE, [1.0])
    assert not slow.tell(trial, TrialState.COMPLETE, [0.0])
    assert points(url)[0][3] == (1.0,)


def test_a_trial_whose_workers_die_again_and_again_fails_with_the_reason(url: str) -> None:
    for attempt in range(3):
        desk = make_desk(url, 1, retries=2)
        trial = desk.next()
        assert trial is not None and trial.number == 0 and trial.user_attrs["attempts"] == attempt + 1
        note_death(desk.study, 0, "its worker died (killed by signal 9)")
        desk.close()
    desk = make_desk(url, 1, retries=2)
    following = desk.next()
    assert following is not None and following.number == 1
    failed = desk.study.trials[0]
    assert failed.state == TrialState.FAIL and failed.user_attrs["reason"] == "its worker died (killed by signal 9)"


def test_a_death_does_not_count_that_came_after_a_later_checkpoint(url: str) -> None:
    counted = []
    for epochs in (0, 2, 5, 6, 6):
        desk = make_desk(url, 1, retries=1, reached=lambda trial, epochs=epochs: epochs)
        trial = desk.next()
        assert trial is not None and trial.number == 0
        counted.append(trial.user_attrs["attempts"])
        desk.close()
    assert counted == [1, 1, 1, 1, 2]
    desk = make_desk(url, 1, retries=1, reached=lambda trial: 6)
    following = desk.next()
    assert following is not None and following.number == 1 and desk.study.trials[0].state == TrialState.FAIL


def test_a_trial_that_is_handed_back_keeps_the_count_of_its_deaths(url: str) -> None:
    counted = []
    for epochs in (0, 0, 3, 3):
        desk = make_desk(url, 1, reached=lambda trial, epochs=epochs: epochs)
        trial = desk.next()
        assert trial is not None
        counted.append(trial.user_attrs["attempts"])
        if epochs == 3:
            desk.release(trial)
        desk.close()
    assert counted == [1, 2, 2, 2]


def test_a_released_trial_does_not_count_as_a_death(url: str) -> None:
    for _ in range(5):
        desk = make_desk(url, 1, retries=0)
        trial = desk.next()
        assert trial is not None and trial.number == 0 and trial.user_attrs["attempts"] == 1
        desk.release(trial)
        desk.close()


def test_a_trial_that_a_whole_job_brings_no_epoch_further_fails_with_the_longer_limit_to_type(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, reached = [0.0], [0]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    def job(before: float, epochs: int) -> str:
        """An hour, of which other trials have these minutes; the trial then comes to these epochs."""
        began, desk = clock[0], make_desk(url, 1, reached=lambda trial: reached[0])
        clock[0] += 60 * before
        trial = desk.next()
        assert trial is not None and trial.number == 0
        clock[0], reached[0] = began + 3600, epochs
        desk.release(trial)
        end_stalled(desk.study, 0, began)
        desk.close()
        clock[0] += 600
        return desk.study.trials[0].state.name

    assert job(0, epochs=0) == "RUNNING", "it may be one that waited for its data, say"
    assert job(7, epochs=0) == "RUNNING", "it had not all of the job"
    assert job(5, epochs=1) == "RUNNING"
    assert job(5, epochs=1) == "FAIL"
    (failed,) = make_desk(url, 1).study.trials
    assert failed.user_attrs["reason"] == (
        "needs an epoch within the time limit of a job, and came no further in 60 minutes: "
        "type hydra.launcher.timeout_min=120, or shorten the epochs"
    )


def test_too_many_failures_end_the_sweep(url: str) -> None:
    desk = make_desk(url, 10, max_failures=2)
    for _ in range(2):
        trial = desk.next()
        assert trial is not None
        desk.tell(trial, TrialState.FAIL, reason="no luck")
    with pytest.raises(TooManyFailures):
        desk.next()


def test_failures_of_before_the_command_count_no_more(url: str) -> None:
    desk = make_desk(url, 10, max_failures=1)
    trial = desk.next()
    assert trial is not None
    desk.tell(trial, TrialState.FAIL, reason="no luck")
    with pytest.raises(TooManyFailures):
        desk.next()
    desk.study.set_user_attr(FAILED_BEFORE, [trial.number])  # as the same command does, typed once more
    assert desk.next() is not None


def test_a_trial_whose_answer_was_lost_is_not_made_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(url, 3)
    desk.study._storage._minutes = 1.0  # type: ignore[attr-defined]
    inner = desk.study._storage._storage  # type: ignore[attr-defined]
    make, end = inner.create_new_trial, inner.set_trial_state_values
    lost = {"asked": 0, "ended": 0}

    def loses(what: str, action: Any) -> Any:
        def answered(*arguments: Any) -> Any:
            answer = action(*arguments)
            lost[what] += 1
            if lost[what] % 2:
                raise StorageInternalError from OperationalError("", {}, Exception("server closed the connection"))
            return answer

        return answered

    monkeypatch.setattr(inner, "create_new_trial", loses("asked", make))
    monkeypatch.setattr(inner, "set_trial_state_values", loses("ended", end))
    run(desk)
    assert [state for _, state, _, _ in points(url)] == [TrialState.COMPLETE] * 3 and lost["asked"] == lost[
        "ended"
    ] == 3


def test_a_trial_that_a_database_made_twice_is_withdrawn(url: str) -> None:
    desk = make_desk(url, 2)
    first = desk.next()
    assert first is not None
    mark = desk.study.trials[0].system_attrs
    desk.study.add_trial(
        create_trial(state=TrialState.RUNNING, system_attrs=mark)
    )  # by a second try within the library
    assert desk.tell(first, TrialState.COMPLETE, [1.0])
    run(desk)
    states = [
        (state.name, t.user_attrs.get("surplus"))
        for (_, state, _, _), t in zip(points(url), desk.study.trials, strict=True)
    ]
    assert states == [("COMPLETE", None), ("FAIL", True), ("COMPLETE", None)]


@pytest.mark.parametrize(("teaches", "state"), [(True, "PRUNED"), (False, "FAIL")])
def test_a_trial_that_takes_too_long_is_ended_for_good(url: str, teaches: bool, state: str) -> None:
    desk = make_desk(url, 2)
    trial = desk.next()
    assert trial is not None
    end_overdue(desk.study, trial.number, "took longer", teaches)
    assert not desk.tell(trial, TrialState.COMPLETE, [1.0])
    (ended,) = desk.study.trials
    assert (ended.state.name, ended.user_attrs["reason"]) == (state, "took longer")
    following = desk.next()
    assert following is not None and following.number == 1


WORKER = """
import sys, time
sys.path.insert(0, {root!r})
from tests.sweep.desks import make_desk, objective
from optuna.trial import TrialState
desk = make_desk(sys.argv[1], int(sys.argv[2]), max_failures=1000, retries=1000)
while not desk.is_complete():
    trial = desk.next()
    if trial is None:
        time.sleep(0.02)
        continue
    time.sleep(0.01)
    desk.tell(trial, TrialState.COMPLETE, [objective(trial)])
"""


def start_workers(url: str, total: int, number: int) -> list[subprocess.Popen[bytes]]:
    code = WORKER.format(root=str(Path(__file__).parents[2]))
    return [subprocess.Popen([sys.executable, "-c", code, url, str(total)]) for _ in range(number)]


@pytest.mark.slow  # test_sweep.py kills those of a whole sweep
def test_killed_workers_cost_no_trial_and_leave_no_lock(url: str) -> None:
    make_desk(url, 30).close()
    workers = start_workers(url, 30, 3)
    deadline = time.monotonic() + 60
    for victim, begun in zip(workers, (5, 12), strict=False):
        while len(points(url)) < begun and time.monotonic() < deadline:
            time.sleep(0.02)
        victim.kill()
    workers += start_workers(url, 30, 1)
    assert [worker.wait(60) for worker in workers] == [-9, -9, 0, 0]
    assert Counter(state for _, state, _, _ in points(url)) == {TrialState.COMPLETE: 30}
