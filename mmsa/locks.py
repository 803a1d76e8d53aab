"""Locks of files between processes: the kernel's, which die with the process that holds them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import quote

from filelock import Timeout, UnixFileLock, unlock_descriptor

from mmsa.errors import ConfigError

_ASKING_SECONDS = 5.0
_LONGEST = 200  # file systems take 255 bytes


class LockError(ConfigError):
    """A file cannot be locked: it may not be written, or its file system has no locks."""


class Lock:
    """An exclusive lock, which the system gives back when the holding process dies; no child process keeps it.

    Two objects of one file exclude each other in one process as well. Use an object in one thread. As a context
    manager it waits for the lock. The file is made where it is missing, and stays.

    Args:
        path: the file, in a folder that may be written.
        text: who holds it, for people; it replaces what the file holds. None leaves the file as it is.
    """

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        sign = None if text is None else partial(_sign, f"process {os.getpid()}, {text}")
        # Never the library's soft lock, which outlives its process.
        self._lock = UnixFileLock(path, thread_local=False, fallback_to_soft=False, on_acquired=sign)

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock.

        Args:
            blocking: wait until it is free; else wait only for those who ask who holds it.

        Returns:
            Whether this object holds it now; always true if it may wait.

        Raises:
            LockError: the file cannot be locked.
            RuntimeError: this object holds it already.
        """
        if self.is_mine:
            raise RuntimeError(f"this object holds the lock {self.path} already")
        try:
            if blocking:
                self._lock.acquire()
            else:
                self._lock.acquire(_ASKING_SECONDS, 0.001, cancel_check=lambda: holder(self.path) is not None)
        except Timeout:
            return False
        except OSError as error:
            raise _refused(self.path, error) from error
        return True

    def release(self) -> None:
        """Give the lock back; without effect where this object does not hold it."""
        self._lock.release()

    @property
    def is_mine(self) -> bool:
        """Whether this object holds the lock; never true of the copy in a forked child."""
        return self._lock.is_locked

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait for the lock of a file, and say whether it is held: not every file system has locks."""
    lock = Lock(path)
    with suppress(LockError):
        lock.acquire()
    try:
        yield lock.is_mine
    finally:
        lock.release()


def holder(path: Path) -> str | None:
    """Who holds the lock of a file, "process 123, its text"; None where it is free. It is asked, not taken.

    Raises:
        LockError: the file cannot be locked.
    """
    try:
        with path.open("rb") as file:
            try:
                # Shared, so that two who ask do not take each other for a holder.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(4096).decode(errors="replace") or "a process that has just taken it"
            unlock_descriptor(file.fileno())  # closing would not do where another thread has just forked
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, error) from error


def lock_file(name: str) -> Path:
    """The file of this user's lock of that name, any characters, on this host.

    Raises:
        LockError: there is no folder for it.
    """
    file = quote(name, safe="")
    if len(file) > _LONGEST:
        file = file[: _LONGEST // 2] + hashlib.sha256(name.encode()).hexdigest()
    return _lock_folder() / f"{file}.lock"


def place() -> str:
    """The name of the host and of its lock folder, "host:id": where equal, locks tell which processes live.

    Two containers of one host name have other lock folders, and so other places.

    Raises:
        LockError: there is no lock folder to write.
    """
    file = _lock_folder() / "place"
    if not file.exists():
        with Lock(lock_file("place"), "making the name of this place"):
            if not file.exists():
                unfinished = file.with_suffix(".new")
                unfinished.write_text(uuid.uuid4().hex[:12], encoding="ascii")
                unfinished.chmod(_MODE)
                unfinished.replace(file)
    return f"{socket.gethostname()}:{file.read_text(encoding='ascii')}"


# The sticky bit tells systemd's cleaning of temporary folders to let an old file be.
_MODE = stat.S_ISVTX | stat.S_IRUSR | stat.S_IWUSR


def _sign(text: str, number: int) -> None:
    with suppress(OSError):  # a full disk: the lock holds without the text as well
        os.fchmod(number, _MODE)
        os.ftruncate(number, os.pwrite(number, text.encode(), 0))  # at no moment is the file empty


def _lock_folder() -> Path:
    """$MMSA_LOCKS, or else mmsa-<user id> in the folder of temporary files; made on first use."""
    chosen = os.environ.get("MMSA_LOCKS")
    # Not $XDG_RUNTIME_DIR: it goes at the last logout, while a sweep in tmux lives on, and cron has none.
    folder = Path(chosen).absolute() if chosen else Path(tempfile.gettempdir()) / f"mmsa-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _refused(folder, error) from error
    # Where everybody may write, another user could have made the folder, or a link in its place.
    if not chosen and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()):
        raise _refused(folder, "it is not a folder of yours")
    return folder


def _refused(path: Path, reason: OSError | str) -> LockError:
    return LockError(
        f"Locks need a folder of your own on this host's disk; {path}: {getattr(reason, 'strerror', None) or reason}.\n"
        "  type export MMSA_LOCKS=FOLDER, with a folder that you may write"
    )
