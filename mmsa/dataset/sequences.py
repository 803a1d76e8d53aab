"""Data sets of computational sequences, the files of CMU's SDK, or of a pickle that others made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.data.word_vectors import TEXT
from mmsa.dataset.dataset import Dataset, Format, Found
from mmsa.dataset.pickles import find_pickles
from mmsa.errors import DataError
from mmsa.readers.computational_sequences import find_sequences, read_sequences

SDK_ORIGIN = "The sequences come with the CMU-MultimodalSDK (github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK)"


class Sequences(Format):
    """A folder of the sequences that the data set states, or a pickle of a family of mmsa.readers.families."""

    def find(self, dataset: Dataset, source: Path) -> Found:
        """The sequences of a folder that has any of this data set, else the pickles."""
        found = {}
        if source.is_dir() and any(source.glob("*.csd")):
            found = find_sequences(source, dataset.sequences, dataset.feature_sets)
        if not found and (pickles := find_pickles(dataset, source)) is not None:
            return pickles
        files = _files(dataset, source, found)
        modalities = [m for m in dataset.known if m in files or (m == TEXT and dataset.glove is not None)]
        return Found(files, partial(read_aligned, dataset, source, files, dataset.label_columns), modalities)

    def wanted(self, dataset: Dataset) -> tuple[str, str]:
        """The folder, and where it serves a pickle."""
        files = ", ".join(f"{dataset.sequences[role][0]}.csd" for role in roles(dataset, dataset.needed))
        said = f"{dataset.title} is read from a folder with {files}"
        if dataset.keep_pauses or dataset.glove is not None:  # a pickle has no pauses, and not the word of every step
            return f"{said}.", "FOLDER"
        return f"{said}, or from MMSA's aligned_50.pkl.", "FOLDER_OR_FILE"


def read_aligned(
    dataset: Dataset,
    source: Path,
    files: Mapping[str, Path],
    label_columns: Sequence[str],
    folder: Path,
    progress: Progress,
) -> Prepared:
    """Read sequences of a data set, aligned to the words; a modality that has no file is not read."""
    return read_sequences(
        files,
        fold_of=dataset.fold_of(source),
        keep_pauses=dataset.keep_pauses,
        modalities=[m for m in dataset.known if m in files],
        label_columns=label_columns,
        folder=folder,
        progress=progress,
    )


def _files(dataset: Dataset, source: Path, found: Mapping[str, Path]) -> dict[str, Path]:
    """The sequences of a folder that are read, unless there are too few."""
    if not found:
        pickles = sorted(filter(Path.is_file, source.glob("*.pkl")))
        instead = f" Did you mean dataset.source={pickles[0]}?" if pickles else ""
        raise DataError(f"dataset.source={source} holds no {dataset.title} sequence.{instead}\n{dataset.wanted()}")
    missing = [role for role in roles(dataset, dataset.needed) if role not in found]
    if missing:
        names = {role: " or ".join(f"{name}.csd" for name in dataset.sequences[role]) for role in missing}
        wanted = "; ".join(f"{role}: {accepted}" for role, accepted in names.items())
        present = dataset.present(found)
        vectors = ", or give word vectors: dataset.glove=FILE" if TEXT in missing else ""
        without = f" Put it there{vectors}, or go without: dataset.modalities=[{','.join(present)}]"
        if not present or not {"words", "labels"} <= found.keys():
            without = ""
        raise DataError(f"dataset.source={source} lacks {wanted}.{without}")
    return {role: path for role, path in found.items() if role != TEXT or dataset.glove is None}


def roles(dataset: Dataset, modalities: Sequence[str]) -> list[str]:
    """The sequences of these modalities, with those of the words and labels."""
    return ["words", *(m for m in modalities if m != TEXT or dataset.glove is None), "labels"]
