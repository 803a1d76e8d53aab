"""Metrics of CMU-MOSEI's six emotions, each of which is present or absent, and present to a degree in [0, 3]."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mmsa.data.store import EMOTIONS
from mmsa.training.metrics import Array, Counts, correlation


def emotion_metrics(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> dict[str, float]:
    """Metrics of six binary decisions per utterance over one whole fold.

    `wacc_*` is (TP * N / P + TN) / 2N of the field, where P utterances have the emotion and N lack it: the mean of the
    two recalls, NaN where all or none have it. Everything is NaN where a prediction is.

    Args:
        prediction: 1 where the emotion is predicted, else 0.
        target: 1 where the emotion is present, else 0.

    Shapes:
        prediction (N, 6), target (N, 6), N >= 1, columns as in EMOTIONS.

    Raises:
        ValueError: the shapes are not these.
    """
    predicted, truth = _six_columns(prediction, target)
    counted = [
        Counts.of(p.astype(np.int64), t.astype(np.int64)) for p, t in zip(_known(predicted).T, truth.T, strict=True)
    ]
    named = dict(zip(EMOTIONS, counted, strict=True))
    weighted = {f"wacc_{name}": _weighted_accuracy(counts) for name, counts in named.items()}
    f1 = {f"f1_{name}": counts.f1(counts.true) for name, counts in named.items()}
    metrics = {
        "accuracy": float(np.mean([counts.accuracy for counts in counted])),
        "wacc_emotions": _mean_of_defined(weighted.values()),
        "f1_emotions": _mean_of_defined(f1.values()),
        **{f"acc2_{name}": counts.accuracy for name, counts in named.items()},
        **weighted,
        **f1,
    }
    return metrics if np.isfinite(predicted).all() else dict.fromkeys(metrics, float("nan"))


def emotion_errors(prediction: NDArray[np.floating], target: NDArray[np.floating]) -> dict[str, float]:
    """Errors and correlations of six degrees per utterance over one whole fold; all NaN where a prediction is.

    Args:
        prediction: predicted degrees, any real values.
        target: degrees in [0, 3].

    Shapes:
        prediction (N, 6), target (N, 6), N >= 1, columns as in EMOTIONS.

    Raises:
        ValueError: the shapes are not these.
    """
    predicted, truth = _six_columns(prediction, target)
    error = _known(predicted) - truth
    mae = dict(zip(EMOTIONS, np.abs(error).mean(axis=0).tolist(), strict=True))
    columns = zip(EMOTIONS, _known(predicted).T, truth.T, strict=True)
    correlations = {f"corr_{name}": correlation(p, t) for name, p, t in columns}
    metrics = {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "corr_emotions": _mean_of_defined(correlations.values()),
        **{f"mae_{name}": value for name, value in mae.items()},
        **correlations,
    }
    return metrics if np.isfinite(predicted).all() else dict.fromkeys(metrics, float("nan"))


def _six_columns(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> tuple[Array, Array]:
    predicted, truth = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if predicted.shape != truth.shape or predicted.shape[1:] != (len(EMOTIONS),) or not len(predicted):
        raise ValueError(
            f"emotions need two (N, {len(EMOTIONS)}) arrays with N >= 1; got {predicted.shape} and {truth.shape}."
        )
    return predicted, truth


def _known(predicted: Array) -> Array:
    """Something finite to compute with where the metrics will be NaN."""
    return np.where(np.isfinite(predicted), predicted, 0.0)


def _weighted_accuracy(counts: Counts) -> float:
    labelled = counts.true > 0
    return counts.recall(labelled) if labelled.sum() == 2 else float("nan")


def _mean_of_defined(values: Iterable[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
