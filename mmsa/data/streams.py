"""What a fold reads of one modality: feature vectors, numbers of words, or word pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mmsa.data.normalise import Normalizer
from mmsa.data.store import Ragged
from mmsa.data.words import Tokenizer, tokenize


class Stream(Protocol):
    """The utterances of a fold in one modality.

    `lengths` (N,) int64 are their steps (words). `padded` gives those at some rows, N' of them: the features, and for
    word pieces (N', T, P) bool, which pieces make up which word.
    """

    lengths: np.ndarray

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray | None]: ...


class VectorStream:
    """Feature vectors.

    Args:
        ragged: the steps of every row of the store.
        rows: (N,) those of the fold.
        normalizer: None takes the features as they are.

    Shapes: padded -> (N', T, D) float32.
    """

    def __init__(self, ragged: Ragged, rows: np.ndarray, normalizer: Normalizer | None) -> None:
        self._ragged = ragged
        self._rows = rows
        self._normalizer = normalizer
        self.lengths = ragged.lengths[rows]

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, None]:
        values, lengths = self.steps(rows)
        return _padded(values, lengths, num_steps), None

    def steps(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps of these utterances, end to end and normalised, and their lengths."""
        index, lengths = _places(self._ragged.offsets, self._rows[rows])
        values = np.asarray(self._ragged.values[index])
        return (self._normalizer(values, lengths) if self._normalizer else values), lengths

    def means(self) -> np.ndarray:
        """(N, D) means over the steps that have frames, NaN without any."""
        count = len(self._rows)
        values, lengths = self.steps(np.arange(count))
        owner = np.repeat(np.arange(count), lengths)
        filled = values.any(axis=1)
        sums = np.zeros((count, values.shape[1]))
        np.add.at(sums, owner[filled], values[filled])
        counts = np.bincount(owner[filled], minlength=count)
        return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)


class IdStream:
    """Numbers of words, one per step; 0 is padding.

    Args:
        ids: (total steps,) int64 of every row of the store.
        offsets: (rows of the store + 1,) int64.
        rows: (N,) those of the fold.

    Shapes: padded -> (N', T) int64.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> None:
        self._ids = ids
        self._offsets = offsets
        self._rows = rows
        self.lengths = offsets[rows + 1] - offsets[rows]

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, None]:
        index, lengths = _places(self._offsets, self._rows[rows])
        return _padded(self._ids[index], lengths, num_steps), None


class PieceStream:
    """Word pieces, tokenised once, when this is made.

    Args:
        utterances: the words of each of the fold's N utterances.
        tokenizer: splits them.

    Shapes: padded -> (N', P) int64 filled up with the tokenizer's `pad_id`, and (N', T, P) bool.
    """

    def __init__(self, utterances: Sequence[Sequence[str]], tokenizer: Tokenizer) -> None:
        split = tokenize(utterances, tokenizer)
        self._pad_id = tokenizer.pad_id
        self._ids = np.concatenate([pieces.ids for pieces in split])
        self._words = np.concatenate([pieces.words for pieces in split])
        self._offsets = np.cumsum([0, *(len(pieces.ids) for pieces in split)])
        self.lengths = np.array([len(words) for words in utterances], dtype=np.int64)

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        index, counts = _places(self._offsets, rows)
        ids = _padded(self._ids[index], counts, int(counts.max()), self._pad_id)
        pieces = np.zeros((len(rows), max(num_steps, 1), ids.shape[1]), dtype=bool)
        word = self._words[index]
        utterance = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(word)) - np.repeat(np.cumsum(counts) - counts, counts)
        of_word = word >= 0
        pieces[utterance[of_word], word[of_word], place[of_word]] = True
        return ids, pieces


def _places(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the items of these rows stand, end to end, and how many each row has."""
    lengths = offsets[rows + 1] - offsets[rows]
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(offsets[rows] - first, lengths), lengths


def _padded(values: np.ndarray, lengths: np.ndarray, num_steps: int, fill: int = 0) -> np.ndarray:
    """Items end to end (S, ...) -> (N, T, ...), with `fill` after each length."""
    padded = np.full((len(lengths), max(num_steps, 1), *values.shape[1:]), fill, dtype=values.dtype)
    padded[np.arange(padded.shape[1])[None, :] < lengths[:, None]] = values
    return padded
