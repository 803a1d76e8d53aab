"""The desk of trials: an exact total, one owner per trial, and what becomes of the trials of the dead."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from mmsa.errors import Disowned
from mmsa.sweep import claims
from mmsa.sweep import trials as trials_module
from mmsa.sweep.endings import end_overdue, end_stalled, note_death
from mmsa.sweep.lasting import StorageAway
from mmsa.sweep.points import FAILED_BEFORE
from mmsa.sweep.sampling import make_sampler
from mmsa.sweep.storage import open_storage, quiet_optuna
from mmsa.sweep.trials import TooManyFailures, TrialDesk

SPACE = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "width": IntDistribution(8, 64, step=8),
    "feedback": CategoricalDistribution(("none", "static", "mmlatch")),
}
RANDOM = {"_target_": "optuna.samplers.RandomSampler"}
GRID = [json.dumps({"feedback": name, "lr": lr, "width": 8}) for lr in (0.001, 0.01) for name in ("none", "static")]
TPE = {"_target_": "optuna.samplers.TPESampler", "n_startup_trials": 3}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def make_desk(url: str, total: int = 5, sampler: dict[str, Any] = RANDOM, **options: Any) -> TrialDesk:
    quiet_optuna()
    study = optuna.create_study(
        study_name="study", storage=open_storage(url), sampler=make_sampler(sampler, 1), load_if_exists=True
    )
    desk = TrialDesk(study, SPACE, total, **{"retries": 2, "max_failures": 3, **options})
    desk.open()
    return desk


def objective(trial: optuna.Trial) -> float:
    return float(trial.params["lr"] * trial.params["width"] + len(trial.params["feedback"]))


def run(desk: TrialDesk, most: int = 1000) -> None:
    for _ in range(most):
        trial = desk.next()
        if trial is None:
            return
        assert desk.tell(trial, TrialState.COMPLETE, [objective(trial)])


def points(url: str) -> list[tuple[Any, ...]]:
    study = optuna.load_study(study_name="study", storage=open_storage(url))
    return [
        (trial.number, trial.state, tuple(trial.params.items()), tuple(trial.values or ())) for trial in study.trials
    ]


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


def test_a_point_that_another_host_took_first_is_not_run_twice(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(url, points=GRID[:1])
    ask = desk.study.ask

    def late() -> Any:
        theirs = ask()  # in between
        theirs.set_user_attr("owner", {"worker": "w", "place": "elsewhere:1", "slot": "", "since": 0.0})
        return ask()

    monkeypatch.setattr(desk.study, "ask", late)
    assert desk.next() is None
    assert [trial.state.name for trial in desk.study.trials] == ["RUNNING", "FAIL"]
    assert desk.study.trials[1].user_attrs["surplus"]


def test_a_point_that_two_hosts_queue_at_once_is_run_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_desk(url, points=GRID[:2]), make_desk(url, points=GRID[:2])
    monkeypatch.setattr(there, "_asking", nullcontext())  # another host sees no lock of this one
    queue, met = here.study.enqueue_trial, list[Any]()

    def late(*arguments: Any, **named: Any) -> None:
        met.append(there.next())  # after this host has read what there is, and before it queues
        queue(*arguments, **named)

    with monkeypatch.context() as once:
        once.setattr(here.study, "enqueue_trial", late)
        assert here.next() is None, "the point is the other host's"
    mine = here.next()
    assert mine is not None and [dict(trial.params) for trial in (*met, mine)] == [json.loads(p) for p in GRID[:2]]
    for desk, trial in ((there, met[0]), (here, mine)):
        assert desk.tell(trial, TrialState.COMPLETE, [1.0])
    assert here.next() is None and here.is_complete()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The clock of all workers in this test; hosts' times of day differ by more and more."""
    seconds = [0.0]
    monkeypatch.setattr(claims, "now", lambda: seconds[0])
    skews = itertools.count(0.0, 400.0)
    monkeypatch.setattr(trials_module.time, "time", lambda: next(skews))
    monkeypatch.setattr(trials_module, "SETTLE_SECONDS", 0.0)
    yield seconds


def elsewhere(url: str, total: int = 1) -> TrialDesk:
    """A desk on another host, whose locks nobody sees here."""
    desk = make_desk(url, total)
    desk.place = "elsewhere:1"
    return desk


def state_of(url: str) -> Any:
    (trial,) = optuna.load_study(study_name="study", storage=open_storage(url)).trials
    return trial.state, trial.values, trial.user_attrs, trial.intermediate_values


def test_another_hosts_trial_is_left_alone_until_its_counter_stands_still(url: str, clock: list[float]) -> None:
    there, here = elsewhere(url), make_desk(url, 1)
    trial = there.next()
    assert trial is not None
    for _ in range(3):  # it lives: each look sees another count, however far the times of day are apart
        assert here.next() is None and not here.is_complete()
        clock[0] += claims.LEASE_SECONDS - 1
        there._claims[trial._trial_id]._confirm()
    assert here.next() is None
    clock[0] += claims.LEASE_SECONDS - 1
    assert here.next() is None, "a counter that has just been seen to move is watched anew"
    clock[0] += 2
    adopted = here.next()
    assert adopted is not None and adopted.number == trial.number
    assert adopted.user_attrs["owner"]["claim"] == 2 and adopted.user_attrs["attempts"] == 2


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
def test_a_worker_that_wakes_up_late_leaves_without_a_trace(url: str, clock: list[float], ended: bool) -> None:
    there, here = elsewhere(url), make_desk(url, 1)
    trial = there.next()
    assert trial is not None and here.next() is None
    there.check(trial)
    clock[0] += claims.LEASE_SECONDS + 1
    adopted = here.next()
    assert adopted is not None
    if ended:
        assert here.tell(adopted, TrialState.COMPLETE, [1.0], seconds=3.0)
    before = state_of(url)
    for _ in range(2):
        with pytest.raises(Disowned):
            there.check(trial)
    assert not there.tell(trial, TrialState.FAIL, reason="late", seconds=99.0)
    there.release(trial)
    assert state_of(url) == before
    if not ended:
        here.check(adopted)


def test_an_owner_whose_counter_just_moved_asks_no_storage(
    url: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(url)
    trial = desk.next()
    assert trial is not None
    monkeypatch.setattr(desk.study._storage, "get_trial", lambda *arguments: 1 / 0)
    clock[0] += claims.SURE_SECONDS - 1
    desk.check(trial)
    clock[0] += 2
    with pytest.raises(ZeroDivisionError):
        desk.check(trial)


def test_an_owner_that_could_not_ask_gives_the_trial_up(
    url: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(url)
    trial = desk.next()
    assert trial is not None
    clock[0] += claims.SURE_SECONDS + 1
    inner = desk.study._storage._storage  # type: ignore[attr-defined]
    with monkeypatch.context() as away:
        away.setattr(inner, "get_trial", lambda *arguments: (_ for _ in ()).throw(OSError("no host")))
        with pytest.raises(StorageAway):
            desk.check(trial)
        with pytest.raises(Disowned):
            desk.check(trial)


def test_a_counter_moves_while_the_trial_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    desk = make_desk(url)
    before = set(threading.enumerate())
    trial = desk.next()
    assert trial is not None
    beating = set(threading.enumerate()) - before
    deadline = time.monotonic() + 10
    while desk.study.trials[0].user_attrs.get("beat", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert desk.study.trials[0].user_attrs["beat"] >= 2
    desk.tell(trial, TrialState.COMPLETE, [1.0])
    for thread in beating:
        thread.join(10)
    assert len(beating) == 1 and not any(thread.is_alive() for thread in beating), "told, it moves no longer"


def test_a_trial_of_a_former_version_is_known_by_its_lease(url: str, clock: list[float]) -> None:
    here = make_desk(url, 1)
    former = here.study.ask()
    former.set_user_attr("owner", {"worker": "w", "place": "elsewhere:1", "slot": "", "since": 0.0})
    former.set_user_attr("attempts", 1)
    for lease in (1.0, 2.0):
        former.set_user_attr("lease", lease)
        assert here.next() is None
        clock[0] += claims.LEASE_SECONDS - 1
    assert here.next() is None
    clock[0] += 2
    adopted = here.next()
    assert adopted is not None and adopted.user_attrs["owner"]["claim"] == 1 and adopted.user_attrs["attempts"] == 2


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


def test_a_grid_runs_each_of_its_points_once_in_their_order(url: str) -> None:
    desk = make_desk(url, points=GRID)
    run(desk)
    assert [dict(params) for _, _, params, _ in points(url)] == list(map(json.loads, GRID)) and desk.is_complete()


def test_a_point_that_failed_is_tried_again_by_the_next_command_only(url: str) -> None:
    desk = make_desk(url, points=GRID, max_failures=9)
    states = [TrialState.FAIL, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    for state in states:
        trial = desk.next()
        assert trial is not None and not desk.is_complete()
        desk.tell(trial, state, [1.0] if state == TrialState.COMPLETE else None)
    assert desk.next() is None and desk.is_complete()
    desk.study.set_user_attr(FAILED_BEFORE, [0, 2])  # as the same command does
    assert not desk.is_complete()
    run(desk)
    assert [json.dumps(dict(t.params), sort_keys=True) for t in desk.study.trials[4:]] == [GRID[0], GRID[2]]
    assert desk.is_complete()


def test_a_point_whose_worker_died_before_it_had_it_is_run_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make_desk(url, points=GRID)
    with monkeypatch.context() as killed:
        killed.setattr(desk.study, "ask", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            desk.next()
    desk.close()
    run(make_desk(url, points=GRID))
    assert [dict(params) for _, _, params, _ in points(url)] == list(map(json.loads, GRID))


def test_a_large_grid_has_no_more_unended_trials_than_workers(url: str) -> None:
    many = [json.dumps({"lr": 0.01, "width": 8, "feedback": "none", "seed": seed}) for seed in range(10_000)]
    desks = [make_desk(url, points=many) for _ in range(3)]
    for _ in range(2):
        trials = [desk.next() for desk in desks]
        assert len({trial.number for trial in trials if trial is not None}) == 3
        assert len(desks[0].study.get_trials(states=(TrialState.WAITING, TrialState.RUNNING))) == 3
        for desk, trial in zip(desks, trials, strict=True):
            assert trial is not None and desk.tell(trial, TrialState.COMPLETE, [1.0])


SEEDS = [
    json.dumps({"feedback": name, "lr": 0.01, "seed": seed, "width": 8})
    for seed in range(6)
    for name in ("none", "static")
]


def held(desk: TrialDesk, fewest: int = 2) -> list[optuna.Trial]:
    """What a worker takes of a grid."""
    trial = desk.next()
    return [] if trial is None else [trial, *desk.beside(trial, lambda trial, number: number >= fewest)]


def seeds_of(trials: list[optuna.Trial]) -> list[tuple[str, int]]:
    return [(point["feedback"], point["seed"]) for point in (json.loads(t.user_attrs["point"]) for t in trials)]


def test_a_worker_takes_points_that_differ_in_the_seed_alone_and_leaves_the_share_of_other_slots(url: str) -> None:
    here, second, third = (make_desk(url, points=SEEDS, num_slots=2) for _ in range(3))
    mine = held(here)
    assert seeds_of(mine) == [("none", seed) for seed in range(6)], "half of 12 wait for the other slot"
    assert seeds_of(held(second)) == [("static", seed) for seed in range(3)], "half of 6"
    assert seeds_of(held(third, fewest=3)) == [("static", 3)], "half of 3 are too few"
    fourth = make_desk(url, points=SEEDS)
    fourth.study.set_user_attr("place elsewhere:1", 9)
    assert seeds_of(held(fourth)) == [("static", 4)], "other hosts have slots too"
    for trial in mine:
        assert trial.params["feedback"] == "none" and here.tell(trial, TrialState.COMPLETE, [1.0])
    assert seeds_of(held(here)) == [("static", 5)]


def test_a_worker_holds_no_more_points_than_one_death_may_cost(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "MOST_SEEDS", 3)
    desk = make_desk(url, points=SEEDS)
    assert len(held(desk)) == 3 == len(desk.study.trials)


def test_each_point_of_a_dead_worker_is_taken_over_alone(url: str) -> None:
    points = SEEDS[::2]
    dead, third = (make_desk(url, points=points, num_slots=2) for _ in range(2))
    numbers = [trial.number for trial in held(dead)]
    dead.close()
    adopted = []
    for _ in numbers:
        desk = make_desk(url, points=points)
        taken = held(desk)
        assert len(taken) == 1 and taken[0].user_attrs["attempts"] == 2
        adopted.append(taken[0])
        assert not dead.tell(taken[0], TrialState.FAIL)
        assert desk.tell(taken[0], TrialState.COMPLETE, [1.0])
    assert [trial.number for trial in adopted] == numbers == [0, 1, 2] and len(held(third)) == 3


def test_points_that_two_hosts_queue_at_once_are_run_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = (make_desk(url, points=SEEDS[:8:2]) for _ in range(2))
    trial = here.next()
    assert trial is not None
    monkeypatch.setattr(there, "_asking", nullcontext())  # another host sees no lock of this one
    queue, met = here.study.enqueue_trial, list[Any]()

    def late(*arguments: Any, **named: Any) -> None:
        if not met:
            met.extend(held(there))  # after this host has read what there is, and before it queues
        queue(*arguments, **named)

    monkeypatch.setattr(here.study, "enqueue_trial", late)
    mine = [trial, *here.beside(trial, lambda trial, number: number > 1)]
    assert sorted(seeds_of([*mine, *met])) == [("none", seed) for seed in range(4)], "each is run once"
    for desk, trials in ((here, mine), (there, met)):
        assert all(desk.tell(one, TrialState.COMPLETE, [1.0]) for one in trials)
    assert here.is_complete() and here.next() is None


WORKER = """
import sys, time
sys.path.insert(0, {root!r})
from tests.sweep.test_trials import make_desk, objective
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
