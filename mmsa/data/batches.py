"""From a store to padded batches: the folds, their normalisation, and the order of the utterances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import InitVar, dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from mmsa.data.inputs import IdInput, Input, PieceInput, Tokenizer, VectorInput, cut, words_of
from mmsa.data.loading import Loading, words_are_not_averaged
from mmsa.data.normalise import Normalizer, Standardisation, per_modality, within_utterances
from mmsa.data.own_folds import own_folds
from mmsa.data.store import FOLDS, PAUSE, Store
from mmsa.data.word_vectors import TEXT, Vocabulary, number_words
from mmsa.errors import DataError
from mmsa.types import Batch

POOL_BATCHES = 16, 50
"""Training sorts a tenth of an epoch by length, at least and at most these batches: little padding, varied company."""


@dataclass(eq=False)
class Fold:
    """The utterances of one fold, ready to batch.

    Args:
        store: the prepared data set.
        name: "train", "valid" or "test".
        rows: (N,) int64 rows of the store, at least one.
        streams: per modality, in the order of the model, its part of a batch.
        vectors: per modality the vectors that the baselines read; modalities without feature vectors are left out.
        multiple: of this many steps is a batch, padded, so that there are few shapes; 1 pads to its longest utterance.
    """

    store: InitVar[Store]
    name: str
    rows: np.ndarray
    streams: Mapping[str, Input]
    vectors: Mapping[str, VectorInput]
    multiple: int = 1

    def __post_init__(self, store: Store) -> None:
        self.modalities = tuple(self.streams)
        self.ids = tuple(store.ids[row] for row in self.rows)
        self.videos = tuple(store.videos[row] for row in self.rows)
        self.targets = {target: np.asarray(values)[self.rows] for target, values in store.targets.items()}
        self.lengths = {m: stream.lengths for m, stream in self.streams.items()}
        self.steps = np.max(list(self.lengths.values()), axis=0)  # (N,)
        self.num_cut = {m: stream.num_cut for m, stream in self.streams.items() if isinstance(stream, PieceInput)}
        """Per modality that is read as word pieces the utterances that are longer than its encoder."""

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> Batch:
        """The utterances at these positions of the fold, padded to the longest of them."""
        lengths = {m: self.lengths[m][rows] for m in self.modalities}
        same_axis = all(np.all((n == 0) | (n == self.steps[rows])) for n in lengths.values())
        num_steps = {m: self._padded_to(self.steps if same_axis else self.lengths[m], rows) for m in lengths}
        padded = {m: stream.padded(rows, num_steps[m]) for m, stream in self.streams.items()}
        return Batch(
            features={m: torch.as_tensor(features) for m, (features, _) in padded.items()},
            lengths={m: torch.from_numpy(n) for m, n in lengths.items()},
            targets={name: torch.from_numpy(values[rows]) for name, values in self.targets.items()},
            rows=torch.from_numpy(rows),
            ids=tuple(self.ids[row] for row in rows),
            pieces={m: torch.from_numpy(pieces) for m, (_, pieces) in padded.items() if pieces is not None},
        )

    def _padded_to(self, steps: np.ndarray, rows: np.ndarray) -> int:
        """The most steps of some utterances, or more up to a multiple, as long as any utterance has them."""
        return min(-(-int(max(steps[rows])) // self.multiple) * self.multiple, int(steps.max()))

    def by_id(self, values: Sequence[Any]) -> dict[str, Any]:
        """One value per utterance by its id; duplicate ids (to the doctor an error) get a suffix: "v[3] (2)"."""
        seen: Counter[str] = Counter()
        named = {}
        for name, value in zip(self.ids, values, strict=True):
            seen[name] += 1
            named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = value
        return named

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every utterance once, those of similar length together."""
        order = np.argsort(self.steps, kind="stable")
        for start in range(0, len(order), batch_size):
            yield self.batch(order[start : start + batch_size])

    def shuffled(
        self, batch_size: int, generator: torch.Generator, places: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Every utterance once, shuffled; within a pool of batches those of similar length together.

        Args:
            batch_size: utterances per batch, >= 1.
            generator: of the utterances in a batch.
            places: of the order of the batches; None: `generator`. Runs with equal ones have batches of nearly equal
                length at the same time, of other utterances.
        """
        order = torch.randperm(len(self), generator=generator).numpy()
        least, most = POOL_BATCHES
        pool = min(max(len(self) // batch_size // 10, least), most) * batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(self.steps[part], kind="stable")]
            batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        for index in torch.randperm(len(batches), generator=places or generator).tolist():
            yield self.batch(batches[index])

    def pooled(self) -> dict[str, np.ndarray]:
        """Per modality with feature vectors (N, D) means over the steps that have frames, NaN without any.

        The baselines read them. Features normalised per utterance, whose means would be zero, are pooled unnormalised.
        """
        return {m: vectors.means() for m, vectors in self.vectors.items()}


@dataclass(frozen=True)
class Fitted:
    """The values that a run takes from the data that it is trained on.

    Args:
        scales: of the modalities that the train fold normalises.
        vocabulary: of trained word vectors; None where there are none.
    """

    scales: Mapping[str, Standardisation]
    vocabulary: Vocabulary | None = None


class Data:
    """A prepared data set as a run sees it.

    Args:
        store: the prepared data set.
        modalities: those to load, in the order of the model.
        loading: how; with trained word vectors text is numbers of words, and `tables["text"]`, (V, D) float32, has the
            vector of each.
        tokenizers: of the modalities that are read as word pieces, from the store's words.
        fitted: of the data that a model was trained on, where these are others; None fits them to the store.

    Raises:
        DataError: the store lacks a modality, words that are needed, a train fold to normalise by, or a video for each
            of its own folds.
        ConfigError: words would have to be resampled.
    """

    def __init__(
        self,
        store: Store,
        modalities: Sequence[str],
        loading: Loading = Loading(),  # noqa: B008  (frozen)
        tokenizers: Mapping[str, Tokenizer] | None = None,
        fitted: Fitted | None = None,
    ) -> None:
        self.store = store = own_folds(store, loading.num_folds, loading.held_out)
        self._closed: dict[str, str] = {}
        self.modalities = tuple(modalities)
        self.tokenizers = {m: tokenizer for m, tokenizer in (tokenizers or {}).items() if m in modalities}
        self.loading = loading
        self._normalize = per_modality(loading.normalize, modalities)
        if loading.resample not in (None, TEXT) and TEXT in self.tokenizers:
            raise words_are_not_averaged(loading.resample)
        absent = [m for m in modalities if m not in store.features and m not in self.tokenizers]
        if absent:
            kept = [m for m in modalities if m not in absent]
            raise DataError(
                f"{store.title} has no {', '.join(absent)}; it has {', '.join(store.features)}.\n"
                f"  type dataset.modalities=[{','.join(kept or store.features)}]"
            )
        held = {m: self._held_lengths(m) for m in self.modalities}
        self._axis: np.ndarray | None = None
        if loading.resample is not None:
            own = held[loading.resample]  # where it has none, those of the longest one
            self._axis = axis = np.where(own > 0, own, np.max(list(held.values()), axis=0))
            held = {m: np.where(n > 0, axis, 0) for m, n in held.items()}
        read = {m: cut(lengths, self._most(m)) for m, lengths in held.items()}
        self.num_cut = int(np.any([held[m] > read[m] for m in held], axis=0).sum())
        """Utterances of the store that are longer than `max_length` in some modality."""
        lengths = np.stack(list(read.values()))  # (M, N)
        self.aligned = bool(np.all((lengths == 0) | (lengths == lengths.max(axis=0))))
        self.widths = {m: 1 if m in self.tokenizers else store.features[m].width for m in self.modalities}
        """Features per step, in the order of the model; 1 of word pieces."""
        self.max_steps = {m: self._most(m) or int(read[m].max(initial=0)) for m in self.modalities}
        """Per modality the most steps that an utterance may have: `max_length`, or those of the longest one."""
        self._held = [m for m in self.modalities if m in store.features]
        if fitted is None and any(self._normalize[m] == "train" for m in self._held):
            self.rows(FOLDS[0])
        self._fitted = cache(lambda: fitted or self._fit())
        trained = self.fitted.vocabulary if fitted or loading.word_vectors == "trained" else None
        self._word_ids = None if trained is None else trained.ids(store)
        self.tables = {} if trained is None else {TEXT: torch.from_numpy(trained.table)}
        """Per modality whose features are numbers of words, their vectors (V, D) float32; row 0, padding, is zeros."""
        self.remarks: list[str] = []
        """Remarks that a run prints."""

    @property
    def fitted(self) -> Fitted:
        """The values that it takes from its train fold, which is read for them once, when they are first needed."""
        return self._fitted()

    def targets(self, fold: str) -> dict[str, np.ndarray]:
        """The targets of one fold, of which no feature is read.

        Raises:
            DataError: it is empty, or closed.
        """
        rows = self.rows(fold)
        return {name: np.asarray(values)[rows] for name, values in self.store.targets.items()}

    def closed(self, fold: str, reason: str) -> Data:
        """The same data with one fold that nobody can open.

        Args:
            fold: its name.
            reason: message for whoever asks for it.
        """
        other = copy(self)
        other._closed = {**self._closed, fold: reason}
        return other

    def fold(self, name: str) -> Fold:
        """One fold; the test fold is opened only on request.

        Raises:
            DataError: it is empty, or closed.
        """
        return self.part(name, self.rows(name))

    def part(self, name: str, rows: np.ndarray) -> Fold:
        """Some (N,) rows of the store as a fold, N > 0."""
        streams = {m: self._stream(m, rows) for m in self.modalities}
        vectors = {
            m: VectorInput(self.store.features[m], rows, self.fitted.scales.get(m), self._most_held(m))
            for m in self._held
        }
        return Fold(self.store, name, rows, streams, vectors)

    def rows(self, name: str) -> np.ndarray:
        """(N,) rows of the store that are a fold's, N > 0.

        Raises:
            DataError: there is none of this name, or it is empty or closed.
        """
        if name not in FOLDS:
            raise DataError(f"{name}: there is no such fold; choose from {', '.join(FOLDS)}")
        if name in self._closed:
            raise DataError(self._closed[name])
        rows = np.flatnonzero(np.asarray(self.store.folds) == name)
        if not len(rows):
            raise DataError(
                f"the {name} fold of {self.store.title} has no utterance and cannot be read.\n"
                f"  type dataset.source=SOURCE of one with a {name} fold"
            )
        return rows

    def lacking(self, fold: str) -> list[str]:
        """The modalities that no utterance of a fold has: it has no steps of them, or none but zeros.

        The search stops at the first row that has some.
        """
        rows = np.flatnonzero(np.asarray(self.store.folds) == fold)
        return [m for m in self.modalities if len(rows) and not any(self._is_there(m, row) for row in rows.tolist())]

    def _is_there(self, modality: str, row: int) -> bool:
        if modality in self.tokenizers:
            return any(word != PAUSE for word in words_of(self.store, modality)[row][: self._most(modality)])
        steps = self.store.features[modality][row][: self._most_held(modality)]
        return bool(len(steps) if self._word_ids is not None and modality == TEXT else steps.any())

    def _stream(self, modality: str, rows: np.ndarray) -> Input:
        most = self._most(modality)
        if modality in self.tokenizers:
            words = words_of(self.store, modality)
            return PieceInput([words[row][:most] for row in rows], self.tokenizers[modality])
        ragged = self.store.features[modality]
        if self._word_ids is not None and modality == TEXT:
            return IdInput(self._word_ids, ragged.offsets, rows, most)
        normalizer: Normalizer | None = self.fitted.scales.get(modality)
        if self._normalize[modality] == "utterance":
            normalizer = partial(within_utterances, clip=self.loading.clip)
        resampled = None
        if self._axis is not None and modality != self.loading.resample:
            resampled = np.where(ragged.lengths[rows] > 0, self._axis[rows], 0)
        return VectorInput(ragged, rows, normalizer, most, resampled)

    def _most(self, modality: str) -> int | None:
        """Steps that are read, on the common axis where there is one."""
        return self.loading.most_steps(self.loading.resample or modality)

    def _most_held(self, modality: str) -> int | None:
        """Steps of its own that are read: all of those that are averaged."""
        return self._most(modality) if self.loading.resample in (None, modality) else None

    def _held_lengths(self, modality: str) -> np.ndarray:
        """(rows of the store,) int64 steps, or words of a modality that is read as word pieces."""
        if modality in self.tokenizers:
            return np.array([len(words) for words in words_of(self.store, modality)], dtype=np.int64)
        return self.store.features[modality].lengths

    def _fit(self) -> Fitted:
        scales = {m: self._scale(m) for m in self._held if self._normalize[m] == "train"}
        trained = self.loading.word_vectors == "trained"
        return Fitted(scales, number_words(self.store, scales.get(TEXT)) if trained else None)

    def _scale(self, modality: str) -> Standardisation:
        train = VectorInput(self.store.features[modality], self.rows(FOLDS[0]), None, self._most_held(modality))
        return Standardisation.of(lambda: (steps for steps, _ in train.blocks()), self.loading.clip)
