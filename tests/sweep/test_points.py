"""The points of a grid: each once, whoever queues, dies or takes several."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mmsa.sweep import trials as trials_module
from mmsa.sweep.points import FAILED_BEFORE
from mmsa.sweep.trials import TrialDesk
from tests.sweep.desks import make_desk, points, run

GRID = [json.dumps({"feedback": name, "lr": lr, "width": 8}) for lr in (0.001, 0.01) for name in ("none", "static")]


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
