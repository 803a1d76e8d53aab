"""Files that are whole at every moment, however their writer ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
