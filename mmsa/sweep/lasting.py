"""A study's storage that is away for a while: every call is tried again, and one that was answered late counts once."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import exc

from mmsa.errors import MmsaError, first_line
from mmsa.secrets import hidden

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
ASKED = "mmsa:asked"
"""System attribute of a trial: the one request that it answers."""
_LOST = exc.PendingRollbackError  # of a query that Optuna tries in another way after its connection was lost
_AWAY = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, _LOST, sqlite3.OperationalError, OSError)
_once: ContextVar[bool] = ContextVar("once", default=False)


class StorageAway(MmsaError):
    """The storage did not answer for as long as `sweep.storage_minutes`, or in the one attempt that it was given."""


@contextmanager
def at_once() -> Iterator[None]:
    """Within it, calls of a lasting storage from this thread are tried once."""
    token = _once.set(True)
    try:
        yield
    finally:
        _once.reset(token)


def insist(action: Callable[[], Any], minutes: float) -> Any:
    """Do something with a storage, and try again for this many minutes while it is away.

    Raises:
        StorageAway: it is away for longer.
    """
    deadline = time.monotonic() + (0.0 if _once.get() else 60 * minutes)
    pause, said = FIRST_PAUSE, False
    while True:
        try:
            return action()
        except Exception as error:
            if not is_away(error):
                raise
            if time.monotonic() + pause > deadline:
                lasting = f" for {minutes:g} minutes" if said else ""
                raise StorageAway(
                    f"the storage did not answer{lasting}: {cause_of(error)}\n"
                    "  run the command of the sweep again when it does"
                ) from error
            if not said:
                print(
                    f"the storage does not answer, tried again for {minutes:g} minutes: {cause_of(error)}", flush=True
                )
            said = True
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def is_away(error: BaseException) -> bool:
    """Whether an error means that a database is locked, full or out of reach, or a file's disk is."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return isinstance(cause, _AWAY) or getattr(cause, "connection_invalidated", False)


def cause_of(error: BaseException) -> str:
    """A storage's error in one line, without a password."""
    return hidden(first_line(error.__cause__ or error))[:160]


class LastingStorage:
    """A storage whose calls are tried again while it is away: all of `BaseStorage`, by the names of the calls.

    Args:
        storage: answers the calls.
        minutes: how long a call is tried again, >= 0; 0 tries it once.
    """

    def __init__(self, storage: BaseStorage, minutes: float) -> None:
        self._storage, self._minutes = storage, minutes

    def __getattr__(self, name: str) -> Any:
        called = getattr(self._storage, name)
        if not callable(called):
            return called
        return lambda *arguments, **named: insist(lambda: called(*arguments, **named), self._minutes)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Make a trial. One that was made although the answer was lost is found again by its mark."""
        if template_trial is not None:
            return int(insist(lambda: self._storage.create_new_trial(study_id, template_trial), self._minutes))
        marked = create_trial(state=TrialState.RUNNING, system_attrs={ASKED: uuid.uuid4().hex})
        tried = False

        def make() -> int:
            nonlocal tried
            if tried:
                for trial in self._storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
                    if trial.system_attrs.get(ASKED) == marked.system_attrs[ASKED]:
                        return trial._trial_id
            tried = True
            return self._storage.create_new_trial(study_id, marked)

        return int(insist(make, self._minutes))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state, also where that was done although the answer was lost."""
        tried = False

        def end() -> bool:
            nonlocal tried
            again, tried = tried, True
            try:
                return self._storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                kept = self._storage.get_trial(trial_id)
                if again and kept.state == state and list(kept.values or ()) == list(values or ()):
                    return True
                raise

        return bool(insist(end, self._minutes))
