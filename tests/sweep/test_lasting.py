"""A storage that is away for a while: what is tried again, for how long, and what counts once."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import DataError as TooLong
from sqlalchemy.exc import OperationalError, PendingRollbackError

from mmsa.sweep import lasting
from mmsa.sweep.lasting import LastingStorage, StorageAway, at_once

LOCKED = OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))


def internal(cause: Exception) -> StorageInternalError:
    """As Optuna hides what happened: "exceeding max length", it says of a lock."""
    error = StorageInternalError("exceeding max length")
    error.__cause__ = cause
    return error


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(lasting.time, "sleep", pauses.append)
    monkeypatch.setattr(lasting.time, "monotonic", lambda: sum(pauses))
    return pauses


class Failing:
    """A storage whose calls fail so often, before or after they did what they were asked for."""

    def __init__(self, errors: list[Exception], done: bool = False) -> None:
        self.storage, self.errors, self.done = InMemoryStorage(), errors, done
        self.study = self.storage.create_new_study([StudyDirection.MINIMIZE])

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            answer = getattr(self.storage, name)(*arguments, **named) if self.done or not self.errors else None
            if self.errors and not name.startswith("get"):
                raise self.errors.pop(0)
            return answer if answer is not None else getattr(self.storage, name)(*arguments, **named)

        return call


@pytest.mark.parametrize(
    "error",
    [internal(LOCKED), internal(PendingRollbackError()), LOCKED, ConnectionResetError(), sqlite3.OperationalError("x")],
)
def test_a_call_is_tried_again_after_longer_and_longer_pauses(
    error: Exception, slept: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    failing = Failing([error] * 8)
    LastingStorage(failing, 10).set_study_user_attr(failing.study, "a", 1)
    assert failing.storage.get_study_user_attrs(failing.study) == {"a": 1}
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert capsys.readouterr().out.count("the storage does not answer, tried again for 10 minutes") == 1


def test_what_is_away_for_longer_is_given_up_with_the_drivers_own_words(slept: list[float]) -> None:
    failing = Failing([internal(LOCKED)] * 1000)
    with pytest.raises(StorageAway, match=r"did not answer for 0.5 minutes: .*database is locked\n  run the command"):
        LastingStorage(failing, 0.5).set_study_user_attr(failing.study, "a", 1)
    assert 25 <= sum(slept) <= 30
    with at_once(), pytest.raises(StorageAway, match=r"did not answer: .*database is locked"):
        LastingStorage(failing, 0.5).set_study_user_attr(failing.study, "a", 1)
    assert sum(slept) <= 30


@pytest.mark.parametrize("error", [internal(TooLong("", {}, Exception("too long"))), KeyError("no such trial")])
def test_what_is_no_absence_is_raised_at_once(error: Exception, slept: list[float]) -> None:
    failing = Failing([error])
    with pytest.raises(type(error)):
        LastingStorage(failing, 10).set_study_user_attr(failing.study, "a", 1)
    assert not slept


@pytest.mark.parametrize("done", [True, False], ids=["answer lost", "not done"])
def test_a_trial_is_made_and_ended_once(done: bool) -> None:
    failing = Failing([LOCKED, LOCKED], done)
    storage = LastingStorage(failing, 10)
    trial = storage.create_new_trial(failing.study)
    assert [found._trial_id for found in failing.storage.get_all_trials(failing.study)] == [trial]
    failing.errors += [LOCKED, LOCKED]
    assert storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.0])
    assert failing.storage.get_trial(trial).values == [1.0]


def test_a_trial_that_somebody_else_ended_is_no_lost_answer() -> None:
    failing = Failing([])
    storage = LastingStorage(failing, 10)
    trial = storage.create_new_trial(failing.study)
    failing.storage.set_trial_state_values(trial, TrialState.COMPLETE, [2.0])
    for errors, values in itertools.product(([], [LOCKED]), ([1.0], [2.0])):
        failing.errors += errors
        if errors and values == [2.0]:
            assert storage.set_trial_state_values(trial, TrialState.COMPLETE, values)
        else:
            with pytest.raises(UpdateFinishedTrialError):
                storage.set_trial_state_values(trial, TrialState.COMPLETE, values)
