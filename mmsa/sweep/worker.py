"""A worker of a sweep: python -m mmsa.sweep.worker FOLDER. It asks for trials, runs them and reports their values."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mmsa import config
from mmsa.commands import worker_command
from mmsa.errors import ConfigError, Disowned, MmsaError, Pruned, TrainingError, UndefinedScore, stopped_by
from mmsa.files import is_full
from mmsa.garbage import uncollected
from mmsa.locks import Lock, lock_file
from mmsa.run_folder import check_own
from mmsa.sweep.options import SweepSpec
from mmsa.tracking.pause import share_pauses

if TYPE_CHECKING:
    from optuna.trial import Trial, TrialState

    from mmsa.lockstep import Member
    from mmsa.sweep.running import TrialRunner
    from mmsa.sweep.trials import TrialDesk

DONE, AWAY, SLOT_TAKEN, REPLACE, NO_ROOM = 0, 74, 75, 76, 77
"""Exit codes: nothing is left to do; the storage is away; another process holds the slot; a trial may have left the
process unsound; the disk is full."""
DONE_LINE, NO_ROOM_LINE = "no trial is left for this worker", "no room: "
"""Printed before the exit codes DONE and NO_ROOM, which a method could return as well; the latter with the file."""
POLL_SECONDS = 0.5


class Stopped(BaseException):
    """The worker is to leave its trial as it is."""


def work(
    folder: Path,
    slot: str = "",
    until: float | None = None,
    stop: threading.Event | None = None,
    config_folders: Sequence[str] = (),
    num_slots: int = 1,
) -> int:
    """Run trials of a sweep until none is left; returns an exit code.

    Args:
        folder: the sweep's folder.
        slot: what this process computes on, for people.
        until: Unix time after which no trial starts; None has no limit.
        stop: set when no further trial is to start.
        config_folders: this process's own folders of configuration files, absolute.
        num_slots: slots of the sweep on this machine.
    """
    with uncollected():
        from mmsa.sweep.lasting import StorageAway
        from mmsa.sweep.setup import open_sweep
        from mmsa.sweep.trials import TooManyFailures

    spec = entered(SweepSpec.load(folder), config_folders)
    stop = stop or threading.Event()
    try:
        desk, runner = open_sweep(spec, slot, num_slots)
        desk.open()
    except StorageAway as away:
        print(str(away).splitlines()[0], flush=True)
        return AWAY
    try:
        while not stop.is_set() and (until is None or time.time() < until):
            trial = desk.next()
            if trial is not None:
                if not run_all(desk, runner, [trial, *desk.beside(trial, runner.train_together)], stop):
                    return REPLACE
            elif desk.is_complete():
                break
            else:
                stop.wait(POLL_SECONDS)
    except TooManyFailures:
        pass
    except StorageAway as away:
        print(str(away).splitlines()[0], flush=True)
        return AWAY
    finally:
        desk.close()
    print(DONE_LINE, flush=True)
    return DONE


def entered(spec: SweepSpec, config_folders: Sequence[str]) -> SweepSpec:
    """Go where the sweep was started. This process decides what its configurations may name, not the sweep's folder.

    Args:
        spec: of the sweep.
        config_folders: this process's own folders of configuration files, absolute.

    Returns:
        The sweep, with these folders.

    Raises:
        DataError: its folder lacks an option, or has a link in it.
        ConfigError: it needs packages or folders that this process was not given, or this machine does not see where
            it was started.
    """
    spec.check_complete()
    check_own(Path(spec.folder))
    packages = list(filter(None, spec.packages.split(",")))
    if not set(packages) <= set(config.PACKAGES) or len(config_folders) != len(spec.config_folders):
        again = worker_command(Path(spec.folder), (), spec.config_folders, packages)
        raise ConfigError(
            f"{spec.folder}: its runs are made of packages or folders that a worker takes from its own command line.\n"
            f"  if they are yours, type {again}"
        )
    try:
        os.chdir(spec.working_folder)
    except OSError as error:
        raise ConfigError(
            f"{spec.folder}: its relative paths begin in {spec.working_folder}, and this machine has no such folder.\n"
            "  mount it there, or run the sweep's command again where its folders are now"
        ) from error
    return replace(spec, config_folders=list(config_folders))


def run_all(desk: TrialDesk, runner: TrialRunner, trials: Sequence[Trial], stop: threading.Event) -> bool:
    """Run trials that train together, each to its own end; False where the process had better not run others."""
    from mmsa.sweep.lasting import StorageAway, at_once

    try:
        if len(trials) == 1:
            return run_one(desk, runner, trials[0])
        from mmsa.build import Kept
        from mmsa.display import Display
        from mmsa.lockstep import Lockstep, Member
        from mmsa.record import Packing

        packing, kept = Packing(seeds=tuple(trial.params["seed"] for trial in trials)), Kept()
        members = [Member(Display(quiet=True), packing, kept) for _ in trials]
        bodies = [partial(run_one, desk, runner, *each) for each in zip(trials, members, strict=True)]
        return all(Lockstep(members, bodies, runner.note_apart).run())
    except Stopped:
        if stop.wait(1.0):  # by the parent; what else sends a signal may do so for ever, and counts as a death
            with suppress(StorageAway), at_once():
                release(desk, trials)
        raise
    except Exception as error:
        if is_full(error):  # which is no fault of the trials
            release(desk, trials)
        raise


def release(desk: TrialDesk, trials: Sequence[Trial]) -> None:
    """Leave trials for whoever comes next."""
    for trial in trials:
        desk.release(trial)


def run_one(desk: TrialDesk, runner: TrialRunner, trial: Trial, member: Member | None = None) -> bool:
    """Run one trial to its end, whose seconds are its share of those that train together.

    Returns:
        False where the process had better not run another.
    """
    from optuna.trial import TrialState

    from mmsa.secrets import hidden
    from mmsa.sweep.lasting import StorageAway

    print(f"trial {trial.number}", flush=True)
    began, values, reason, is_sound = time.monotonic(), None, "", True
    among = len(member.packing.seeds) if member is not None else 1
    try:
        try:
            values, state = runner.run(trial, member), TrialState.COMPLETE
        except Pruned as pruned:
            state, reason = TrialState.PRUNED, str(pruned)
        except StorageAway:
            raise  # no fault of the trial, which can be resumed
        except (Exception, SystemExit) as error:  # any fault of a trial is its own; the sweep continues
            if stopped := stopped_by(error):
                raise stopped from None
            if isinstance(error, Exception) and is_full(error):
                raise
            state, reason = _verdict(error, teaches=not runner.spec.options["final"])
            is_sound = isinstance(error, MmsaError)
            if not is_sound:
                print(hidden(traceback.format_exc()), file=sys.stderr)
        desk.tell(trial, state, values, reason, (time.monotonic() - began) / among)
    except Disowned:
        desk.let_go(trial)
        print(f"trial {trial.number}: another worker has it now", flush=True)
    finally:
        print(f"trial {trial.number} ended", flush=True)
    return is_sound


def _verdict(error: Exception | SystemExit, teaches: bool) -> tuple[TrialState, str]:
    """The state of a trial that an error ended, and the reason in one line.

    Args:
        error: of the run.
        teaches: a sampler learns from pruned trials, not from failed ones; a grid retries the failed points.
    """
    from optuna.trial import TrialState

    from mmsa.reporting import in_few_lines, lacks_memory

    if isinstance(error, SystemExit):
        return TrialState.FAIL, f"sys.exit({'' if error.code is None else repr(error.code)}) was called in its run"
    is_undefined = isinstance(error, UndefinedScore)
    is_bad = (isinstance(error, TrainingError) and not is_undefined) or lacks_memory(error)
    return TrialState.PRUNED if is_bad and teaches else TrialState.FAIL, in_few_lines(error).splitlines()[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of a worker process, which its parent stops by closing its standard input."""
    parser = argparse.ArgumentParser(prog="python -m mmsa.sweep.worker", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slot", default="", help="what this process computes on, for people")
    parser.add_argument("--slots", type=int, default=1, help="slots of the sweep on this machine")
    parser.add_argument("--lock", help="lock of the slot, to hold for life")
    parser.add_argument("--config-dir", action="append", default=[], help="a folder of configuration files")
    parser.add_argument("--until", type=float, help="Unix time after which no trial starts")
    options = parser.parse_args(arguments)
    # A terminal's Ctrl-C and its end, and a cluster's warnings, are the parent's to interpret.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop_now)
    lock = Lock(lock_file(options.lock), str(options.folder)) if options.lock else None
    if lock is not None and not lock.acquire(blocking=False):
        return SLOT_TAKEN
    share_pauses(str(options.folder.resolve()))
    stop = threading.Event()
    threading.Thread(target=_until_parent_closes, args=(stop,), daemon=True).start()
    try:
        return work(options.folder, options.slot, options.until, stop, options.config_dir, options.slots)
    except Stopped:
        return REPLACE
    except OSError as error:
        if not is_full(error):
            raise
        from mmsa.reporting import in_few_lines

        print(f"{NO_ROOM_LINE}{in_few_lines(error).splitlines()[0]}")
        return NO_ROOM


def _stop_now(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows leaves files whole
    raise Stopped


def _until_parent_closes(stop: threading.Event) -> None:
    """Wait for the end of standard input, which also comes when the parent dies."""
    while os.read(0, 1024):  # below Python's file object, whose lock a thread must not hold when the program ends
        continue
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
