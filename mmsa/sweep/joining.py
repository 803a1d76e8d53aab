"""A job of a launcher that works on a sweep."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from mmsa.compose import typed_config_folders
from mmsa.errors import MmsaError
from mmsa.sweep.options import SPEC_FILE, SweepSpec
from mmsa.sweep.slots import Slot
from mmsa.sweep.supervisor import POLL_SECONDS, Limits, Supervisor

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What a cluster sends before it ends a job; submitit takes one of them and has the job start again."""


def join(folder: Path) -> None:
    """Work on a sweep in a job that a launcher has started, on what the launcher gave to the job.

    A job that the cluster is about to end hands its trial back, and then lets the launcher have it start again.

    Args:
        folder: the sweep's folder.

    Raises:
        MmsaError: its time limit is reached, and the launcher does not have it start again.
    """
    spec = SweepSpec.load(folder)
    spec.check_complete()
    limits = Limits.of(spec.options, seconds_since_saved(folder))
    slot = Slot(f"job {os.getpid()} on {os.uname().nodename}", lock=f"job {os.getpid()}", environment={})
    began, came = time.time(), list[int]()
    with Supervisor(folder, (slot,), limits, print, *_of_trials(spec), typed_config_folders()) as supervisor:
        formers = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in (signal.SIGTERM, *WARNINGS)}
        while not came and supervisor.step():
            time.sleep(POLL_SECONDS)
        (seat,) = supervisor.seats
        if seat.process is not None:
            seat.look()
    launchers: dict[int, Any] = {number: formers[number] for number in WARNINGS if callable(formers[number])}
    if any(_at_time_limit(launchers[number]) for number in came if number in launchers):
        _end_stalled(folder, [*seat.trials], began)
    for number in WARNINGS:
        signal.signal(number, formers[number] or signal.SIG_DFL)
    if came and launchers:
        _have_it_start_again(came, launchers)


def seconds_since_saved(folder: Path) -> float:
    """Seconds since the command of a sweep wrote its options, by the clock of the folder's file system.

    A job that starts again begins no new `sweep.timeout`, and no clock of a machine is compared with another's.
    """
    try:
        with NamedTemporaryFile(dir=folder, prefix=".now-", suffix=".tmp") as now:
            return max(0.0, os.stat(now.name).st_mtime - (folder / SPEC_FILE).stat().st_mtime)
    except OSError:  # a full disk; as if it started now
        return 0.0


def _of_trials(spec: SweepSpec) -> tuple[Callable[[int, str], bool], Callable[[int, str], bool]]:
    """The calls of a supervisor about trials, whose imports take seconds that most jobs have no use for."""
    made: list[Callable[[int, str], bool]] = []

    def call(which: int, number: int, reason: str) -> bool:
        if not made:
            from mmsa.sweep.hydra_sweep import Patience, of_trials
            from mmsa.sweep.storage import open_study

            made.extend(of_trials(Patience(print), lambda: open_study(Path(spec.folder)), spec))
        return made[which](number, reason)

    return partial(call, 0), partial(call, 1)


def _at_time_limit(launcher: Any) -> bool:
    """Whether submitit, whose handler of a warning this is, takes it for that of the time limit: others mean less."""
    timed_out = getattr(getattr(launcher, "__self__", None), "has_timed_out", None)
    return timed_out is not None and timed_out()


def _end_stalled(folder: Path, numbers: Sequence[int], began: float) -> None:
    """End those of the trials that this job has handed back which gain nothing by starting again."""
    from mmsa.sweep.endings import end_stalled
    from mmsa.sweep.storage import open_study

    with suppress(MmsaError):  # a storage that is away: another job will see
        for number in numbers:
            end_stalled(open_study(folder), number, began)


def _have_it_start_again(came: Sequence[int], launchers: Mapping[int, Any]) -> None:
    """End this job without a result: it is for the cluster to say what becomes of it."""
    try:
        for number in came:
            if number in launchers:
                launchers[number](number, None)
    except Exception as error:
        raise MmsaError(
            f"a job reached its time limit, and does not start again: {error}\n  type hydra.launcher.max_num_timeout=10"
        ) from error
    sys.exit(128 + came[0])
