"""The families of source files: recognised by content, and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.errors import DataError
from mmsa.readers import mag_pickle, misa_pickle, mmsa_pickle, mult_pickle, multibench_pickle, ur_funny
from mmsa.readers.family import FileFamily, FolderFamily, ReadOptions, describe
from mmsa.readers.ids import as_text
from mmsa.readers.restricted_pickle import load_pickle
from mmsa.readers.rows import by_fold

# In the order of asking: the first that knows the content reads it.
_OF_A_FILE: tuple[FileFamily, ...] = (mmsa_pickle, multibench_pickle, mult_pickle, mag_pickle)
_OF_A_FOLDER: tuple[FolderFamily, ...] = (ur_funny, misa_pickle, mag_pickle)
_KEYS = {
    "visual": "vision",
    "acoustic": "audio",
    "visual_lengths": "vision_lengths",
    "acoustic_lengths": "audio_lengths",
}
"""Other names of the parts of a fold."""
READING = 2
"""Changes whenever something else is read of one file, so that the stores which were made before are made again."""
_LONGEST_LINE = 700
_ODD = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def recognise_file(content: object) -> FileFamily:
    """The family of an unpickled object.

    Raises:
        DataError: it is none's; the message describes it and names the families.
    """
    for family in _OF_A_FILE:
        if family.matches(content):
            return family
    folds = by_fold(content)
    if folds is None:
        names = ", ".join(family.FAMILY for family in _OF_A_FILE)
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
    for family in _OF_A_FOLDER:
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
    return _read(family, content, options, progress, path)


def read_folder(folder: Path, options: ReadOptions, progress: Progress) -> Prepared:
    """Read a folder that `recognise_folder` knows.

    Raises:
        DataError: the folder is of no known family, a file is damaged, or not what its family states.
    """
    whole = recognise_folder(folder)
    if whole is None:
        raise DataError(f"{folder} holds the files of no known family.")
    family, files = whole
    return _read(family, files, options, progress, folder)


def _read(
    family: FileFamily | FolderFamily, content: Any, options: ReadOptions, progress: Progress, source: Path
) -> Prepared:
    """The result of a family's module, with the report of every family; its errors name the source."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is not finite, and counted as that
            prepared = family.read(content, options, progress)
    except DataError as error:
        first, *others = str(error).splitlines() or [""]  # without what it quotes over several lines
        said = "\n".join([first[:_LONGEST_LINE], *(line for line in others if line.startswith("  type"))])
        raise DataError(said if str(source) in said else f"{source}: {said}") from error
    except _ODD as error:  # a stranger's content is odd in more ways than a reader foresees
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{source}: its parts do not match {family.FAMILY}'s layout ({type(error).__name__}: {reason})."
        ) from error
    for name in (*prepared.ids, *(word for words in prepared.words or () for word in words)):
        if "\0" in name:
            raise DataError(f"{source}: an id or a word holds a zero character: {name[:60]!r}. Is the file damaged?")
    prepared.report.update(family=family.FAMILY, folds="those of the source")
    return prepared


def _named_alike(content: object) -> Any:
    """The folds of a pickle and their parts under the usual names, without None; anything else unchanged."""
    folds = by_fold(content)
    return content if folds is None else {fold: _parts_named_alike(part) for fold, part in folds.items()}


def _parts_named_alike(part: object) -> object:
    if not isinstance(part, dict):
        return part
    named = {as_text(key): value for key, value in part.items() if value is not None}
    return {key if _KEYS.get(key, key) in named else _KEYS[key]: value for key, value in named.items()}
