"""Trials of workers of other hosts, of which only the storage tells."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mmsa.errors import Disowned
from mmsa.sweep import claims
from mmsa.sweep import trials as trials_module
from mmsa.sweep.lasting import StorageAway
from mmsa.sweep.storage import open_storage
from mmsa.sweep.trials import TrialDesk
from tests.sweep.desks import make_desk


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
