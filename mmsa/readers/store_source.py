"""A prepared store as a source: it may come from anyone, so it is checked like any other file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from mmsa.data.store import FOLDS, FORMAT, Ragged, Store
from mmsa.errors import DataError, printable
from mmsa.readers.allowance import Allowance
from mmsa.readers.hdf5_entries import DAMAGE, arrays, is_text, read

_LONGEST = 300
_DEEPEST = 3  # features/NAME/values


def is_store(path: Path) -> bool:
    """Whether a file says that it is a store."""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with h5py.File(path, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except (LookupError, OSError, RuntimeError, ValueError):  # no HDF5, or damaged: the reader says what it is
        return False


def open_store(path: Path) -> Store:
    """A store that is whole and lies in its own file; its features are not read.

    Raises:
        DataError: it is damaged, of another version, refers to another file, or its parts do not fit together.
    """
    try:
        num_words = _look_at(path)
        store = Store.open(path)
        wrong = next(_contradictions(store, num_words), None)
    except (*DAMAGE, DataError) as error:
        # A store may be removed, since it can be made again; a source may not.
        wrong = " ".join(str(error).partition(" Type rm")[0].split()).rstrip(".") or type(error).__name__
    if wrong is not None:
        raise _damaged(path, printable(wrong[:_LONGEST]))
    return store


def check_values(store: Store) -> None:
    """Refuse features that no store of ours holds.

    Raises:
        DataError: one is not finite.
    """
    for modality, ragged in store.features.items():
        if not all(np.isfinite(block).all() for block in ragged.blocks()):
            raise _damaged(store.path, f"{modality} holds values that are not finite")


def _damaged(path: Path, wrong: str) -> DataError:
    return DataError(f"dataset.source={path} is a damaged store: {wrong}.\n  type dataset.source=PATH of its source")


def _look_at(path: Path) -> int:
    """How many words it holds, after a look at all its arrays."""
    with h5py.File(path, "r") as file:
        allowance = Allowance(path, path.stat().st_size)
        for name, dataset in arrays(file, _DEEPEST):
            if is_text(dataset):
                read(dataset, allowance)  # how long it is only reading tells
            else:
                allowance.pay(dataset.nbytes)
            mapped = name.startswith("features/") and name.endswith("/values")
            if mapped and dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
                raise ValueError(f"{name} is not in one piece")
        return int(file["words/values"].size) if "words" in file else 0


def _contradictions(store: Store, num_words: int) -> Iterator[str]:
    """The contradictions in a store of `words` words, part by part."""
    count, folds = len(store.ids), store.folds.tolist()
    places = [FOLDS.index(fold) for fold in folds]  # ValueError: another fold
    if len(store.videos) != count or len(places) != count or places != sorted(places):
        yield "its ids, videos and folds do not fit together"
    for name, target in store.targets.items():
        if target.dtype != np.float32 or target.shape[:1] != (count,) or not np.isfinite(target).all():
            yield f"the target {name} is {target.dtype} of shape {target.shape}, for {count} utterances"
    if not store.targets:
        yield "it has no target"
    for modality, ragged in store.features.items():
        if not _fits(ragged, count):
            yield f"the features of {modality} and their offsets do not fit together"
    said = [len(words) for words in store.words or ()]
    if store.words is not None and (len(said) != count or sum(said) != num_words):
        yield "its words are not those of its utterances"
    non_finite, dropped = (store.report.get(key) for key in ("non_finite", "dropped"))
    if not _is_table(non_finite, int) or not _is_table(dropped, list):
        yield "its report is not one of ours"


def _fits(ragged: Ragged, count: int) -> bool:
    values, offsets = ragged.values, ragged.offsets
    return (
        values.dtype == np.float32
        and values.ndim == 2
        and values.shape[1] > 0
        and offsets.dtype == np.int64
        and offsets.shape == (count + 1,)
        and offsets[0] == 0
        and offsets[-1] == len(values)
        and all(start <= stop for start, stop in pairwise(offsets.tolist()))
    )


def _is_table(table: object, kind: type) -> bool:
    return isinstance(table, dict) and all(isinstance(value, kind) for value in table.values())
