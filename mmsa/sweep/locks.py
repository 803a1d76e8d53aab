"""Locks between the processes of one user on one host; they die with the process that holds them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import socket
import stat
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

from mmsa.errors import ConfigError

_PLACE = "place"
_PROBE_SECONDS = 5.0
_LONGEST = 200  # file systems take 255 bytes

# --- Where ------------------------------------------------------------------------------------------------------------


def lock_folder() -> Path:
    """The folder of this user's locks on this host, made on first use.

    It is $MMSA_LOCKS, or else mmsa-<user id> in the folder of temporary files.

    Raises:
        ConfigError: it cannot be made, or belongs to another user.
    """
    chosen = os.environ.get("MMSA_LOCKS")
    folder = Path(chosen).absolute() if chosen else _default_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(_refused(folder, error.strerror or str(error))) from error
    # Where everybody may write, another user could have made the folder, or a link in its place.
    if not chosen and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()):
        raise ConfigError(_refused(folder, "it is not a folder of yours"))
    return folder


def _default_folder() -> Path:
    # Not $XDG_RUNTIME_DIR: it goes at the last logout, while a sweep in tmux lives on, and cron has none.
    return Path(tempfile.gettempdir()) / f"mmsa-{os.getuid()}"


def _refused(folder: Path, reason: str) -> str:
    return (
        f"The locks of device slots need a folder of your own on this host's disk; {folder}: {reason}.\n"
        "  type export MMSA_LOCKS=FOLDER, with a folder that you may write"
    )


def place() -> str:
    """The name of the host and of its lock folder, "host:id": where equal, locks tell which processes live.

    Two containers of one host name have other lock folders, and so other places.

    Raises:
        ConfigError: there is no lock folder to write.
    """
    file = lock_folder() / _PLACE
    if not file.exists():
        with Lock(_PLACE, "making the name of this place"):
            if not file.exists():
                unfinished = file.with_suffix(".new")
                unfinished.write_text(uuid.uuid4().hex[:12], encoding="ascii")
                unfinished.chmod(_MODE)
                unfinished.replace(file)
    return f"{socket.gethostname()}:{file.read_text(encoding='ascii')}"


# --- Open files -------------------------------------------------------------------------------------------------------

# The sticky bit tells systemd's cleaning of temporary folders to let an old file be.
_MODE = stat.S_ISVTX | stat.S_IRUSR | stat.S_IWUSR


class _OpenFile:
    """An open lock file, whose descriptor no child process keeps, neither over `exec` nor after a bare `fork`."""

    opened: set[_OpenFile] = set()  # noqa: RUF012 (one set for the process)
    guard = threading.RLock()  # no fork between opening a file and noting it; reentrant for signal handlers

    def __init__(self, path: Path, flags: int) -> None:
        with self.guard:
            self.number = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self.opened.add(self)

    def lock(self, kind: int) -> bool:
        """flock, which excludes other open files also in the same process; False where it would wait but may not."""
        try:
            fcntl.flock(self.number, kind)
        except BlockingIOError:
            return False
        return True

    def is_at(self, path: Path) -> bool:
        """Whether the file still has its name; if not, a lock on it excludes nobody."""
        try:
            there = path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self.number))

    def write(self, text: str) -> None:
        """Replace the file's text, at no moment by an empty one."""
        content = text.encode()
        os.pwrite(self.number, content, 0)
        os.ftruncate(self.number, len(content))

    def close(self) -> None:
        """Close the file, which gives the lock back."""
        with self.guard:
            if self in self.opened:
                self.opened.remove(self)
                os.close(self.number)

    @classmethod
    def close_in_child(cls) -> None:
        """Close the copies that a forked child got: they would keep the locks when the parent has died."""
        for file in list(cls.opened):
            file.close()
        cls.guard.release()


os.register_at_fork(
    before=_OpenFile.guard.acquire,
    after_in_parent=_OpenFile.guard.release,
    after_in_child=_OpenFile.close_in_child,
)

# --- Locks ------------------------------------------------------------------------------------------------------------


class Lock:
    """An exclusive lock between processes, which the system gives back when the holding process dies.

    Two objects of one name exclude each other in one process as well. Use an object in one thread. As a context
    manager it waits for the lock. Only the holder removes the lock's file; that of a killed process stays for the next.

    Args:
        name: the lock's name, any characters.
        text: who holds it, for people; the process id is added.

    Raises:
        ConfigError: the lock folder or the file cannot be used.
    """

    def __init__(self, name: str, text: str = "") -> None:
        self.name = name
        self.text = text
        self._path = _path(name)
        self._file: _OpenFile | None = None

    def acquire(self, blocking: bool = True) -> bool:
        """Take the lock.

        Args:
            blocking: wait until it is free.

        Returns:
            Whether this object holds it now; always true if it may wait.

        Raises:
            RuntimeError: this object holds it already.
        """
        if self.is_mine:
            raise RuntimeError(f"this object holds the lock {self.name!r} already")
        try:
            while True:
                file = _OpenFile(self._path, os.O_RDWR | os.O_CREAT)
                try:
                    if not (file.lock(fcntl.LOCK_EX) if blocking else _lock_at_once(file)):
                        return False
                    if file.is_at(self._path):
                        self._sign(file)
                        self._file = file
                        return True
                finally:
                    if file is not self._file:
                        file.close()
        except OSError as error:
            raise ConfigError(_refused(self._path.parent, error.strerror or str(error))) from error

    def release(self) -> None:
        """Give the lock back; without effect where this object does not hold it."""
        if self._file is not None and self.is_mine:
            # Safe while it is held: who waits for it at this moment sees that the name is gone, and opens it anew.
            if self._file.is_at(self._path):
                self._path.unlink(missing_ok=True)
            self._file.close()
        self._file = None

    @property
    def is_mine(self) -> bool:
        """Whether this object holds the lock; never true of the copy in a forked child."""
        return self._file is not None and self._file in _OpenFile.opened

    def _sign(self, file: _OpenFile) -> None:
        with suppress(OSError):  # a full disk: the lock holds without the text as well
            file.write(f"process {os.getpid()}" + (f", {self.text}" if self.text else ""))
            os.fchmod(file.number, _MODE)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def is_held(name: str) -> bool:
    """Whether some process, this one included, holds the lock; asks without taking it from anybody.

    Raises:
        ConfigError: the lock folder or the file cannot be used.
    """
    return holder(name) is not None


def holder(name: str) -> str | None:
    """Who holds the lock, "process 123, its text"; None where it is free.

    Raises:
        ConfigError: the lock folder or the file cannot be used.
    """
    path = _path(name)
    try:
        file = _OpenFile(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(_refused(path.parent, error.strerror or str(error))) from error
    try:
        if file.lock(fcntl.LOCK_SH | fcntl.LOCK_NB):  # shared, so that two who ask do not take each other for a holder
            return None
        return os.pread(file.number, 4096, 0).decode(errors="replace") or "a process that has just taken it"
    finally:
        file.close()


def _path(name: str) -> Path:
    file = quote(name, safe="")
    if len(file) > _LONGEST:
        file = file[: _LONGEST // 2] + hashlib.sha256(name.encode()).hexdigest()
    return lock_folder() / f"{file}.lock"


def _lock_at_once(file: _OpenFile) -> bool:
    """Lock without waiting for a holder, but outlast those who only ask, for whom the lock is shared."""
    deadline = time.monotonic() + _PROBE_SECONDS
    while not file.lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
        held = not file.lock(fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file.number, fcntl.LOCK_UN)
        if held or time.monotonic() > deadline:
            return False
        time.sleep(random.uniform(0.0001, 0.002))  # random, for two who try at once stand in each other's way
    return True
