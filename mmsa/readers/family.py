"""A family of source files: a module that recognises its content and reads it.

`read` takes what `matches` or `find` has recognised, and may let go of its arrays. It raises a DataError where a file
is damaged or not of this layout, its parts do not fit together, or a required modality is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.errors import printable

_SHOWN_KEYS = 8


@dataclass(frozen=True)
class ReadOptions:
    """The request to a reader.

    Args:
        required: modalities that have to be there; the others are read where the source has them.
        context: UR-FUNNY: the context sentences before the punchline too.
        folder: has room for the features until they are in the store; None holds them in memory.
    """

    required: tuple[str, ...] = ()
    context: bool = False
    folder: Path | None = None


class FileFamily(Protocol):
    """A module that reads the content of one pickle."""

    FAMILY: str

    def matches(self, content: Any) -> bool: ...

    def read(self, content: Any, options: ReadOptions, progress: Progress) -> Prepared: ...


class FolderFamily(Protocol):
    """A module that reads a folder of pickles."""

    FAMILY: str

    def find(self, folder: Path) -> dict[str, Path] | None: ...

    def read(self, files: Mapping[str, Path], options: ReadOptions, progress: Progress) -> Prepared: ...


def describe(content: object) -> str:
    """The top level of an unpickled object in a few words, such as "a list of 3 dict"."""
    if isinstance(content, dict):
        keys = [printable(str(key)[:40]) for key in list(content)[:_SHOWN_KEYS]]
        return f"a dict of {', '.join(keys)}{', …' if len(content) > _SHOWN_KEYS else ''}" if keys else "an empty dict"
    if isinstance(content, list | tuple | set):
        kind = type(content).__name__
        if not content:
            return f"an empty {kind}"
        kinds = sorted({type(element).__name__ for element in content})
        return f"a {kind} of {len(content)} {' and '.join(kinds)}"
    shape = f" of shape {content.shape}" if hasattr(content, "shape") else ""
    return f"one object of type {type(content).__name__}{shape}"
