"""Normalisation of a modality's steps: by the train fold, within every utterance, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Normalize = Literal["train", "utterance", "none"]
Normalizer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(steps of several utterances, end to end (S, D), their lengths (N,)) -> the steps, normalised."""

CLIP = 10.0
"""Standard deviations at which standardised features are usually clipped: COVAREP has outliers of thousands."""


def per_modality(normalize: Normalize | Mapping[str, Normalize], modalities: Iterable[str]) -> dict[str, Normalize]:
    """`dataset.normalize` of each modality: "train" for those that a mapping does not name."""
    if isinstance(normalize, str):
        return dict.fromkeys(modalities, normalize)
    return {m: normalize.get(m, "train") for m in modalities}


@dataclass(frozen=True)
class Standardisation:
    """Standardisation of one modality, by the steps of the train fold, clipped.

    All-zero steps mean "no frames" in every format of the field: they are left out of the statistics and stay zero,
    which after standardisation is the mean.

    Args:
        mean: (D,) float32.
        factor: (D,) float32, one over the standard deviation; 0 for a constant feature.
        clip: standard deviations at which the result is clipped; None does not clip.
    """

    mean: np.ndarray
    factor: np.ndarray
    clip: float | None = CLIP

    @classmethod
    def of(cls, blocks: Callable[[], Iterable[np.ndarray]], clip: float | None = CLIP) -> Standardisation:
        """Statistics of steps that come in blocks.

        Args:
            blocks: makes an iterator over (n, D) blocks, one or more; called twice, for the mean and the deviation.
            clip: as of the class.
        """
        sums, count = _summed(blocks())
        mean = sums / max(count, 1)
        squares, _ = _summed(blocks(), mean)
        deviation = np.sqrt(squares / max(count, 1))
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6)
        factor = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(mean.astype(np.float32), factor.astype(np.float32), clip)

    def __call__(self, steps: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """(steps, D) -> the same, standardised, whatever the utterances' lengths."""
        scaled = _clipped((steps - self.mean) * self.factor, self.clip)
        return np.where(steps.any(axis=1, keepdims=True), scaled, 0.0)


def within_utterances(steps: np.ndarray, lengths: np.ndarray, clip: float | None = CLIP) -> np.ndarray:
    """Standardise each feature over the steps of its own utterance, clipped; values that are not finite become 0.

    All-zero steps mean "no frames": they are left out of the statistics and stay zero. A feature that is constant in
    an utterance, and every feature of an utterance of one step, becomes 0.

    Reference: MISA's data preparation (declare-lab/MISA), which also counts the steps without frames and does not clip.

    Args:
        steps: (S, D) float32, the utterances end to end.
        lengths: (N,) int64 steps of each, S in all.
        clip: standard deviations at which the result is clipped; None does not clip.
    """
    normalised = np.zeros(steps.shape, dtype=np.float32)
    filled = steps.any(axis=1)  # (S,)
    owner = np.repeat(np.arange(len(lengths)), lengths)[filled]
    counts = np.bincount(owner, minlength=len(lengths))
    counts = counts[counts > 0]
    if not len(counts):
        return normalised
    starts = np.cumsum(counts) - counts
    values = steps[filled].astype(np.float64)  # in which equal float32 values have exactly their own mean
    with np.errstate(invalid="ignore", over="ignore"):
        centred = values - np.repeat(np.add.reduceat(values, starts) / counts[:, None], counts, axis=0)
        deviation = np.sqrt(np.add.reduceat(centred**2, starts) / counts[:, None])
        scaled = centred / (1e-6 + np.repeat(deviation, counts, axis=0))
    normalised[filled] = _clipped(np.where(np.isfinite(scaled), scaled, 0.0), clip)
    return normalised


def _summed(blocks: Iterable[np.ndarray], mean: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """(D,) float64 sum of the steps that have frames, or of their squared distances from a mean, and their number.

    Step is added to step in their order, whatever the blocks.
    """
    total, count = np.zeros(0), 0
    for steps in blocks:
        values = steps[steps.any(axis=1)].astype(np.float64)
        if mean is not None:
            values -= mean
            values *= values
        if count and len(values):
            values[0] += total
        if len(values) or not count:
            total = values.sum(axis=0)
        count += len(values)
    return total, count


def _clipped(values: np.ndarray, clip: float | None) -> np.ndarray:
    return values if clip is None else np.clip(values, -clip, clip)
