"""Files that are whole at every moment, however their writer ends; and those that anybody may have written."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LARGEST = 2**24
"""Bytes of the largest file of values or of a table that is read whole."""
STALE = 3600.0
"""Seconds after which a half-made file cannot be a living process's: it is written in one go."""
_ROOM, _ROOM_BYTES = ".room.tmp", 2**19


def content_of(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a file that anybody may have written; a pipe or a device there is not waited for.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or has more than `largest` bytes.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("is no file")
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"has more than {largest:,} bytes")
    return content


@contextmanager
def written(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """A file to write, under a temporary name that becomes `path` when it is whole, and goes where it is not.

    Args:
        path: of the whole file.
        size: the bytes that it will have, as far as is known.

    Raises:
        OSError: the disk is full, say; its `filename` is `path`, and its `needed` is `size`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
            error.needed = size  # type: ignore[attr-defined]
        raise


def clear_leftovers(folder: Path) -> None:
    """Remove the leftovers of killed writers from a folder, and below it, in which nobody writes now."""
    for leftover in folder.rglob(".*.tmp"):
        with suppress(OSError):
            leftover.unlink()


def stale(leftover: Path) -> bool:
    """Whether a half-made file or folder is too old to be a living process's."""
    try:
        return time.time() - leftover.stat().st_mtime > STALE
    except FileNotFoundError:  # its own process has just finished it
        return False


def remove_all(paths: Iterable[Path]) -> None:
    """Remove files and folders, as far as that is possible."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def is_full(error: BaseException) -> bool:
    """Whether something could not be written because the disk, or what its owner may use of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def keep_room(folder: Path) -> None:
    """Take room in a folder, so that a record, a few lines and a tracker's entry find some when the disk is full.

    Raises:
        OSError: there is none.
    """
    with written(folder / _ROOM, _ROOM_BYTES) as file:
        file.write(os.urandom(_ROOM_BYTES))  # which no file system makes smaller


def give_room(folder: Path) -> None:
    """Give the room back."""
    (folder / _ROOM).unlink(missing_ok=True)
