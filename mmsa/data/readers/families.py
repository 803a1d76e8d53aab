"""The families of source files: which one a file or a folder is, told from its content, and its reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.readers.ids import as_text
from mmsa.data.readers.pickle_machine import printable
from mmsa.data.readers.restricted_pickle import load_pickle
from mmsa.data.readers.rows import by_fold
from mmsa.data.store import Prepared
from mmsa.errors import DataError

# In the order of asking: the first that knows the content reads it.
_OF_A_FILE = ("mmsa_pickle", "multibench_pickle", "mult_pickle", "mag_pickle")
_OF_A_FOLDER = ("ur_funny", "misa_pickle", "mag_pickle")
_KEYS = {
    "visual": "vision",
    "acoustic": "audio",
    "visual_lengths": "vision_lengths",
    "acoustic_lengths": "audio_lengths",
}
"""What others call the parts of a fold."""
READING = 2
"""Changes whenever something else is read of one file, so that the stores which were made before are made again."""
_SHOWN_KEYS = 8
_LONGEST_LINE = 700
_ODD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class ReadOptions:
    """What a reader is asked for.

    Args:
        required: modalities that have to be there; the others are read where the source has them.
        context: UR-FUNNY: the context sentences before the punchline too.
        canonical: published number of utterances per fold, for the report; empty where nothing is published.
    """

    required: tuple[str, ...] = ()
    context: bool = False
    canonical: Mapping[str, int] = field(default_factory=dict)


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


def recognise_file(content: object) -> FileFamily:
    """The family of an unpickled object.

    Raises:
        DataError: it is none's; the message says what it is and which families there are.
    """
    known = [cast(FileFamily, _module(name)) for name in _OF_A_FILE]
    for family in known:
        if family.matches(content):
            return family
    folds = by_fold(content)
    if folds is None:
        names = ", ".join(family.FAMILY for family in known)
        wanted = f"a pickle of {names} is a dict of train, valid (or dev) and test."
    else:
        held = " and ".join(sorted({describe(part) for part in folds.values()}))
        wanted = (
            f"its folds are {held}, and those of MMSA are dicts with regression_labels, of MultiBench and MulT dicts "
            "with labels and text, audio or vision, of MAG lists of ((words, visual, acoustic), label, segment)."
        )
    raise DataError(f"it holds {describe(content)}, which is no known layout: {wanted}")


def recognise_folder(folder: Path) -> tuple[FolderFamily, dict[str, Path]] | None:
    """The family of a folder of pickles and its files by their roles; None where it is none's."""
    for name in _OF_A_FOLDER:
        family = cast(FolderFamily, _module(name))
        files = family.find(folder)
        if files is not None:
            return family, files
    return None


def read_file(path: Path, options: ReadOptions, progress: Progress) -> Prepared:
    """Read one pickle of any family.

    Raises:
        DataError: the file is damaged, of no known family, or not what its family states.
    """
    content = _named_alike(load_pickle(path))
    try:
        family = recognise_file(content)
    except DataError as error:
        whole = recognise_folder(path.parent)
        if whole is not None and path in whole[1].values():
            raise DataError(
                f"{path} is one of the files of {whole[0].FAMILY}, which are read together.\n"
                f"  type dataset.source={path.parent}"
            ) from error
        raise DataError(f"{path}: {error}") from error
    return _read(family.read, content, options, progress, path, family.FAMILY)


def read_folder(folder: Path, options: ReadOptions, progress: Progress) -> Prepared:
    """Read a folder that `recognise_folder` knows.

    Raises:
        DataError: the folder is of no known family, a file is damaged, or not what its family states.
    """
    whole = recognise_folder(folder)
    if whole is None:
        raise DataError(f"{folder} holds the files of no known family.")
    family, files = whole
    return _read(family.read, files, options, progress, folder, family.FAMILY)


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


def _read(
    read: Callable[[Any, ReadOptions, Progress], Prepared],
    content: Any,
    options: ReadOptions,
    progress: Progress,
    source: Path,
    family: str,
) -> Prepared:
    """What a family's module reads, with what every family reports; its errors name the source."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is not finite, and counted as that
            prepared = read(content, options, progress)
    except DataError as error:
        said = _brief(str(error))
        raise DataError(said if str(source) in said else f"{source}: {said}") from error
    except _ODD as error:  # a stranger's content is odd in more ways than a reader foresees
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{source}: its parts are not what {family}'s layout states ({type(error).__name__}: {reason})."
        ) from error
    for name in (*prepared.ids, *(word for words in prepared.words or () for word in words)):
        if "\0" in name:
            raise DataError(f"{source}: an id or a word holds a zero character: {name[:60]!r}. Is the file damaged?")
    prepared.report["family"] = family
    prepared.report["folds"] = "those of the source"
    return prepared


def _named_alike(content: object) -> Any:
    """The folds of a pickle and their parts under the usual names, without what is None; anything else as it is."""
    folds = by_fold(content)
    return content if folds is None else {fold: _parts_named_alike(part) for fold, part in folds.items()}


def _parts_named_alike(part: object) -> object:
    if not isinstance(part, dict):
        return part
    named = {as_text(key): value for key, value in part.items() if value is not None}
    return {key if _KEYS.get(key, key) in named else _KEYS[key]: value for key, value in named.items()}


def _brief(message: str) -> str:
    """The message without what it quotes over several lines: its first line, and what to type."""
    first, *others = message.splitlines() or [""]
    return "\n".join([first[:_LONGEST_LINE], *(line for line in others if line.startswith("  type"))])


def _module(name: str) -> object:
    """A family's module, imported here since it imports this one for `ReadOptions`."""
    return import_module(f"mmsa.data.readers.{name}")
