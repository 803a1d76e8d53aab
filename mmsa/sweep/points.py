"""The points of a grid: those that have become trials of its study, and those that are left."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

FAILED_BEFORE = "failed before the command"
"""Attribute of a study: the numbers of the trials that had failed when the sweep's command was last typed."""
POINT = "point"
"""Attribute of a trial: the point of a grid that it runs, as JSON with sorted keys."""


class Points:
    """The points of a grid.

    Args:
        study: the grid's.
        points: each as its trial's attribute POINT, in their order.
    """

    def __init__(self, study: Study, points: Sequence[str]) -> None:
        self._study, self._points = study, points

    def taken(self, trials: Sequence[FrozenTrial]) -> set[str]:
        """Those that have a trial; those that failed before the sweep's command are tried again."""
        again = failed_before(self._study)
        has_run = (trial for trial in trials if trial.number not in again and not trial.user_attrs.get("surplus"))
        return {trial.user_attrs[POINT] for trial in has_run if POINT in trial.user_attrs}

    def next(self, trials: Sequence[FrozenTrial]) -> str | None:
        """The next one without a trial."""
        taken = self.taken(trials)
        return next((point for point in self._points if point not in taken), None)

    def alike(self, point: str, trials: Sequence[FrozenTrial]) -> tuple[list[str], int]:
        """Those without a trial that differ from a point in the seed alone, and how many of all wait for a worker."""
        taken = self.taken(trials)
        queued = sum(trial.state == TrialState.WAITING for trial in trials)
        alike = [other for other in self._by_setting[_without_seed(point)] if other not in taken]
        return alike, len(self._points) - len(taken) + queued

    def queue(self, point: str) -> None:
        """Make a trial of a point, which waits for a worker."""
        self._study.enqueue_trial(json.loads(point), user_attrs={POINT: point})

    @cached_property
    def _by_setting(self) -> Mapping[str, Sequence[str]]:
        found = defaultdict(list)
        for point in self._points:
            found[_without_seed(point)].append(point)
        return found


def _without_seed(point: str) -> str:
    return json.dumps({key: value for key, value in json.loads(point).items() if key != "seed"})


def failed_before(study: Study) -> frozenset[int]:
    """The numbers of the trials that had failed when the sweep's command was last typed."""
    return frozenset(study.user_attrs.get(FAILED_BEFORE, ()))
