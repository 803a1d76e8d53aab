"""Files that are whole at every moment, however their writer ends; and those that anybody may have written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LARGEST = 2**24
"""Bytes of the largest file of values or of a table that is read whole."""


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
def written(path: Path) -> Iterator[BinaryIO]:
    """A file to write, under a temporary name that becomes `path` when it is whole, and goes where it is not.

    Raises:
        OSError: the disk is full, say; its `filename` is `path`.
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
        raise


def clear_leftovers(folder: Path) -> None:
    """Remove the leftovers of killed writers from a folder, and below it, in which nobody writes now."""
    for leftover in folder.rglob(".*.tmp"):
        with suppress(OSError):
            leftover.unlink()
