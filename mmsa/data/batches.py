"""From a store to padded batches: the folds, their normalisation, and the order of the utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from mmsa.data.normalise import Normalize, Scale, per_modality, within_utterances
from mmsa.data.store import FOLDS, Store
from mmsa.data.streams import IdStream, PieceStream, Stream, VectorStream
from mmsa.data.word_vectors import TEXT, WordVectors, number_words
from mmsa.data.words import Tokenizer, words_of
from mmsa.errors import DataError
from mmsa.types import Batch

POOL_BATCHES = 16
"""Training sorts this many batches' worth of shuffled utterances by length: little padding, varied company."""


class Fold:
    """The utterances of one fold, ready to batch.

    Args:
        store: the prepared data set.
        name: "train", "valid" or "test".
        rows: (N,) int64 rows of the store, at least one.
        streams: per modality, in the order of the model, what a batch holds of it.
        vectors: per modality what the baselines read of it; those without feature vectors are not there.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        rows: np.ndarray,
        streams: Mapping[str, Stream],
        vectors: Mapping[str, VectorStream],
    ) -> None:
        self.name = name
        self.modalities = tuple(streams)
        self._rows = rows
        self._streams = streams
        self._vectors = vectors
        self.ids = tuple(store.ids[row] for row in rows)
        self.targets = {target: np.asarray(values)[rows] for target, values in store.targets.items()}
        self.lengths = {m: stream.lengths for m, stream in streams.items()}
        self.steps = np.max(list(self.lengths.values()), axis=0)  # (N,)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: np.ndarray) -> Batch:
        """The utterances at these positions of the fold, padded to the longest of them."""
        lengths = {m: self.lengths[m][rows] for m in self.modalities}
        same_axis = all(np.all((n == 0) | (n == self.steps[rows])) for n in lengths.values())
        num_steps = {m: int(max(self.steps[rows] if same_axis else n)) for m, n in lengths.items()}
        padded = {m: stream.padded(rows, num_steps[m]) for m, stream in self._streams.items()}
        return Batch(
            features={m: torch.from_numpy(features) for m, (features, _) in padded.items()},
            lengths={m: torch.from_numpy(n) for m, n in lengths.items()},
            targets={name: torch.from_numpy(values[rows]) for name, values in self.targets.items()},
            rows=torch.from_numpy(rows),
            ids=tuple(self.ids[row] for row in rows),
            pieces={m: torch.from_numpy(pieces) for m, (_, pieces) in padded.items() if pieces is not None},
        )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every utterance once, those of similar length together."""
        order = np.argsort(self.steps, kind="stable")
        for start in range(0, len(order), batch_size):
            yield self.batch(order[start : start + batch_size])

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every utterance once, shuffled; within a pool of batches those of similar length together."""
        order = torch.randperm(len(self), generator=generator).numpy()
        pool = POOL_BATCHES * batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self.steps[part], kind="stable")]
            batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield self.batch(batches[index])

    def pooled(self) -> dict[str, np.ndarray]:
        """Per modality with feature vectors (N, D) means over the steps that have frames, NaN without any.

        They are what the baselines read. Features that are normalised per utterance, whose means say nothing, are
        pooled as they are.
        """
        return {m: vectors.means() for m, vectors in self._vectors.items()}


class Data:
    """A prepared data set as a run sees it.

    Args:
        store: the prepared data set.
        modalities: those to load, in the order of the model.
        normalize: "train" standardises by the steps of the train fold, "utterance" by those of each utterance, "none"
            does not; one for all modalities or one for each, "train" for those that are not named.
        word_vectors: "fixed" gives text as feature vectors; "trained" as numbers of words, with `tables["text"]`,
            (V, D) float32, the vector of each.
        tokenizers: of the modalities that are read as word pieces, from the store's words.

    Raises:
        DataError: the store lacks a modality, or words that are needed.
    """

    def __init__(
        self,
        store: Store,
        modalities: Sequence[str],
        normalize: Normalize | Mapping[str, Normalize] = "train",
        word_vectors: WordVectors = "fixed",
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ) -> None:
        self.store = store
        self.modalities = tuple(modalities)
        self._tokenizers = {m: tokenizer for m, tokenizer in (tokenizers or {}).items() if m in modalities}
        self._normalize = per_modality(normalize, modalities)
        absent = [m for m in modalities if m not in store.features and m not in self._tokenizers]
        if absent:
            raise DataError(
                f"{store.path} has no {', '.join(absent)}; it has {', '.join(store.features)}.\n"
                f"  type dataset.modalities=[{','.join(m for m in modalities if m not in absent)}]"
            )
        lengths = np.stack([self._lengths(m) for m in self.modalities])  # (M, N)
        self.aligned = bool(np.all((lengths == 0) | (lengths == lengths.max(axis=0))))
        self.widths = {m: 1 if m in self._tokenizers else store.features[m].width for m in self.modalities}
        """Features per step, in the order of the model; 1 of word pieces."""
        self._held = [m for m in self.modalities if m in store.features]
        self._scales = {m: self._scale(m) for m in self._held if self._normalize[m] == "train"}
        self._vocabulary = number_words(store, self._scales.get(TEXT)) if word_vectors == "trained" else None
        self.tables: dict[str, Tensor] = {}
        """Per modality whose features are numbers of words, their vectors (V, D) float32; row 0, padding, is zeros."""
        if self._vocabulary is not None:
            self.tables[TEXT] = torch.from_numpy(self._vocabulary.table)
        self._closed: dict[str, str] = {}

    def closed(self, fold: str, reason: str) -> Data:
        """The same data with one fold that nobody can open.

        Args:
            fold: its name.
            reason: what who asks for it is told.
        """
        other = copy(self)
        other._closed = {**self._closed, fold: reason}
        return other

    def fold(self, name: str) -> Fold:
        """One fold; the test fold is opened only by who asks for it.

        Raises:
            DataError: it is empty, or closed.
        """
        if name in self._closed:
            raise DataError(self._closed[name])
        rows = np.flatnonzero(np.asarray(self.store.folds) == name)
        if not len(rows):
            raise DataError(
                f"the {name} fold of {self.store.path} has no utterance.\n"
                f"  prepare a source with a {name} fold: mmsa prepare {self.store.dataset} --source PATH"
            )
        streams = {m: self._stream(m, rows) for m in self.modalities}
        vectors = {m: VectorStream(self.store.features[m], rows, self._scales.get(m)) for m in self._held}
        return Fold(self.store, name, rows, streams, vectors)

    def _stream(self, modality: str, rows: np.ndarray) -> Stream:
        if modality in self._tokenizers:
            words = words_of(self.store, modality)
            return PieceStream([words[row] for row in rows], self._tokenizers[modality])
        ragged = self.store.features[modality]
        if self._vocabulary is not None and modality == TEXT:
            return IdStream(self._vocabulary.ids, ragged.offsets, rows)
        within = self._normalize[modality] == "utterance"
        return VectorStream(ragged, rows, within_utterances if within else self._scales.get(modality))

    def _lengths(self, modality: str) -> np.ndarray:
        """(rows of the store,) int64 steps, or words of a modality that is read as word pieces."""
        if modality in self._tokenizers:
            return np.array([len(words) for words in words_of(self.store, modality)], dtype=np.int64)
        return self.store.features[modality].lengths

    def _scale(self, modality: str) -> Scale:
        ragged = self.store.features[modality]
        train = np.asarray(self.store.folds) == FOLDS[0]
        return Scale.of(np.asarray(ragged.values[np.repeat(train, ragged.lengths)]))
