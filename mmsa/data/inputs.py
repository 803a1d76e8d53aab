"""The input of one modality in a fold: feature vectors, numbers of words, or word pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from mmsa.data.normalise import Normalizer
from mmsa.data.ragged import Ragged
from mmsa.data.store import PAUSE, Store
from mmsa.errors import DataError
from mmsa.types import Pieces


class Tokenizer(Protocol):
    """Splits utterances, each a sequence of words, into pieces; `pad_id` fills up a batch.

    It may cut an utterance short: the words beyond have no pieces.
    """

    pad_id: int

    def __call__(self, utterances: Sequence[Sequence[str]]) -> list[Pieces]: ...


class Input(Protocol):
    """The utterances of a fold in one modality.

    `lengths` (N,) int64 are their steps (words). `padded` gives those at some rows, N' of them: the features, on a
    device where they lie there, and for word pieces (N', T, P) bool, which pieces make up which word.
    """

    lengths: np.ndarray

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray | Tensor, np.ndarray | None]: ...


class VectorInput:
    """Feature vectors.

    Args:
        ragged: the steps of every row of the store.
        rows: (N,) those of the fold.
        normalizer: None takes the features as they are.
        max_length: steps of an utterance that are read; None reads all.
        resampled: (N,) int64 steps onto which those of each utterance are averaged, 0 where it has none; None leaves
            them.

    Shapes: padded -> (N', T, D) float32.
    """

    def __init__(
        self,
        ragged: Ragged,
        rows: np.ndarray,
        normalizer: Normalizer | None,
        max_length: int | None = None,
        resampled: np.ndarray | None = None,
    ) -> None:
        self._ragged = ragged
        self._starts = ragged.offsets[rows]
        self._read = cut(ragged.lengths[rows], max_length if resampled is None else None)
        self._normalizer = normalizer
        self._resampled = resampled
        self.width = ragged.width
        self.lengths = self._read if resampled is None else cut(resampled, max_length)

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, None]:
        return padded(self._of_batches(rows), self.lengths[rows], num_steps), None

    def batch_blocks(self) -> Iterator[np.ndarray]:
        """The steps of all utterances as batches have them, end to end, whole utterances of about 4 MiB at a time."""
        for rows in self._blocks():
            yield self._of_batches(rows)
            self._ragged.release()

    def _of_batches(self, rows: np.ndarray) -> np.ndarray:
        """The steps of these utterances as batches have them, end to end."""
        values, lengths = self.steps(rows)
        if self._resampled is not None:
            onto = self._resampled[rows]
            values = resample(values, lengths, onto)[places(np.cumsum(onto) - onto, self.lengths[rows])]
        return values

    def steps(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps of these utterances that are read, end to end and normalised, and how many each has."""
        lengths = self._read[rows]
        values = np.asarray(self._ragged.values[places(self._starts[rows], lengths)])
        return (self._normalizer(values, lengths) if self._normalizer else values), lengths

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`steps` of all utterances in their order, whole utterances of about 4 MiB at a time."""
        for rows in self._blocks():
            yield self.steps(rows)
            self._ragged.release()

    def _blocks(self) -> list[np.ndarray]:
        block = np.cumsum(self._read) // self._ragged.steps_per_block  # (N,)
        return np.split(np.arange(len(block)), np.flatnonzero(np.diff(block)) + 1)

    def means(self) -> np.ndarray:
        """(N, D) means over the steps that have frames, NaN without any."""
        return np.concatenate([_means(values, lengths) for values, lengths in self.blocks()])


class IdInput:
    """Numbers of words, one per step; 0 is padding.

    Args:
        ids: (total steps,) int64 of every row of the store.
        offsets: (rows of the store + 1,) int64.
        rows: (N,) those of the fold.
        max_length: words of an utterance that are read; None reads all.

    Shapes: padded -> (N', T) int64.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray, rows: np.ndarray, max_length: int | None = None) -> None:
        self._ids = ids
        self._starts = offsets[rows]
        self.lengths = cut(offsets[rows + 1] - offsets[rows], max_length)

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, None]:
        lengths = self.lengths[rows]
        return padded(self._ids[places(self._starts[rows], lengths)], lengths, num_steps), None


class PieceInput:
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
        self._counts = np.array([len(pieces.ids) for pieces in split], dtype=np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self.lengths = np.array([len(words) for words in utterances], dtype=np.int64)
        last = [max((place for place, word in enumerate(words) if word != PAUSE), default=-1) for words in utterances]
        reached = [int(pieces.words.max(initial=-1)) for pieces in split]
        self.num_cut = sum(read < spoken for read, spoken in zip(reached, last, strict=True))
        """Utterances of which the tokenizer left the end out."""

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        counts = self._counts[rows]
        index = places(self._starts[rows], counts)
        ids = padded(self._ids[index], counts, int(counts.max()), self._pad_id)
        pieces = np.zeros((len(rows), max(num_steps, 1), ids.shape[1]), dtype=bool)
        word = self._words[index]
        utterance = np.repeat(np.arange(len(rows)), counts)
        place = places(np.zeros_like(counts), counts)
        of_word = word >= 0
        pieces[utterance[of_word], word[of_word], place[of_word]] = True
        return ids, pieces


def words_of(store: Store, modality: str) -> list[list[str]]:
    """The words that an encoder of word pieces reads.

    Raises:
        DataError: the store has none.
    """
    if store.words is None:
        raise DataError(
            f"encoder/{modality} reads words, and {store.title} has none, because its source has none.\n"
            f"  type encoder/{modality}=bilstm, or dataset.source=SOURCE of one with words"
        )
    return store.words


def tokenize(utterances: Sequence[Sequence[str]], tokenizer: Tokenizer) -> list[Pieces]:
    """The pieces of every utterance; a pause is no word to a tokenizer, and so has none."""
    spoken = [[place for place, word in enumerate(words) if word != PAUSE] for words in utterances]
    said = [[words[k] for k in kept] for words, kept in zip(utterances, spoken, strict=True)]
    return [
        Pieces(np.asarray(ids, np.int64), np.array([*kept, -1])[words])  # -1 takes the appended -1
        for (ids, words), kept in zip(tokenizer(said), spoken, strict=True)
    ]


def cut(lengths: np.ndarray, max_length: int | None) -> np.ndarray:
    """(N,) steps of each utterance, at most this many."""
    return lengths if max_length is None else np.minimum(lengths, max_length)


def resample(steps: np.ndarray, lengths: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """The steps of each utterance averaged onto another number of steps, each of them an equal share of its time.

    Step k of L is the mean of the steps k·n/L to (k + 1)·n/L of n, those that it shares with its neighbour included;
    where there are fewer steps than L, steps repeat. All-zero steps mean "no frames": they do not count in a mean.

    Args:
        steps: (S, D) float32, the utterances end to end.
        lengths: (N,) int64 steps of each, S in all.
        onto: (N,) int64 steps that each shall have; 0 where it has none now.

    Shapes: returns (sum of onto, D) float32.
    """
    owner = np.repeat(np.arange(len(onto)), onto)
    place = places(np.zeros_like(onto), onto)
    count, share = lengths[owner], onto[owner]
    start = (np.cumsum(lengths) - lengths)[owner]
    first, last = start + place * count // share, start - (-(place + 1) * count // share)
    borders = np.stack([first, last], axis=1).ravel()
    filled = steps.any(axis=1, keepdims=True)  # (S, 1)
    ended = np.concatenate([steps, np.zeros_like(steps[:1])]).astype(np.float64)  # so that the last border is inside
    counts = np.concatenate([filled, [[False]]]).astype(np.int64)
    sums, counts = (np.add.reduceat(values, borders, axis=0)[::2] for values in (ended, counts))
    return (sums / np.maximum(counts, 1)).astype(np.float32)


def _means(steps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Utterances end to end (S, D) -> (N, D) float64 means over the steps of each that have frames, NaN without any."""
    filled = steps.any(axis=1)  # (S,)
    counts = np.bincount(np.repeat(np.arange(len(lengths)), lengths)[filled], minlength=len(lengths))
    means = np.full((len(lengths), steps.shape[1]), np.nan)
    if len(has := np.flatnonzero(counts)):
        starts = np.cumsum(counts[has]) - counts[has]
        sums = np.add.reduceat(steps[filled], starts, axis=0, dtype=np.float64)
        means[has] = sums / counts[has, None]
    return means


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Where the items of some rows stand, which begin there and are that many, end to end."""
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - first, lengths)


def padded(values: np.ndarray, lengths: np.ndarray, num_steps: int, fill: int = 0) -> np.ndarray:
    """Items end to end (S, ...) -> (N, T, ...), with `fill` after each length."""
    padded = np.full((len(lengths), max(num_steps, 1), *values.shape[1:]), fill, dtype=values.dtype)
    padded[np.arange(padded.shape[1])[None, :] < lengths[:, None]] = values
    return padded
