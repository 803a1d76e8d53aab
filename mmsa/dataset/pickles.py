"""Data sets that others' files hold whole, aligned and in folds: no computational sequence makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmsa.data.prepare import Progress, readable
from mmsa.data.store import Prepared
from mmsa.data.word_vectors import TEXT
from mmsa.dataset.dataset import Dataset, Format, Found
from mmsa.errors import DataError
from mmsa.readers import families
from mmsa.readers.family import ReadOptions
from mmsa.readers.mistaken import HDF5_START, mistaken, no_file

_PICKLE_SIGNATURE = b"\x80"
_DATASET_OF = {"sentiment": "cmu_mosi, or cmu_mosei", "humor": "ur_funny", "sarcasm": "mustard"}
"""Where files go, by their target."""


@dataclass(frozen=True)
class Pickles(Format):
    """One pickle, or a folder of pickles, of a family of mmsa.readers.families.

    Args:
        files: the files that are read, in words.
        place: their placeholder in commands.
        context: UR-FUNNY: the sentences before the punchline are read too.
    """

    files: str
    place: str = "FILE"
    context: bool = False

    def find(self, dataset: Dataset, source: Path) -> Found:
        found = find_pickles(dataset, source, self.context)
        if found is None:
            pickles = sorted(filter(Path.is_file, source.glob("*.pkl")))
            instead = f" Did you mean dataset.source={pickles[0]}?" if pickles and self.place == "FILE" else ""
            raise DataError(f"dataset.source={source} is a folder without a known file.{instead}\n{dataset.wanted()}")
        return found

    def wanted(self, dataset: Dataset) -> tuple[str, str]:
        return f"{dataset.title} is read from {self.files}.", self.place


def find_pickles(dataset: Dataset, source: Path, context: bool = False) -> Found | None:
    """The pickle of a data set, or a folder's; None for a folder of no family.

    Raises:
        DataError: the source is missing or another kind of file.
    """
    if source.is_dir():
        whole = families.recognise_folder(source)
        if whole is None:
            return None
        files = whole[1]
    else:
        _check_file(dataset, source)
        files = {"pickle": source}
    if context and "folds" not in files:
        raise DataError(
            f"dataset.context=true: only UR-FUNNY's own folder has the context, and dataset.source={source} is "
            "another layout, of the punchlines.\n  type dataset.context=false, or dataset.source=FOLDER"
        )

    def read(folder: Path, progress: Progress) -> Prepared:
        required = tuple(m for m in dataset.needed if m != TEXT or dataset.glove is None)
        read_family = families.read_folder if source.is_dir() else families.read_file
        prepared = read_family(source, ReadOptions(required, context, folder), progress)
        _check_target(prepared, next(iter(dataset.kinds)), source, dataset.title)
        if dataset.glove is not None:
            _check_words(prepared, source)
        return prepared

    return Found(files, read, options=dataset.options_of_family)


def _check_file(dataset: Dataset, source: Path) -> None:
    """Refuse what cannot be a pickle."""
    if not source.is_file():
        raise DataError(f"dataset.source={source} {no_file(source)}.\n{dataset.wanted()}")
    with readable(source), open(source, "rb") as file:
        start = file.read(len(HDF5_START))
    if start == HDF5_START and dataset.sequences and source.suffix == ".csd":
        raise DataError(
            f"dataset.source={source} is one HDF5 file. Give the folder that holds all sequences: "
            f"dataset.source={source.parent}"
        )
    if not start.startswith(_PICKLE_SIGNATURE) and source.suffix not in (".pkl", ".pickle"):
        other = f"dataset.source={source} is neither a folder nor a pickle.\n{dataset.wanted()}"
        raise DataError(mistaken(source) or other)


def _check_target(prepared: Prepared, target: str, source: Path, title: str) -> None:
    """Refuse the file of a data set that has another main target."""
    if target not in prepared.targets:
        held = next(iter(prepared.targets))
        other = _DATASET_OF.get(held, "custom, with a file of named arrays: docs/custom_data.md")
        raise DataError(
            f"dataset.source={source} is {prepared.report['family']}'s layout with labels of {held}, and those of "
            f"{title} are of {target}.\n  type dataset={other}"
        )


def _check_words(prepared: Prepared, source: Path) -> None:
    """Refuse rows whose steps are not one per word, where GloVe's vectors are to be their text."""
    said = None if prepared.words is None else [len(words) for words in prepared.words]
    if any(ragged.lengths.tolist() != said for ragged in prepared.features.values()):
        raise DataError(
            f"dataset.glove needs the word of every step, and {source} is a pickle, which lacks it.\n"
            "  type dataset.glove=null, or dataset.source=FOLDER of computational sequences (.csd)"
        )
