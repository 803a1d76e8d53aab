"""The layout that MISA and MAG share: per fold a list of ((words, visual, acoustic, …), label, segment), not padded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import as_text, name_rows
from mmsa.readers.rows import Utterance, as_steps, check_required, gather, numbers, sentiment_targets, words_said
from mmsa.readers.spool import put_aside

DRAWN_WIDTH = 300
"""Numbers of a random vector of a word: as many as GloVe has."""


@dataclass(frozen=True)
class Lexicon:
    """The vectors and words behind the words' numbers.

    Args:
        vectors: (V, D) float32 vector by number; None where the source has none, and so no text features.
        words: word by number, for samples that do not hold the words themselves.
    """

    vectors: np.ndarray | None = None
    words: Mapping[int, str] | None = None


def is_samples(samples: Any) -> bool:
    """Whether this is a list, tuple or array that begins with a sample, or an empty one."""
    if not isinstance(samples, list | tuple) and not (isinstance(samples, np.ndarray) and samples.ndim == 1):
        return False
    first = samples[0] if len(samples) else ((0, 0, 0), 0)
    parts = isinstance(first, list | tuple) and len(first) in (2, 3) and first[0]
    return isinstance(parts, list | tuple) and len(parts) >= 3


def read_samples(
    folds: Mapping[str, Sequence[Any]],
    lexicon: Lexicon,
    options: ReadOptions,
    progress: Progress,
    family: str,
    vectors_file: str | None = None,
) -> Prepared:
    """Read the samples of all folds.

    Samples without a segment, and with labels 0 or 1, are those of UR-FUNNY: their target is "humor", and each is a
    video of its own.

    Args:
        folds: of train, valid and test, each of which `is_samples`.
        lexicon: of the words' numbers.
        options: which modalities have to be there.
        progress: shown per fold.
        family: named in errors.
        vectors_file: name of the file of the word vectors, if the family has one.

    Raises:
        DataError: a required modality is missing, or a sample is not of this layout.
    """
    read: list[tuple[str, _Sample]] = []
    for fold in progress(FOLDS, f"reading {family}'s samples", len(FOLDS)):
        where = f"{family}'s samples, fold {fold}"
        read += [(fold, _Sample(sample, lexicon, f"{where}, row {i}")) for i, sample in enumerate(folds[fold])]
    samples = [sample for _, sample in read]
    _trim(samples)
    if (table := lexicon.vectors) is not None:
        _give_text(samples, (table[sample.ids] for sample in samples), options.folder)
    spoken = lexicon.vectors is None and all(sample.words is not None for sample in samples)
    drawn = _draw_text(samples, options.folder) if spoken else 0
    modalities = [m for m in ("text", "audio", "visual") if m != "text" or drawn or lexicon.vectors is not None]
    if "text" in options.required and "text" not in modalities:
        raise _without_vectors(family, vectors_file, [m for m in options.required if m != "text"])
    check_required(options.required, modalities, f"{family}'s layout")
    labels = _labels([sample.label for sample in samples], family)
    names, odd = name_rows({fold: [sample.segment for of, sample in read if of == fold] for fold in FOLDS})
    alone = odd.get("absent", 0) + odd.get("own_video", 0) == len(read)
    if alone and labels.shape[1] == 1 and set(np.unique(labels).tolist()) <= {0, 1}:
        targets = {"humor": labels[:, 0]}
    else:
        targets = sentiment_targets(labels, family)
    rows = []
    for i, ((fold, sample), name) in enumerate(zip(read, names, strict=True)):
        features = {modality: sample.features[modality] for modality in modalities}
        rows.append(Utterance(fold, *name, {key: target[i] for key, target in targets.items()}, features, sample.words))
    return gather(rows, {"ids": odd} | ({"drawn_vectors": drawn} if drawn else {}), folder=options.folder)


def _without_vectors(family: str, vectors_file: str | None, others: Sequence[str]) -> DataError:
    without = f"{family} keeps words by number, and their vectors are not there"
    rest = f"type dataset.modalities=[{','.join(others or ('audio', 'visual'))}]"
    if vectors_file is None:
        return DataError(f"{without}.\n  {rest}")
    return DataError(f"{without}: {vectors_file} is their file. Put it there, or\n  {rest}")


def _draw_text(samples: Sequence[_Sample], folder: Path | None) -> int:
    """Give each different word a random vector, the same in every file and run; returns how many there are.

    MISA itself starts words without a vector from such numbers. They distinguish words and have no meaning.
    """
    table: dict[str, np.ndarray] = {}

    def vectors(words: Sequence[str]) -> np.ndarray:
        for word in words:
            if word not in table:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
                table[word] = np.random.default_rng(seed).standard_normal(DRAWN_WIDTH).astype(np.float32)
        return np.stack([table[word] for word in words]) if words else np.zeros((0, DRAWN_WIDTH), np.float32)

    _give_text(samples, (vectors(sample.words or []) for sample in samples), folder)
    return len(table)


def _give_text(samples: Sequence[_Sample], vectors: Iterable[np.ndarray], folder: Path | None) -> None:
    for sample, steps in zip(samples, put_aside(vectors, folder), strict=True):
        sample.features["text"] = steps


class _Sample:
    """One sample, checked; `where` names it in errors."""

    def __init__(self, sample: Any, lexicon: Lexicon, where: str) -> None:
        if not is_samples([sample]):
            raise DataError(f"{where}: a tuple ((words, visual, acoustic, …), label, segment) is required.")
        parts, self.label = sample[0], sample[1]
        self.segment = sample[2] if len(sample) == 3 else None
        self.ids = np.zeros(0, np.int64)
        self.features = {
            "audio": as_steps(parts[2], f"{where}, acoustic"),
            "visual": as_steps(parts[1], f"{where}, visual"),
        }
        # MMIM adds the lengths of the two streams, which need not be the words'.
        stated = {"visual": parts[4], "audio": parts[5]} if len(parts) >= 6 else {}
        self.beyond = {m: _beyond(self.features[m], length, where) for m, length in stated.items()}
        self.words = _spoken(parts[3] if len(parts) > 3 else parts[0])
        if lexicon.vectors is not None or (self.words is None and lexicon.words is not None):
            self._look_up(parts[0], lexicon, where)

    def _look_up(self, words: Any, lexicon: Lexicon, where: str) -> None:
        ids = numbers(words, f"{where}, words", num_axes=1).astype(np.int64)
        if lexicon.vectors is not None:
            outside = ids[(ids < 0) | (ids >= len(lexicon.vectors))]
            if len(outside):
                raise DataError(
                    f"{where}: word {outside[0]} of a table of {len(lexicon.vectors)} vectors: "
                    "the samples and embedding_and_mapping.pt are not of the same corpus."
                )
            self.ids = ids
        if self.words is None and lexicon.words is not None:
            self.words = [lexicon.words.get(number, "unk") for number in ids.tolist()]


def _spoken(said: Any) -> list[str] | None:
    """The words, one per step; None where these are numbers."""
    words = said.ravel().tolist() if isinstance(said, np.ndarray) else said
    if isinstance(words, list | tuple) and all(isinstance(word, str | bytes) for word in words):
        return [as_text(word) for word in words]
    return words_said(words) if isinstance(words, str | bytes) else None


def _beyond(steps: np.ndarray, length: Any, where: str) -> int:
    """How many of the steps are padding."""
    stated = numbers(length, f"{where}, length").reshape(-1)
    if stated.size != 1 or not stated[0] >= 0:
        raise DataError(f"{where}: a length >= 0 is required, got {length!r}.")
    return int(max(0, len(steps) - stated[0]))


def _trim(samples: Sequence[_Sample]) -> None:
    """Cut the steps beyond stated lengths: on the side where less is lost in all samples, on the left if both lose as
    much, as where MMIM pads."""
    lost = {m: np.zeros(2, np.int64) for sample in samples for m in sample.beyond}
    for sample in samples:
        for m, beyond in sample.beyond.items():
            filled = np.asarray(sample.features[m].any(axis=1))
            lost[m] += [filled[:beyond].sum(), filled[len(filled) - beyond :].sum()]
    of_all = sum(lost.values(), np.zeros(2, np.int64))
    for m, (head, tail) in lost.items():
        left, right = (head, tail) if head != tail else of_all
        for sample in samples:
            steps, beyond = sample.features[m], sample.beyond.get(m, 0)
            sample.features[m] = steps[beyond:] if left <= right else steps[: len(steps) - beyond]


def _labels(labels: Sequence[Any], family: str) -> np.ndarray:
    """(N, 1) or (N, 7) of labels that are numbers, or arrays of them with axes of 1."""
    columns = [numbers(label, f"{family}'s labels").reshape(-1).astype(np.float32) for label in labels]
    widths = sorted({len(column) for column in columns})
    if len(widths) > 1:
        raise DataError(f"{family}'s labels: as many columns in every row are required, got {widths}.")
    return np.stack(columns) if columns else np.zeros((0, 1), np.float32)
