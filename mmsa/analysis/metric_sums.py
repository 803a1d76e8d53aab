"""The metrics as functions of sums over utterances, so that thousands of resamples are one product of matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmsa.data.naming import EMOTIONS
from mmsa.training.metrics import Array, binary_classes, rounded, rounded_away
from mmsa.training.sims_metrics import FIVE_CLASSES, THREE_CLASSES, classes_between

_CONSTANT = 1e-12
"""Share of a variance below which a resample counts as constant."""
_MOST_CLASSES = 100
_FINE: dict[str, Callable[[Array], NDArray[np.generic]]] = {
    "acc7": lambda values: rounded(values, 3),
    "acc7_away": rounded_away,
    "acc5": lambda values: rounded(values, 2),
    "acc3_sims": lambda values: classes_between(np.clip(values, -1, 1), THREE_CLASSES),
    "acc5_sims": lambda values: classes_between(np.clip(values, -1, 1), FIVE_CLASSES),
}


@dataclass(frozen=True)
class MetricSums:
    """A metric of one run.

    Args:
        parts: (N, F) summands of each utterance; F = 2 of a mean: the value, and 1 where the utterance counts.
        value: (..., F) sums -> (...) metric, NaN where it is not defined.
        is_mean: the metric is a mean over utterances that the labels alone choose.
    """

    parts: Array
    value: Callable[[Array], Array]
    is_mean: bool = False

    @property
    def whole(self) -> float:
        """The metric over all utterances."""
        return float(self.value(self.parts.sum(axis=0)))


def metric_sums(metric: str, predicted: Array, truth: Array) -> MetricSums | None:
    """A metric of METRICS from sums; None where this metric is not one of predictions and truths of this shape.

    Args:
        metric: its name, without a fold.
        predicted, truth: finite, (N,), or (N, 6) of EMOTIONS; at most 100 classes, which are whole numbers.
    """
    if predicted.ndim == 2:
        return _of_emotions(metric, predicted, truth) if predicted.shape[1] == len(EMOTIONS) else None
    error, every = predicted - truth, np.ones(truth.shape, dtype=bool)
    if metric == "mae":
        return _mean(np.abs(error), every)
    if metric == "mae_sims":
        return _mean(np.abs(np.clip(predicted, -1, 1) - np.clip(truth, -1, 1)), every)
    if metric == "rmse":
        return _root_mean(np.square(error))
    if metric == "corr":
        return _correlation(predicted, truth)
    if metric == "corr_sims":
        return _correlation(np.clip(predicted, -1, 1), np.clip(truth, -1, 1))
    if metric == "accuracy":
        return _mean(predicted == truth, every)
    if metric in ("f1_weighted", "f1_macro", "recall_macro"):
        few = len(np.unique([predicted, truth])) <= _MOST_CLASSES  # numbers that are no classes would fill the memory
        return _of_classes(metric, predicted, truth, every) if few else None
    if metric in _FINE:
        return _mean(_FINE[metric](predicted) == _FINE[metric](truth), every)
    kind, _, convention = metric.removesuffix("_swapped").partition("_")
    binary = binary_classes(predicted, truth)
    if convention not in binary:
        return None
    counting, ours, theirs = binary[convention]
    if kind == "acc2":
        return _mean(ours == theirs, counting)
    return _of_classes("f1_swapped" if metric.endswith("_swapped") else "f1_weighted", ours, theirs, counting)


def _of_emotions(metric: str, predicted: Array, truth: Array) -> MetricSums | None:
    every = np.ones(len(truth), dtype=bool)
    if metric == "mae":
        return _mean(np.abs(predicted - truth).mean(axis=1), every)
    if metric == "rmse":
        return _root_mean(np.square(predicted - truth).mean(axis=1))
    if metric == "accuracy":
        return _mean((predicted == truth).mean(axis=1), every)
    kind, _, name = metric.partition("_")
    single: dict[str, Callable[[Array, Array], MetricSums]] = {
        "mae": lambda p, t: _mean(np.abs(p - t), every),
        "acc2": lambda p, t: _mean(p == t, every),
        "corr": _correlation,
        "wacc": lambda p, t: _of_classes("wacc", p, t, every),
        "f1": lambda p, t: _of_classes("f1_weighted", p, t, every),
    }
    columns = list(zip(predicted.T, truth.T, strict=True))
    if kind in single and name in EMOTIONS:
        return single[kind](*columns[EMOTIONS.index(name)])
    if kind in ("corr", "wacc", "f1") and name == "emotions":
        return _mean_of_defined([single[kind](*column) for column in columns])
    return None


def _mean(values: NDArray[np.generic], counting: NDArray[np.bool_]) -> MetricSums:
    parts = np.stack([np.where(counting, values, 0), counting], axis=1).astype(np.float64)
    return MetricSums(parts, lambda sums: _ratio(sums[..., 0], sums[..., 1]), is_mean=True)


def _root_mean(squares: Array) -> MetricSums:
    parts = np.stack([squares, np.ones_like(squares)], axis=1)
    return MetricSums(parts, lambda sums: np.sqrt(_ratio(sums[..., 0], sums[..., 1])))


def _correlation(predicted: Array, truth: Array) -> MetricSums:
    p, t = (_centred(values) for values in (predicted, truth))
    least = _CONSTANT * np.square(p).mean(), _CONSTANT * np.square(t).mean()

    def value(sums: Array) -> Array:
        num = sums[..., 5]
        mean_p, mean_t = _ratio(sums[..., 0], num), _ratio(sums[..., 1], num)
        of_p, of_t = _ratio(sums[..., 2], num) - mean_p**2, _ratio(sums[..., 3], num) - mean_t**2
        varies = (of_p > least[0]) & (of_t > least[1])
        return _ratio(_ratio(sums[..., 4], num) - mean_p * mean_t, np.sqrt(np.where(varies, of_p * of_t, 0.0)))

    return MetricSums(np.stack([p, t, p * p, t * t, p * t, np.ones_like(p)], axis=1), value)


def _centred(values: Array) -> Array:
    """Minus their mean; zeros where they are constant, of which rounding would leave something."""
    return values - values.mean() if np.ptp(values) else np.zeros_like(values)


def _of_classes(
    metric: str, predicted: NDArray[np.generic], truth: NDArray[np.generic], counting: NDArray[np.bool_]
) -> MetricSums:
    classes = np.unique(np.concatenate([predicted, truth]))
    ours, theirs = (counting[:, None] & (side[:, None] == classes) for side in (predicted, truth))

    def value(sums: Array) -> Array:
        hits, true, found = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, len(classes)), -2, 0)  # (..., C) each
        if metric in ("recall_macro", "wacc"):
            recalls = _ratio(hits, true)
            both = (true > 0).sum(axis=-1) == 2
            means = _mean_over_last(recalls)
            return np.where(both, means, np.nan) if metric == "wacc" else means
        weights = {"f1_weighted": true, "f1_swapped": found, "f1_macro": 1.0 * (true + found > 0)}[metric]
        per_class = 2 * hits / np.where(true + found > 0, true + found, 1)
        return _ratio((per_class * weights).sum(axis=-1), weights.sum(axis=-1))

    return MetricSums(np.concatenate([ours & theirs, theirs, ours], axis=1).astype(np.float64), value)


def _mean_of_defined(columns: Sequence[MetricSums]) -> MetricSums:
    """The mean of the columns' metrics that are defined."""
    ends = np.cumsum([column.parts.shape[1] for column in columns])[:-1]

    def value(sums: Array) -> Array:
        parts = np.split(sums, ends, axis=-1)
        return _mean_over_last(np.stack([c.value(part) for c, part in zip(columns, parts, strict=True)], axis=-1))

    return MetricSums(np.concatenate([column.parts for column in columns], axis=1), value)


def _mean_over_last(values: Array) -> Array:
    """The mean of the numbers on the last axis, NaN without any."""
    there = np.isfinite(values)
    return _ratio(np.where(there, values, 0.0).sum(axis=-1), there.sum(axis=-1))


def _ratio(above: Array, below: Array | NDArray[np.generic]) -> Array:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) > 0)
