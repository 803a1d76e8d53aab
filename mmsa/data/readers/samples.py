"""The layout that MISA and MAG share: per fold a list of ((words, visual, acoustic, …), label, segment), not padded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.readers.ids import segment_ids
from mmsa.data.readers.rows import Row, as_steps, check_required, gather, numbers, sentiment_targets
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError

if TYPE_CHECKING:
    from mmsa.data.readers.families import ReadOptions

DRAWN_WIDTH = 300
"""Numbers of a random vector of a word: as many as GloVe has."""


@dataclass(frozen=True)
class Lexicon:
    """What stands behind the numbers of the words.

    Args:
        vectors: (V, D) float32 vector by number; None where the source has none, and so no text features.
        words: word by number, for samples that do not hold the words themselves.
    """

    vectors: np.ndarray | None = None
    words: Mapping[int, str] | None = None


def is_samples(samples: Any) -> bool:
    """Whether this is a list that begins with a sample, or an empty one."""
    if not isinstance(samples, list):
        return False
    first = samples[0] if samples else ((0, 0, 0), 0)
    parts = isinstance(first, list | tuple) and len(first) in (2, 3) and first[0]
    return isinstance(parts, list | tuple) and len(parts) >= 3


def read_samples(
    folds: Mapping[str, Sequence[Any]], lexicon: Lexicon, options: ReadOptions, progress: Progress, family: str
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

    Raises:
        DataError: a required modality is missing, or a sample is not of this layout.
    """
    read: list[tuple[str, _Sample]] = []
    for fold in progress(FOLDS, f"reading {family}'s samples", len(FOLDS)):
        where = f"{family}'s samples, fold {fold}"
        read += [(fold, _Sample(sample, lexicon, f"{where}, row {i}")) for i, sample in enumerate(folds[fold])]
    drawn = 0
    if lexicon.vectors is None and all(sample.words is not None for _, sample in read):
        drawn = _draw_text([sample for _, sample in read])
    modalities = [m for m in ("text", "audio", "visual") if m != "text" or drawn or lexicon.vectors is not None]
    if "text" in options.required and "text" not in modalities:
        rest = ",".join(m for m in options.required if m != "text") or "audio,visual"
        raise DataError(
            f"{family} keeps words by number, and the file of their vectors, embedding_and_mapping.pt, is not there.\n"
            f"  put it there, or type dataset.modalities=[{rest}]"
        )
    check_required(options.required, modalities, f"{family}'s layout")
    labels = _labels([sample.label for _, sample in read], family)
    names, report = _names(read)
    alone = report["ids"].get("absent", 0) + report["ids"].get("own_video", 0) == len(read)
    if alone and labels.shape[1] == 1 and set(np.unique(labels).tolist()) <= {0, 1}:
        targets = {"humor": labels[:, 0]}
    else:
        targets = sentiment_targets(labels, family)
    rows = []
    for i, (fold, sample) in enumerate(read):
        of_row = {name: target[i] for name, target in targets.items()}
        rows.append(Row(fold, *names[i], of_row, {m: sample.features[m] for m in modalities}, sample.words))
    return gather(rows, modalities, report | ({"drawn_vectors": drawn} if drawn else {}))


def _draw_text(samples: Sequence[_Sample]) -> int:
    """Give each different word a random vector, the same in every file and run; returns how many there are.

    MISA itself starts words without a vector from such numbers. They tell words apart and say nothing of their meaning.
    """
    table: dict[str, np.ndarray] = {}
    for sample in samples:
        words = sample.words or []
        for word in words:
            if word not in table:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
                table[word] = np.random.default_rng(seed).standard_normal(DRAWN_WIDTH).astype(np.float32)
        empty = np.zeros((0, DRAWN_WIDTH), np.float32)
        sample.features["text"] = np.stack([table[word] for word in words]) if words else empty
    return len(table)


class _Sample:
    """One sample, checked.

    Args:
        sample: as it stands in the file.
        lexicon: of the words' numbers.
        where: named in errors.
    """

    def __init__(self, sample: Any, lexicon: Lexicon, where: str) -> None:
        if not is_samples([sample]):
            raise DataError(f"{where}: a tuple ((words, visual, acoustic, …), label, segment) is required.")
        parts, self.label = sample[0], sample[1]
        self.segment = sample[2] if len(sample) == 3 else None
        # MMIM adds the lengths of the two streams, which need not be the words'.
        visual_length, audio_length = (parts[4], parts[5]) if len(parts) >= 6 else (None, None)
        self.features = {
            "audio": _trimmed(as_steps(parts[2], f"{where}, acoustic"), audio_length, where),
            "visual": _trimmed(as_steps(parts[1], f"{where}, visual"), visual_length, where),
        }
        spoken = parts[3] if len(parts) > 3 else parts[0]
        self.words: list[str] | None = None
        if _all_strings(spoken):
            self.words = [str(word) for word in spoken]
        if lexicon.vectors is not None or (self.words is None and lexicon.words is not None):
            self._look_up(parts[0], lexicon, where)

    def _look_up(self, words: Any, lexicon: Lexicon, where: str) -> None:
        ids = numbers(words, f"{where}, words", num_axes=1).astype(np.int64)
        if lexicon.vectors is not None:
            if len(ids) and not 0 <= ids.min() <= ids.max() < len(lexicon.vectors):
                raise DataError(
                    f"{where}: word {ids.max()} of a table of {len(lexicon.vectors)} vectors: "
                    "the samples and embedding_and_mapping.pt are not of the same corpus."
                )
            self.features["text"] = lexicon.vectors[ids]
        if self.words is None and lexicon.words is not None:
            self.words = [lexicon.words.get(number, "unk") for number in ids.tolist()]


def _all_strings(words: Any) -> bool:
    return isinstance(words, list | tuple | np.ndarray) and all(isinstance(word, str) for word in words)


def _trimmed(steps: np.ndarray, length: Any, where: str) -> np.ndarray:
    """The steps within the stated length; the rest is padding, before them where it is zeros, else after them."""
    if length is None:
        return steps
    stated = numbers(length, f"{where}, length").reshape(-1)
    if stated.size != 1 or not stated[0] >= 0:
        raise DataError(f"{where}: a length >= 0 is required, got {length!r}.")
    beyond = max(0, len(steps) - int(stated[0]))
    return steps[beyond:] if not steps[:beyond].any() else steps[: len(steps) - beyond]


def _labels(labels: Sequence[Any], family: str) -> np.ndarray:
    """(N, 1) or (N, 7) of labels that are numbers, or arrays of them with axes of 1."""
    columns = [numbers(label, f"{family}'s labels").reshape(-1).astype(np.float32) for label in labels]
    widths = sorted({len(column) for column in columns})
    if len(widths) > 1:
        raise DataError(f"{family}'s labels: as many columns in every row are required, got {widths}.")
    return np.stack(columns) if columns else np.zeros((0, 1), np.float32)


def _names(read: Sequence[tuple[str, _Sample]]) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Video and segment of every sample; a sample without a segment is a video of its own."""
    if all(sample.segment is not None for _, sample in read):
        names, odd = segment_ids([sample.segment for _, sample in read])
        return names, {"ids": odd}
    counts: dict[str, int] = {}
    names = []
    for fold, _ in read:
        counts[fold] = counts.get(fold, 0) + 1
        names.append((f"{fold}-{counts[fold] - 1}", 0))
    return names, {"ids": {"absent": len(names)}}
