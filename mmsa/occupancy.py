"""Who works in the folder of a run: making it, taking it for a process, giving it back, and removing it.

A process holds the lock of a file in the folder, which goes with the last write. A folder that has the file while
nobody holds it was left by a process that died, or is not yet shown by a tracker.
"""

from __future__ import annotations

import errno
import re
import shutil
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from mmsa.errors import ConfigError
from mmsa.locks import Lock, LockError, holder

NAME_LENGTH = 100
FILE = ".lock"
_HIDDEN = ".unfinished-"
"""Begins the names of folders that are being made or removed: a run's folder is whole from its first moment."""


def run_folders(outputs: Path) -> list[Path]:
    """The folders of runs under an outputs folder, in the order of their names."""
    return sorted(path for path in (outputs / "runs").glob("*/") if not path.name.startswith("."))


def new_folder(outputs: Path) -> tuple[Path, Lock]:
    """A hidden folder under `outputs`/runs that this process has taken, to be filled and then named.

    Raises:
        ConfigError: `outputs` is not a folder that can be written to.
    """
    runs = outputs / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        clear_unnamed(outputs)
        while True:
            folder = runs / f"{_HIDDEN}{uuid.uuid4().hex[:12]}"
            folder.mkdir()
            with suppress(ConfigError):  # of who clears leftovers
                lock = take(folder)
                if folder.is_dir():
                    return folder, lock
    except OSError as error:
        raise ConfigError(
            f"paths.outputs={outputs}: runs cannot be written there ({error.strerror}).\n  type paths.outputs=FOLDER"
        ) from error


def named(folder: Path, name: str) -> Path:
    """Give a hidden folder its name, of the time and the run's name.

    Raises:
        ConfigError: there are too many of this second and name.
    """
    safe = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-")[:NAME_LENGTH].rstrip("-")  # to be typed without quotes
    stem = f"{datetime.now():%Y%m%d-%H%M%S}_{safe}"
    for attempt in range(1, 1000):
        try:
            return folder.rename(folder.with_name(stem if attempt == 1 else f"{stem}_{attempt}"))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise ConfigError(f"{folder.parent} already has 999 runs of this second and name.\n  type name=ANOTHER")


def take(folder: Path, of_trial: bool = False) -> Lock:
    """Take a run's folder for this process, where its file system has locks.

    Args:
        folder: of the run.
        of_trial: of a trial, whose claim says who may write, also where another host's frozen process has the lock.

    Raises:
        ConfigError: another process works in it.
    """
    lock = Lock(folder / FILE, "in this run")
    with suppress(LockError):
        if not lock.acquire(blocking=False) and not of_trial:
            raise _taken(folder)
    return lock


def check_free(folder: Path) -> None:
    """Refuse a run's folder in which another process works, before hours of preparation.

    Raises:
        ConfigError: it is not free.
    """
    with suppress(LockError):
        if holder(folder / FILE) is not None:
            raise _taken(folder)


def give_back(folder: Path, lock: Lock, settled: bool) -> None:
    """Let others take a run's folder.

    Args:
        folder: of the run.
        lock: as `take` returned it.
        settled: nothing is left to do for the run; otherwise it stays among the `unsettled`.
    """
    if settled:
        with suppress(OSError):
            (folder / FILE).unlink(missing_ok=True)
    lock.release()


def remove(folder: Path) -> bool:
    """Remove the folder of a run that this process has taken; returns whether it could.

    Killed meanwhile, it leaves nothing that is read.
    """
    with suppress(OSError):
        shutil.rmtree(folder.rename(folder.with_name(f"{_HIDDEN}{uuid.uuid4().hex[:12]}")), ignore_errors=True)
        return True
    return False


def is_under_way(folder: Path) -> bool:
    """Whether a process works in a run's folder; true where that cannot be known."""
    try:
        return holder(folder / FILE) is not None
    except LockError:
        return True


def _taken(folder: Path) -> ConfigError:
    who = holder(folder / FILE) or "it has just ended"
    return ConfigError(
        f"{folder}: another process works in this run ({who}).\n  wait until it has ended, or stop it first"
    )


def unsettled(outputs: Path) -> list[Path]:
    """The folders of runs that a process works in, or that were left before everything was done for them."""
    return [folder for folder in run_folders(outputs) if (folder / FILE).exists()]


def unnamed(outputs: Path) -> list[Path]:
    """The hidden folders of runs whose process died before they were named, or removed."""
    return [folder for folder in (outputs / "runs").glob(f"{_HIDDEN}*") if not is_under_way(folder)]


def clear_unnamed(outputs: Path) -> None:
    """Remove the hidden folders whose process died."""
    for folder in unnamed(outputs):
        with suppress(ConfigError, OSError):
            lock = take(folder)
            if lock.is_mine:  # else nobody can know who works in it
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()
