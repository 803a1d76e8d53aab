"""Reader of named arrays, the contract for your own features: docs/custom_data.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmsa.data.prepare import Progress, silent
from mmsa.data.store import FOLDS, Prepared, Store, is_store
from mmsa.errors import DataError, printable
from mmsa.readers.array_file import ArrayFile
from mmsa.readers.ids import segment_ids
from mmsa.readers.rows import Utterance, check_required, float32, gather

MAIN = "target"
_SINGLE = ("fold", "id", "video", MAIN, "words")
_GROUPS = (MAIN, "features", "lengths", "offsets")
_NAME = re.compile(r"[A-Za-z]\w*")
_LONGEST_NAME = 80
_REMEDY = "type dataset.source=PATH of its source"  # a source is not to be removed
_CONTRACT = (
    "fold, id, video, target, target/NAME, features/NAME with lengths/NAME or offsets/NAME, words with offsets/words"
)


class Contents(NamedTuple):
    """The content of a file, by its header.

    Args:
        modalities: names of its features.
        targets: names of its targets, the main one first.
    """

    modalities: tuple[str, ...]
    targets: tuple[str, ...]


def contents(path: Path) -> Contents:
    """The content of a file, without reading an array.

    Raises:
        DataError: it is missing, damaged, or an array has another name than the contract's.
    """
    if is_store(path):
        store = _open_store(path)
        return Contents(tuple(store.features), tuple(store.targets))
    return _Reader(path).contents()


def read_arrays(path: Path, required: Sequence[str], progress: Progress, folder: Path | None = None) -> Prepared:
    """Read a file of named arrays, or a store.

    Rows are ordered by fold, video and segment, where no video is named those that the ids say. A value that is not
    finite becomes 0 and is counted; rows whose target is not finite, or that have no step in any modality (and, where
    there is none, no word), are dropped and reported. A length of 0 is an absent modality.

    Args:
        path: .npz, HDF5, or a store made by `mmsa prepare`.
        required: modalities that have to be there.
        progress: shown per modality.
        folder: has room for the features until they are in the store; None holds them in memory.

    Raises:
        DataError: an array is missing, of another type or shape than the contract's, or at odds with another one.
    """
    if not is_store(path):
        return _Reader(path, folder).read(required, progress)
    store = _open_store(path)
    _check_values(store)
    check_required(required, list(store.features), f"dataset.source={path}")
    report = {key: value for key, value in store.report.items() if key != "glove"}
    folds = store.folds.tolist()
    return Prepared(store.ids, store.videos, folds, store.targets, store.features, store.words, report)


def _open_store(path: Path) -> Store:
    return Store.open(path, _REMEDY)


def _check_values(store: Store) -> None:
    """Refuse numbers that no store of ours holds."""
    held = chain(
        store.targets.items(), ((name, block) for name, ragged in store.features.items() for block in ragged.blocks())
    )
    for name, block in held:
        if not np.isfinite(block).all():
            raise DataError(f"{store.path} is a damaged store: {name} holds values that are not finite.\n  {_REMEDY}")


def read_unlabelled(path: Path, folder: Path | None = None) -> Prepared:
    """As `read_arrays`, of utterances to predict: their targets are not read, and need not be there, as their folds."""
    return _Reader(path, folder, option="--input ").unlabelled()


class _Reader:
    """One file, checked array by array."""

    def __init__(self, path: Path, folder: Path | None = None, option: str = "dataset.source=") -> None:
        self._file, self._folder, self._named = ArrayFile(path, option), folder, f"{option}{path}"
        self._headers = self._file.headers
        self._has_words = "words" in self._headers
        self._counted = "fold" if "fold" in self._headers else "id"
        for name in self._headers:
            group, _, own = name.partition("/")
            known = group in _GROUPS and _NAME.fullmatch(own) and len(own) <= _LONGEST_NAME
            if name not in _SINGLE and not known:
                shown = printable(name[:_LONGEST_NAME])
                raise self._refused(f"the array {shown} is none of {_CONTRACT}", "one of these names, or leave it out")

    def contents(self) -> Contents:
        named = tuple(name.partition("/")[2] for name in self._headers if name.startswith(f"{MAIN}/"))
        targets = ((MAIN,) if MAIN in self._headers else ()) + named
        if not targets:
            raise self._refused("it has no target", "an array target (N,), or target/NAME")
        return Contents(self._modalities(), targets)

    def _modalities(self) -> tuple[str, ...]:
        """Names of its features."""
        modalities = tuple(name.partition("/")[2] for name in self._headers if name.startswith("features/"))
        for name in self._headers:
            group, _, own = name.partition("/")
            if group in ("lengths", "offsets") and own not in (*modalities, *(["words"] if self._has_words else [])):
                raise self._refused(f"it has {name}, and no {_owner(own)}", f"the array {_owner(own)}, or leave it out")
        if not modalities and not self._has_words:
            raise self._refused("it has no features", "an array features/NAME")
        return modalities

    def read(self, required: Sequence[str], progress: Progress) -> Prepared:
        held = self.contents()
        check_required(required, held.modalities, self._named)
        folds = self._strings("fold")
        targets = {name: self._target(name, len(folds)) for name in held.targets}
        return self._prepared(folds, targets, held.modalities, progress)

    def unlabelled(self) -> Prepared:
        """All rows as of the test fold, or of theirs, without targets."""
        modalities = self._modalities()
        folds = self._strings("fold") if "fold" in self._headers else [FOLDS[-1]] * len(self._strings("id"))
        return self._prepared(folds, {}, modalities, silent)

    def _prepared(
        self, folds: list[str], targets: Mapping[str, np.ndarray], modalities: Sequence[str], progress: Progress
    ) -> Prepared:
        odd = sorted(set(folds) - set(FOLDS))
        if odd:
            raise self._refused(
                f"fold holds {odd[0][:_LONGEST_NAME]!r}, and only {', '.join(FOLDS)} are folds", "one of these"
            )
        count = len(folds)
        ids = self._strings("id", count)
        repeated = [name for name, times in Counter(ids).items() if times > 1]
        if repeated or "" in ids:
            raise self._refused(
                f"id holds {(repeated or [''])[0][:_LONGEST_NAME]!r} twice or empty", "another id for each utterance"
            )
        parts = {m: self._features(m, count) for m in progress(modalities, "reading arrays", len(modalities))}
        words = self._words(count) if self._has_words else None
        videos = self._strings("video", count) if "video" in self._headers else None
        places = segment_ids(ids)[0] if videos is None else zip(videos, range(count), strict=True)
        rows = [
            Utterance(
                folds[i],
                *place,
                {name: values[i] for name, values in targets.items()},
                {m: steps[i] for m, steps in parts.items()},
                words[i] if words is not None else None,
                ids[i],
            )
            for i, place in enumerate(places)
        ]
        try:
            return gather(rows, {}, modalities, self._folder)
        except DataError as error:
            raise self._refused(str(error).rstrip("."), "arrays that hold values") from error

    def _strings(self, name: str, count: int | None = None) -> list[str]:
        return self._array(name, "string", "(N,)", count).tolist()

    def _target(self, name: str, count: int) -> np.ndarray:
        place = MAIN if name == MAIN and MAIN in self._headers else f"{MAIN}/{name}"
        values = float32(self._array(place, "number", "(N,) or (N, K)", count))
        return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values

    def _features(self, modality: str, count: int) -> list[np.ndarray]:
        """The steps (T_i, D) of every row."""
        place = f"features/{modality}"
        by_length, by_offset = f"lengths/{modality}" in self._headers, f"offsets/{modality}" in self._headers
        shape = self._headers[place].shape
        if by_length == by_offset:
            both = "both" if by_length else "neither"
            raise self._refused(
                f"{place} of shape {shape} has {both} of lengths/{modality} and offsets/{modality}",
                f"one: lengths/{modality} (N,) for (N, T, D), offsets/{modality} (N+1,) for (steps, D); "
                "one step for each row is np.arange(N + 1)",
            )
        if not by_length:
            values = self._array(place, "number", "(steps, D)")
            return self._cut(values, modality, count)
        values = self._array(place, "number", "(N, T, D)", count)
        lengths = self._array(f"lengths/{modality}", "number", "(N,)", count)
        wrong = (lengths != np.floor(lengths)) | (lengths < 0) | (lengths > values.shape[1])
        if wrong.any():
            raise self._refused(
                f"lengths/{modality} holds {lengths[wrong][0]}, and {place} has {values.shape[1]} steps",
                f"whole numbers from 0 to {values.shape[1]}",
            )
        return [row[: int(length)] for row, length in zip(values, lengths, strict=True)]

    def _words(self, count: int) -> list[list[str]]:
        if "offsets/words" not in self._headers:
            raise self._refused("words has no offsets/words", "offsets/words (N+1,): where each row's words begin")
        flat = self._array("words", "string", "(words,)")
        return [part.tolist() for part in self._cut(flat, "words", count)]

    def _cut(self, values: np.ndarray, name: str, count: int) -> list[np.ndarray]:
        """What lies between two offsets, of every row."""
        place = f"offsets/{name}"
        offsets = self._array(place, "number", "(N+1,)")
        offsets = offsets.astype(np.int64 if offsets.dtype.kind == "i" else np.float64)  # differences must not wrap
        if len(offsets) != count + 1:
            raise self._refused(
                f"{place} has shape {offsets.shape}, and {self._counted} has {count} entries",
                f"{place} of shape ({count + 1},)",
            )
        whole = (offsets == np.floor(offsets)).all()
        if not whole or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
            raise self._refused(
                f"{place} runs from {offsets[0]} to {offsets[-1]}, and {_owner(name)} has {len(values)} entries",
                f"whole numbers from 0 to {len(values)} that never fall: np.concatenate([[0], np.cumsum(lengths)])",
            )
        return np.split(values, offsets[1:-1].astype(np.int64))

    def _array(self, name: str, kind: str, axes: str, count: int | None = None) -> np.ndarray:
        """One array of this kind and these axes, the first of them `count` long and no column without numbers."""
        if name not in self._headers:
            raise self._refused(f"it has no array {name}", f"{name}: {kind}s {axes}")
        header = self._headers[name]
        accepted = [len(re.findall(r"[^(), ]+", of_one)) for of_one in axes.split(" or ")]  # "(N, T, D)" are three
        if header.kind != kind or len(header.shape) not in accepted or header.shape[1:][-1:] == (0,):
            raise self._refused(
                f"{name} is {header.kind}s of shape {header.shape}, and {kind}s {axes} are required",
                f"{name} as an array of {kind}s {axes}",
            )
        if count is not None and header.shape[0] != count:
            raise self._refused(
                f"{name} has shape {header.shape}, and {self._counted} has {count} entries",
                f"{name} with {count} rows, one per entry of {self._counted}",
            )
        return self._file.read(name)

    def _refused(self, said: str, wanted: str) -> DataError:
        return DataError(f"{self._named}: {said}.\n  write {wanted} (docs/custom_data.md)")


def _owner(name: str) -> str:
    return "words" if name == "words" else f"features/{name}"
