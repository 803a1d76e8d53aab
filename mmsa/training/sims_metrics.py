"""Metrics of CH-SIMS, whose sentiment lies in [-1, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsa.training.metrics import Array, binary_metrics, correlation, error_metrics, over_fold

THREE_CLASSES = (-0.1, 0.1)
"""Cuts of negative, neutral, positive; a value on a cut belongs to the class below."""
FIVE_CLASSES = (-0.7, -0.1, 0.1, 0.7)


@over_fold
def sims_metrics(predicted: Array, truth: Array) -> dict[str, float]:
    """Every metric of CH-SIMS over one whole fold, labels in [-1, 1], and the errors and conventions of any sentiment.

    CH-SIMS' own two classes, [-1, 0] and (0, 1], are `acc2_neg0` and `f1_neg0`: clipping changes no sign.
    """
    clipped, label = np.clip(predicted, -1, 1), np.clip(truth, -1, 1)
    return {
        **error_metrics(predicted, truth),
        "mae_sims": float(np.abs(clipped - label).mean()),
        "corr_sims": correlation(clipped, label),
        "acc3_sims": float((classes_between(clipped, THREE_CLASSES) == classes_between(label, THREE_CLASSES)).mean()),
        "acc5_sims": float((classes_between(clipped, FIVE_CLASSES) == classes_between(label, FIVE_CLASSES)).mean()),
        **binary_metrics(predicted, truth),
    }


def classes_between(values: Array, cuts: tuple[float, ...]) -> NDArray[Any]:
    """Number of cuts below each value, (N,)."""
    # In float32, as labels and predictions are: 0.1 in float32 exceeds 0.1 in float64, and would lie above its cut.
    return np.searchsorted(np.array(cuts, dtype=np.float32), values.astype(np.float32), side="left")
