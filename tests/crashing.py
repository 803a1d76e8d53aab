"""Crash points: what a process leaves that ends at one of its durable writes, and what becomes of it when one fails.

A durable write opens a file to write, renames, removes or makes something, or commits to an SQLite database. A process
that is killed leaves its files as they are: a copy of the folder at each write is what a crash there would leave, and
one undisturbed process shows all of them.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


class Writes:
    """Watches the durable writes of this process below a folder, for as long as it lives.

    Args:
        root: the folder.
        act: called before each with its number, from 1, what it does, and the path of the file that it opens to write.
    """

    def __init__(self, root: Path, act: Callable[[int, str, Path | None], None]) -> None:
        self.root, self.act = f"{root}{os.sep}", act
        self.count = 0
        self._acting = False
        sys.addaudithook(self._heard)
        writes, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def commit(self) -> None:
                if self.in_transaction:
                    writes.happens(f"commit {self.file}")
                super().commit()

        def connected(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
            if not str(database).startswith(writes.root):
                return connect(database, *arguments, **options)
            made = connect(database, *arguments, factory=Connection, **options)
            made.file = Path(str(database)).name  # type: ignore[attr-defined]
            return made

        sqlite3.connect = sqlite3.dbapi2.connect = connected  # type: ignore[assignment,attr-defined]

    def happens(self, what: str, opened: Path | None = None) -> None:
        """Count a write, and act."""
        if self._acting:
            return
        self.count += 1
        self._acting = True
        try:
            self.act(self.count, what, opened)
        finally:
            self._acting = False

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        path = os.path.abspath(os.fsdecode(arguments[0])) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if not path.startswith(self.root) or path.endswith(".lock"):  # a lock's text says nothing
            return
        if event != "open":
            self.happens(f"{event} {path.removeprefix(self.root)}")
        elif arguments[2] & WRITING and not os.path.isdir(path):  # that is a file without a name
            self.happens(f"write {path.removeprefix(self.root)}", Path(path))


def copies(root: Path, folder: Path, wanted: Callable[[int], bool]) -> Callable[[int, str, Path | None], None]:
    """Keeps a copy of `root` as a crash at each wanted write leaves it, in `folder`/NUMBER, and what the write does.

    A file that is opened to write is left half written.
    """

    def act(number: int, what: str, opened: Path | None) -> None:
        with (folder / "writes").open("a") as file:
            file.write(f"{number} {what}\n")
        if wanted(number):
            copy = folder / str(number)
            shutil.copytree(root, copy, symlinks=True)
            if opened is not None:
                half = copy / opened.relative_to(root)
                half.parent.mkdir(parents=True, exist_ok=True)
                half.write_bytes(b"half")

    return act


def dies(at: int) -> Callable[[int, str, Path | None], None]:
    """Ends the process at its write of that number, as SIGKILL would."""

    def act(number: int, what: str, opened: Path | None) -> None:
        if number == at:
            if opened is not None:
                opened.write_bytes(b"half")
            os._exit(137)

    return act


ERRORS = {"full": errno.ENOSPC, "denied": errno.EACCES, "locked": None}
"""Why writes fail: the disk is full, a folder is no longer ours, or another process keeps the databases locked."""


def fails(at: int, why: str) -> Callable[[int, str, Path | None], None]:
    """Lets the write of that number fail, and all later ones, for one of the `ERRORS`.

    A full disk takes no more weights. It takes small files again when the room that a run keeps is given back.
    """
    number_of, room = ERRORS[why], False

    def act(number: int, what: str, opened: Path | None) -> None:
        nonlocal room
        removes = what.startswith(("os.remove", "os.rmdir"))
        room = room or (number >= at and removes and what.endswith("/.room.tmp"))
        if number < at or (why == "locked" and what.endswith("probe.db")):  # which nobody else has open
            return
        if why == "full" and (removes or (room and ".pt" not in what)):
            return
        if what.startswith("commit"):
            texts = {"full": "database or disk is full", "denied": "attempt to write a readonly database"}
            raise sqlite3.OperationalError(texts.get(why, "database is locked"))
        if number_of is not None:
            raise OSError(number_of, os.strerror(number_of), str(opened or what.partition(" ")[2]))

    return act
