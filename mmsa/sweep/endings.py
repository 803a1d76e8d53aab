"""How trials end that no worker brings to an end: counted, explained, or ended by whoever looks after their workers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from mmsa.locks import place
from mmsa.sweep.claims import OWNER
from mmsa.sweep.points import failed_before

ALMOST = 0.1
"""The share of a job's time after which a trial that begins has not had the whole of it."""
STALLED = "stalled"
"""Attribute of a trial: it was handed back twice, and has come no epoch further in between."""


def num_failed(study: Study, trials: Sequence[FrozenTrial]) -> int:
    """How many trials failed since the sweep's command last ran: earlier failures may have been fixed."""
    before = failed_before(study)
    return sum(trial.number not in before for trial in failures(trials))


def failures(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that failed; those that were only asked for too often are none."""
    return [trial for trial in trials if trial.state == TrialState.FAIL and not trial.user_attrs.get("surplus")]


def note_death(study: Study, number: int, reason: str) -> None:
    """Keep how a worker of this host died, for the case that nobody brings its trial to an end."""
    for trial in _in_hand(study, number):
        study._storage.set_trial_user_attr(trial._trial_id, "death", reason)


def end_overdue(study: Study, number: int, reason: str, teaches: bool) -> None:
    """End a trial of a worker of this host, which is then stopped and finds that it is no longer its own.

    Args:
        study: the study.
        number: of the trial.
        reason: why it is ended.
        teaches: it counts as pruned, from which a sampler learns; otherwise as failed.
    """
    for trial in _in_hand(study, number):
        study._storage.set_trial_user_attr(trial._trial_id, "reason", reason)
        study.tell(number, state=TrialState.PRUNED if teaches else TrialState.FAIL)


def end_stalled(study: Study, number: int, began: float) -> None:
    """End as failed a trial that a job at its time limit has handed back, where a longer job is needed.

    That is a trial that had this job almost from its start, and came no epoch further, as it did not before.

    Args:
        study: the study.
        number: of the trial.
        began: Unix time at which the job began.
    """
    seconds = time.time() - began
    for trial in _in_hand(study, number):
        had_all = trial.user_attrs[OWNER]["since"] < began + ALMOST * seconds
        if had_all and trial.user_attrs.get(STALLED):
            minutes = seconds / 60
            reason = f"needs an epoch within the time limit of a job, and came no further in {minutes:.0f} minutes"
            longer = f"type hydra.launcher.timeout_min={math.ceil(2 * minutes)}, or shorten the epochs"
            end_overdue(study, number, f"{reason}: {longer}", teaches=False)


def _in_hand(study: Study, number: int) -> list[FrozenTrial]:
    """The trial of this number, where a worker of this host has it."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ours = [trial for trial in running if (trial.user_attrs.get(OWNER) or {}).get("place") == place()]
    return [trial for trial in ours if trial.number == number]
