"""Metrics of the field, computed on a whole fold at once; every convention has a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsa.data.naming import EMOTIONS

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Score = Callable[[NDArray[Any], NDArray[Any]], dict[str, float]]
"""(predictions, labels) -> metrics by name."""
Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Metric:
    """The definition of a metric, in one line, and whether a smaller or a larger value is better."""

    definition: str
    mode: Mode


_BINARY = {
    "has0": "all utterances, >= 0 against < 0 (zeros are positive)",
    "non0": "labels other than 0, > 0 against < 0; a prediction of exactly 0 is negative",
    "non0_geq": "labels other than 0, > 0 against < 0; a prediction of exactly 0 is positive",
    "neg0": "all utterances, > 0 against <= 0 (zeros are negative)",
}

METRICS: dict[str, Metric] = {
    "loss": Metric("the training objective", "min"),
    "mae": Metric("mean absolute error, neither side clipped", "min"),
    "rmse": Metric("root of the mean squared error, neither side clipped", "min"),
    "corr": Metric("Pearson correlation; NaN where predictions or labels are constant", "max"),
    "acc7": Metric("share of equal classes after clipping to [-3, 3] and rounding half to even", "max"),
    "acc7_away": Metric("share of equal classes after rounding away from zero to -3..3 (CMU's MOSEI map)", "max"),
    "acc5": Metric("share of equal classes after clipping to [-2, 2] and rounding half to even", "max"),
    **{f"acc2_{name}": Metric(f"binary accuracy: {rule}", "max") for name, rule in _BINARY.items()},
    **{f"f1_{name}": Metric(f"F1 weighted by the true class sizes: {rule}", "max") for name, rule in _BINARY.items()},
    **{
        f"f1_{name}_swapped": Metric(f"F1 weighted by the predicted class sizes (MulT, MISA, M3): {rule}", "max")
        for name, rule in _BINARY.items()
    },
    "accuracy": Metric("share of right classes: one per utterance, or one per utterance and emotion", "max"),
    "f1_weighted": Metric("F1 per class, weighted by the true class sizes", "max"),
    "f1_macro": Metric("F1 per class, mean over the classes that occur", "max"),
    "recall_macro": Metric("recall per class, mean over the classes among the labels (unweighted accuracy)", "max"),
    "mae_sims": Metric("mean absolute error after clipping both sides to [-1, 1]", "min"),
    "corr_sims": Metric("Pearson correlation after clipping both sides to [-1, 1]", "max"),
    "acc3_sims": Metric("share of equal classes of [-1, -0.1], (-0.1, 0.1], (0.1, 1], after clipping", "max"),
    "acc5_sims": Metric(
        "share of equal classes of [-1, -0.7], (-0.7, -0.1], (-0.1, 0.1], (0.1, 0.7], (0.7, 1], after clipping", "max"
    ),
    "corr_emotions": Metric("mean of the six `corr_*`, over those that are defined", "max"),
    "wacc_emotions": Metric("mean of the six `wacc_*`, over those that are defined", "max"),
    "f1_emotions": Metric("mean of the six `f1_*`", "max"),
    **{f"mae_{name}": Metric(f"mean absolute error: {name}", "min") for name in EMOTIONS},
    **{f"corr_{name}": Metric(f"Pearson correlation: {name}", "max") for name in EMOTIONS},
    **{f"acc2_{name}": Metric(f"binary accuracy: {name} present (above 0) or absent", "max") for name in EMOTIONS},
    **{
        f"wacc_{name}": Metric(f"weighted accuracy, the mean of the recalls of present and absent: {name}", "max")
        for name in EMOTIONS
    },
    **{
        f"f1_{name}": Metric(f"F1 of present and absent, weighted by the true class sizes: {name}", "max")
        for name in EMOTIONS
    },
}

_PRINTED = {
    "loss": "loss", "mae": "MAE", "rmse": "RMSE", "corr": "Corr", "f1": "F1", "accuracy": "Acc", "wacc": "WAcc",
    "recall": "Recall",
}  # fmt: skip


def metric_mode(name: str) -> Mode:
    """Whether a smaller or a larger value is better.

    Args:
        name: a key of METRICS, or `fold/key`.

    Raises:
        KeyError: no such metric.
    """
    return METRICS[name.rpartition("/")[2]].mode


def is_share(name: str) -> bool:
    """Whether a metric is an accuracy, a recall or an F1, of which papers print percent."""
    return name in METRICS and name.startswith(("acc", "wacc", "recall", "f1"))


def printed(name: str) -> str:
    """A metric's name as papers print it, such as Acc-7 or F1 (non0); one that is not ours as it is."""
    if name not in METRICS:
        return name
    first, *rest = name.split("_")
    kind = _PRINTED.get(first) or f"Acc-{first.removeprefix('acc')}"
    return f"{kind} ({', '.join(rest)})".replace("sims", "SIMS") if rest else kind


def over_fold(compute: Score, columns: Sequence[str] = ()) -> Score:
    """Make of metrics of finite float64 arrays those of a whole fold; all are NaN where a prediction is not finite.

    Args:
        compute: (predictions, labels) -> metrics by name.
        columns: of several numbers per utterance their names.

    Shapes:
        prediction (N,), target (N,), N >= 1; or (N, K) of K columns.

    Raises:
        ValueError: by the metrics: the shapes are not these.
    """

    @wraps(compute)
    def metrics(prediction: NDArray[Any], target: NDArray[Any]) -> dict[str, float]:
        predicted, truth = np.asarray(prediction, dtype=np.float64), np.asarray(target, dtype=np.float64)
        _check_shapes(predicted, truth, columns)
        if not np.isfinite(predicted).all():  # a diverged model must not earn the accuracy of "everything is negative"
            return dict.fromkeys(compute(np.zeros_like(predicted), truth), float("nan"))
        return compute(predicted, truth)

    return metrics


@over_fold
def regression_metrics(predicted: Array, truth: Array) -> dict[str, float]:
    """Every regression metric of METRICS over one whole fold, of any real values and labels on the scale [-3, 3].

    Labels beyond it are clipped where the definition says so. A metric that is not defined is NaN: `corr` of a
    constant, `*_non0*` without a label other than 0.
    """
    return {
        **error_metrics(predicted, truth),
        "acc7": float((rounded(predicted, 3) == rounded(truth, 3)).mean()),
        "acc7_away": float((rounded_away(predicted) == rounded_away(truth)).mean()),
        "acc5": float((rounded(predicted, 2) == rounded(truth, 2)).mean()),
        **binary_metrics(predicted, truth),
    }


def error_metrics(predicted: Array, truth: Array) -> dict[str, float]:
    """Errors and correlation, which assume no scale. Shapes: predicted (N,), truth (N,)."""
    error = predicted - truth
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "corr": correlation(predicted, truth),
    }


def binary_metrics(predicted: Array, truth: Array) -> dict[str, float]:
    """Accuracy and both F1 of every binary convention. Shapes: predicted (N,), truth (N,)."""
    metrics: dict[str, float] = {}
    for name, (counting, predicted_class, true_class) in binary_classes(predicted, truth).items():
        counts = Counts.of(predicted_class[counting].astype(np.int64), true_class[counting].astype(np.int64))
        metrics[f"acc2_{name}"] = counts.accuracy
        metrics[f"f1_{name}"] = counts.f1(counts.true)
        metrics[f"f1_{name}_swapped"] = counts.f1(counts.predicted)
    return metrics


def binary_classes(predicted: Array, truth: Array) -> dict[str, tuple[Bools, Bools, Bools]]:
    """Per binary convention the utterances that count, those predicted positive, and those labelled so; (N,) each."""
    every, polar = np.ones(truth.shape, dtype=bool), truth != 0
    return {
        "has0": (every, predicted >= 0, truth >= 0),
        "non0": (polar, predicted > 0, truth > 0),
        "non0_geq": (polar, predicted >= 0, truth > 0),
        "neg0": (every, predicted > 0, truth > 0),
    }


def classification_metrics(prediction: NDArray[np.generic], target: NDArray[np.integer]) -> dict[str, float]:
    """Every classification metric of METRICS over one whole fold.

    Args:
        prediction: class numbers from 0 on, or one score per class, of which the first largest wins.
        target: class numbers from 0 on.

    Shapes:
        prediction (N,) or (N, C), target (N,), N >= 1.

    Raises:
        ValueError: the shapes do not fit, or a class number is negative.
    """
    scores = np.asarray(prediction)
    if scores.ndim == 2 and not np.isfinite(scores).all():
        return dict.fromkeys(("accuracy", "f1_weighted", "f1_macro", "recall_macro"), float("nan"))
    predicted, truth = scores.argmax(axis=1) if scores.ndim == 2 else scores, np.asarray(target)
    _check_shapes(predicted, truth)
    counts = Counts.of(predicted.astype(np.int64), truth.astype(np.int64))
    present = (counts.true + counts.predicted) > 0
    labelled = counts.true > 0
    return {
        "accuracy": counts.accuracy,
        "f1_weighted": counts.f1(counts.true),
        "f1_macro": counts.f1(present),
        "recall_macro": counts.recall(labelled),
    }


@dataclass(frozen=True)
class Counts:
    """Per class (C,): utterances of the class that were found, labelled as it, and predicted as it."""

    hits: NDArray[np.int64]
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @classmethod
    def of(cls, predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> Counts:
        """Of classes from 0 on. Shapes: predicted (N,), truth (N,)."""
        num_classes = int(max(predicted.max(initial=0), truth.max(initial=0))) + 1
        hits = np.bincount(truth[predicted == truth], minlength=num_classes)
        return cls(hits, np.bincount(truth, minlength=num_classes), np.bincount(predicted, minlength=num_classes))

    @property
    def accuracy(self) -> float:
        """Share of utterances whose class is right; NaN without any."""
        total = int(self.true.sum())
        return float(self.hits.sum() / total) if total else float("nan")

    def recall(self, classes: NDArray[np.bool_]) -> float:
        """The mean of these classes' recalls, each of which is among the labels."""
        return float((self.hits[classes] / self.true[classes]).mean())

    def f1(self, weights: NDArray[np.integer] | NDArray[np.bool_]) -> float:
        """The mean of the classes' F1, weighted; a class nobody names or predicts counts 0."""
        if not weights.sum():
            return float("nan")
        per_class = 2 * self.hits / np.maximum(self.true + self.predicted, 1)  # (C,)
        return float((per_class * weights).sum() / weights.sum())


def _check_shapes(prediction: NDArray[Any], target: NDArray[Any], columns: Sequence[str] = ()) -> None:
    num = prediction.size // max(len(columns), 1)
    shape = (num, len(columns)) if columns else (num,)
    if not num or not prediction.shape == target.shape == shape:  # (N, 1) would broadcast
        needed = f"(N, {len(columns)})" if columns else "(N,)"
        raise ValueError(f"metrics need two {needed} arrays with N >= 1; got {prediction.shape} and {target.shape}.")


def correlation(prediction: Array, target: Array) -> float:
    """Pearson's, NaN where one side is constant. Shapes: prediction (N,), target (N,) -> scalar."""
    if np.ptp(prediction) == 0 or np.ptp(target) == 0:  # by range: rounding leaves a constant a tiny variance
        return float("nan")
    first, second = prediction - prediction.mean(), target - target.mean()
    scale = np.sqrt(first @ first) * np.sqrt(second @ second)
    return float((first @ second) / scale) if scale > 0 else float("nan")


def rounded(values: Array, bound: int) -> Array:
    """The classes of acc7 and acc5, (N,) -> (N,)."""
    return np.rint(np.clip(values, -bound, bound))  # half to even, as in every reference


def rounded_away(values: Array) -> Array:
    """The classes of acc7_away, (N,) -> (N,)."""
    return np.sign(values) * np.minimum(np.ceil(np.abs(values)), 3)
