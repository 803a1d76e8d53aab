"""Metrics of CMU-MOSEI's six emotions, each of which is present or absent, and present to a degree in [0, 3]."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np

from mmsa.data.naming import EMOTIONS
from mmsa.training.metrics import Array, Counts, correlation, over_fold


@partial(over_fold, columns=EMOTIONS)
def emotion_metrics(predicted: Array, truth: Array) -> dict[str, float]:
    """Metrics of six binary decisions per utterance over one whole fold: 1 where the emotion is present, else 0.

    `wacc_*` is (TP * N / P + TN) / 2N of the field, where P utterances have the emotion and N lack it: the mean of the
    two recalls, NaN where all or none have it.

    Shapes:
        predicted (N, 6), truth (N, 6), N >= 1, columns as in EMOTIONS.
    """
    columns = zip(EMOTIONS, predicted.astype(np.int64).T, truth.astype(np.int64).T, strict=True)
    counted = {name: Counts.of(p, t) for name, p, t in columns}
    weighted = {f"wacc_{name}": _weighted_accuracy(counts) for name, counts in counted.items()}
    f1 = {f"f1_{name}": counts.f1(counts.true) for name, counts in counted.items()}
    return {
        "accuracy": float(np.mean([counts.accuracy for counts in counted.values()])),
        "wacc_emotions": _mean_of_defined(weighted.values()),
        "f1_emotions": _mean_of_defined(f1.values()),
        **{f"acc2_{name}": counts.accuracy for name, counts in counted.items()},
        **weighted,
        **f1,
    }


@partial(over_fold, columns=EMOTIONS)
def emotion_errors(predicted: Array, truth: Array) -> dict[str, float]:
    """Errors and correlations of six degrees in [0, 3] per utterance over one whole fold, shapes as above."""
    error = predicted - truth
    mae = zip(EMOTIONS, np.abs(error).mean(axis=0).tolist(), strict=True)
    columns = zip(EMOTIONS, predicted.T, truth.T, strict=True)
    correlations = {f"corr_{name}": correlation(p, t) for name, p, t in columns}
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "corr_emotions": _mean_of_defined(correlations.values()),
        **{f"mae_{name}": value for name, value in mae},
        **correlations,
    }


def _weighted_accuracy(counts: Counts) -> float:
    labelled = counts.true > 0
    return counts.recall(labelled) if labelled.sum() == 2 else float("nan")


def _mean_of_defined(values: Iterable[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
