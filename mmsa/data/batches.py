"""From a store to padded batches: the folds, their normalisation, and the order of the utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mmsa.data.store import FOLDS, Ragged, Store
from mmsa.errors import DataError
from mmsa.types import Batch

POOL_BATCHES = 16
"""Training sorts this many batches' worth of shuffled utterances by length: little padding, varied company."""


CLIP = 10.0
"""Standard deviations at which standardised features are clipped: COVAREP has outliers of thousands."""


@dataclass(frozen=True)
class Scale:
    """Standardisation of one modality, by the steps of the train fold, clipped.

    All-zero steps mean "no frames" in every format of the field: they are left out of the statistics and stay zero,
    which after standardisation is the mean.

    Args:
        mean: (D,) float32.
        factor: (D,) float32, one over the standard deviation; 0 for a constant feature.
    """

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, steps: np.ndarray) -> Scale:
        """Statistics of (steps, D) features."""
        filled = steps[steps.any(axis=1)].astype(np.float64)
        if not len(filled):
            return cls(np.zeros(steps.shape[1], np.float32), np.zeros(steps.shape[1], np.float32))
        mean, deviation = filled.mean(axis=0), filled.std(axis=0)
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(mean.astype(np.float32), factor.astype(np.float32))

    def __call__(self, steps: np.ndarray) -> np.ndarray:
        """(steps, D) -> the same, standardised."""
        scaled = np.clip((steps - self.mean) * self.factor, -CLIP, CLIP)
        return np.where(steps.any(axis=1, keepdims=True), scaled, 0.0)


class Fold:
    """The utterances of one fold, ready to batch.

    Args:
        store: the prepared data set.
        name: "train", "valid" or "test".
        modalities: those to load, in the order of the model.
        scales: standardisation per modality; a modality without one is taken as it is.
    """

    def __init__(self, store: Store, name: str, modalities: Sequence[str], scales: Mapping[str, Scale]) -> None:
        self.name = name
        self.modalities = tuple(modalities)
        self._rows = np.flatnonzero(np.asarray(store.folds) == name)
        self._features = {m: store.features[m] for m in self.modalities}
        self._scales = scales
        if not len(self._rows):
            raise DataError(
                f"the {name} fold of {store.path} has no utterance.\n"
                f"  prepare a source with a {name} fold: mmsa prepare {store.dataset} --source PATH"
            )
        self.ids = tuple(store.ids[row] for row in self._rows)
        self.targets = {target: np.asarray(values)[self._rows] for target, values in store.targets.items()}
        self.lengths = {m: self._features[m].lengths[self._rows] for m in self.modalities}
        self.steps = np.max(list(self.lengths.values()), axis=0)  # (N,)

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, rows: np.ndarray) -> Batch:
        """The utterances at these positions of the fold, padded to the longest of them."""
        lengths = {m: self.lengths[m][rows] for m in self.modalities}
        same_axis = all(np.all((n == 0) | (n == self.steps[rows])) for n in lengths.values())
        num_steps = {m: int(max(self.steps[rows] if same_axis else n)) for m, n in lengths.items()}
        return Batch(
            features={m: torch.from_numpy(self._padded(m, rows, num_steps[m])) for m in self.modalities},
            lengths={m: torch.from_numpy(n) for m, n in lengths.items()},
            targets={name: torch.from_numpy(values[rows]) for name, values in self.targets.items()},
            rows=torch.from_numpy(rows),
            ids=tuple(self.ids[row] for row in rows),
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
        """Per modality (N, D) means over the steps that have frames, NaN without any: what the baselines read."""
        return {m: self._means(m) for m in self.modalities}

    def _padded(self, modality: str, rows: np.ndarray, num_steps: int) -> np.ndarray:
        values, lengths = self._steps(modality, rows)
        padded = np.zeros((len(rows), max(num_steps, 1), values.shape[1]), dtype=np.float32)
        padded[np.arange(padded.shape[1])[None, :] < lengths[:, None]] = values
        return padded

    def _steps(self, modality: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The steps of these utterances, end to end and standardised, and their lengths."""
        ragged: Ragged = self._features[modality]
        lengths = self.lengths[modality][rows]
        starts = ragged.offsets[self._rows[rows]]
        first = np.cumsum(lengths) - lengths
        index = np.arange(lengths.sum()) + np.repeat(starts - first, lengths)
        values = np.asarray(ragged.values[index])
        scale = self._scales.get(modality)
        return (scale(values) if scale else values), lengths

    def _means(self, modality: str) -> np.ndarray:
        values, lengths = self._steps(modality, np.arange(len(self)))
        owner = np.repeat(np.arange(len(self)), lengths)
        filled = values.any(axis=1)
        sums = np.zeros((len(self), values.shape[1]))
        np.add.at(sums, owner[filled], values[filled])
        counts = np.bincount(owner[filled], minlength=len(self))
        return np.divide(sums, counts[:, None], out=np.full_like(sums, np.nan), where=counts[:, None] > 0)


class Data:
    """A prepared data set as a run sees it.

    Args:
        store: the prepared data set.
        modalities: those to load, in the order of the model.
        normalize: "train" standardises every modality by the steps of the train fold; "none" does not.

    Raises:
        DataError: the store lacks a modality.
    """

    def __init__(self, store: Store, modalities: Sequence[str], normalize: Literal["train", "none"] = "train") -> None:
        absent = [m for m in modalities if m not in store.features]
        if absent:
            raise DataError(
                f"{store.path} has no {', '.join(absent)}; it has {', '.join(store.features)}.\n"
                f"  type dataset.modalities=[{','.join(m for m in modalities if m not in absent)}]"
            )
        self.store = store
        self.modalities = tuple(modalities)
        self.widths = {m: store.features[m].width for m in self.modalities}
        lengths = np.stack([store.features[m].lengths for m in self.modalities])  # (M, N)
        self.aligned = bool(np.all((lengths == 0) | (lengths == lengths.max(axis=0))))
        self._scales: dict[str, Scale] = {}
        if normalize == "train":
            train = np.asarray(store.folds) == FOLDS[0]
            for m in self.modalities:
                ragged = store.features[m]
                self._scales[m] = Scale.of(np.asarray(ragged.values[np.repeat(train, ragged.lengths)]))

    def fold(self, name: str) -> Fold:
        """One fold; the test fold is opened only by who asks for it."""
        return Fold(self.store, name, self.modalities, self._scales)
