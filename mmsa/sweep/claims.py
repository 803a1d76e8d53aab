"""A worker's claim on a trial: its number, and its sign of life, which others measure by their own clocks."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from optuna.trial import FrozenTrial, Trial, TrialState

from mmsa.errors import Disowned
from mmsa.sweep.lasting import StorageAway, at_once

LEASE_SECONDS = 300.0
"""How long the counter of a worker on another host has to stand still before its trial is taken over."""
BEAT_SECONDS = 60.0
"""How often a worker increments the counter of its trial."""
SURE_SECONDS = LEASE_SECONDS - BEAT_SECONDS
"""How long after an increment nobody can have taken the trial over, so that the owner need not ask."""
BEAT, OWNER = "beat", "owner"
"""Attributes of a trial: the counter, and who runs it; a former version had the end of a "lease" instead."""


def now() -> float:
    """Seconds of this host's own clock, which nobody sets, and which continues while the host is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def claim_number(trial: FrozenTrial) -> int:
    """How often a trial has been claimed; 0 before the first time, and in studies of a former version."""
    return int((trial.user_attrs.get(OWNER) or {}).get("claim", 0))


class Claim:
    """The hold of a worker on a trial, which it shows by a counter until it lets go.

    Args:
        trial: the trial.
        owner: the worker's description of itself, with the claim's number; it is written here.
    """

    def __init__(self, trial: Trial, owner: dict[str, object]) -> None:
        self._storage, self._trial_id, self._owner = trial.storage, trial._trial_id, owner
        self._ended, self._lost = threading.Event(), False
        self._confirmed, self._count = now(), 0
        trial.set_user_attr(OWNER, owner)
        threading.Thread(target=self._beat, daemon=True).start()

    def stands(self, trial: FrozenTrial) -> bool:
        """Whether a trial, as it has just been read, is under this claim."""
        found = trial.user_attrs.get(OWNER) or {}
        same = all(found.get(name) == self._owner[name] for name in ("worker", "claim"))
        return trial.state == TrialState.RUNNING and same

    def check(self) -> None:
        """See that the trial is still this worker's; the storage is asked only where somebody could have taken it.

        Raises:
            Disowned: another worker has it, or it has been ended, or nobody could say before.
            StorageAway: nobody can say; the trial is given up.
        """
        if not self._lost and now() > self._confirmed + SURE_SECONDS:
            try:
                self._confirm()
            except StorageAway:
                self._lost = True
                raise
        if self._lost:
            raise Disowned("another worker has the trial")

    def let_go(self) -> None:
        """Increment the counter no longer."""
        self._ended.set()

    def _confirm(self) -> None:
        began = now()
        if not self.stands(self._storage.get_trial(self._trial_id)):
            self._lost = True
            return
        with suppress(StorageAway), at_once():
            self._count += 1
            self._storage.set_trial_user_attr(self._trial_id, BEAT, self._count)
            self._confirmed = began

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(Exception), at_once():  # a storage that is away for a moment: the next increment will do
                self._confirm()


class Watch:
    """Measures by this host's clock how long the workers of trials have shown no sign of life."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[object, float]] = {}

    def still_for(self, trial: FrozenTrial) -> float:
        """Seconds since this object first saw a trial with the owner and the counter that it has."""
        sign = (trial.user_attrs.get(OWNER), trial.user_attrs.get(BEAT), trial.user_attrs.get("lease"))
        if trial.number not in self._seen or self._seen[trial.number][0] != sign:
            self._seen[trial.number] = (sign, now())
        return now() - self._seen[trial.number][1]
