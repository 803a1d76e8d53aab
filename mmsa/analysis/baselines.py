"""The baselines of every table: constants, and linear models on mean-pooled features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Metrics = Callable[[NDArray[Any], NDArray[Any]], dict[str, float]]
Fit = Callable[[Mapping[str, Array], Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]

_ALPHAS = tuple(10.0**power for power in range(-1, 6))
_CLIP = 5.0  # standard deviations: one unseen speaker's outlier would else decide a linear model's error
_INVERSE_STRENGTHS = (0.001, 0.01, 0.1, 1.0)


def fit_baselines(
    pooled: Mapping[str, Mapping[str, Array]],
    targets: Mapping[str, NDArray[Any]],
    metrics: Metrics,
    task: str = "regression",
    levels: Sequence[float] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
    finest: str = "acc7",
) -> dict[str, dict[str, float]]:
    """Fit every baseline on the train fold, choose its strength on the validation fold, and score it.

    Args:
        pooled: fold -> modality -> one vector per utterance, NaN rows where the modality is missing.
            `train` and `valid` are needed; the test fold is scored only where it is given.
        targets: fold -> labels, or class numbers.
        metrics: (predictions, targets) -> metrics of a whole fold.
        task: regression gives mean, majority and ridge; classification gives majority and logistic regression.
        levels: of a regression one value in each of its finest classes; none leaves the majority out.
        finest: the accuracy over these classes.

    Shapes:
        pooled (N, D) per fold and modality, targets (N,) per fold, or (N, K), whose columns are fitted one by one.

    Returns:
        baseline -> `fold/metric` -> value, for the folds valid and test.
    """
    folds = [fold for fold in ("valid", "test") if fold in targets]
    scores: dict[str, dict[str, float]] = {}

    def score(name: str, predict: Callable[[str], NDArray[Any]]) -> None:
        found = {fold: metrics(predict(fold), targets[fold]) for fold in folds}
        scores[name] = {f"{fold}/{metric}": value for fold in folds for metric, value in found[fold].items()}

    train = np.asarray(targets["train"])
    if task == "regression":
        mean = train.mean(axis=0, dtype=np.float64)
        score("mean", lambda fold: np.full(targets[fold].shape, mean))
        if levels:
            scores["majority"] = _majority_scores(targets, metrics, folds, levels, finest)
        fit, kind = _fit_ridge, "ridge"
    else:
        most = np.apply_along_axis(lambda column: np.bincount(column).argmax(), 0, train.astype(np.int64))
        score("majority", lambda fold: np.full(targets[fold].shape, most))
        fit, kind = _fit_logistic, "logistic"
    modalities = list(pooled["train"])
    views = {modality: [modality] for modality in modalities}
    if len(modalities) > 1:
        views["joint"] = modalities
    for view, parts in views.items():
        joined = {fold: np.concatenate([pooled[fold][part] for part in parts], axis=1) for fold in ("train", *folds)}
        predictions = _by_column(fit, _standardised(joined), targets)
        score(f"{kind} {view}", predictions.__getitem__)
    return scores


def _by_column(fit: Fit, features: Mapping[str, Array], targets: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Predictions per fold, of each column of the targets alone where they have columns."""
    if np.ndim(targets["train"]) == 1:
        return fit(features, targets)
    num_columns = np.shape(targets["train"])[1]
    columns = [fit(features, {fold: values[:, k] for fold, values in targets.items()}) for k in range(num_columns)]
    return {fold: np.stack([column[fold] for column in columns], axis=1) for fold in features}


def _majority_scores(
    targets: Mapping[str, NDArray[Any]],
    metrics: Metrics,
    folds: list[str],
    constants: Sequence[float],
    finest: str,
) -> dict[str, float]:
    """Each metric of the constant that names the train fold's largest class in that metric's own classes.

    The binary conventions and the finest classes do not share a majority; what counts no classes (errors, correlation)
    is that of the largest of the finest.
    """
    train = np.asarray(targets["train"])
    on_train = [metrics(np.full(len(train), constant), train) for constant in constants]
    scores: dict[str, float] = {}
    for fold in folds:
        by_constant = [metrics(np.full(len(targets[fold]), constant), targets[fold]) for constant in constants]
        for name in by_constant[0]:
            chosen_by = name if name.startswith(("acc", "f1_")) else finest
            shares = [found[chosen_by] for found in on_train]
            if np.isnan(shares).all():  # no train label has a sign
                shares = [found[finest] for found in on_train]
            scores[f"{fold}/{name}"] = by_constant[int(np.nanargmax(shares))][name]
    return scores


def _standardised(features: Mapping[str, Array]) -> dict[str, Array]:
    """Unit variance by the train fold, clipped, then zero mean; missing rows become its mean, constant columns 0."""
    mean = _present_mean(features["train"])
    scale = np.sqrt(_present_mean(np.square(features["train"] - mean)))
    constant = scale <= 1e-12 * (1.0 + np.abs(mean))
    scale[constant] = np.inf
    clipped = {fold: np.clip((values - mean) / scale, -_CLIP, _CLIP) for fold, values in features.items()}
    centre = _present_mean(clipped["train"])  # no longer 0 where clipping took from one side
    return {fold: np.nan_to_num(values - centre, nan=0.0) for fold, values in clipped.items()}


def _present_mean(values: Array) -> Array:
    """(N, D) -> (D,) means over the rows that are not missing, 0 where all are."""
    present = ~np.isnan(values)
    return np.where(present, values, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)


def _fit_ridge(features: Mapping[str, Array], targets: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """Predictions per fold of the penalty with the smallest validation MAE.

    One decomposition serves all penalties: on the 16,000 utterances of CMU-MOSEI this takes a second, not ten.
    """
    train = np.asarray(targets["train"], dtype=np.float64)
    intercept = train.mean()  # the ridge's own, since the features have mean 0 on the train fold
    values, vectors = np.linalg.eigh(features["train"].T @ features["train"])  # (D,), (D, D)
    rotated = vectors.T @ (features["train"].T @ (train - intercept))  # (D,)
    weights = [vectors @ (rotated / (np.maximum(values, 0.0) + alpha)) for alpha in _ALPHAS]
    errors = [np.abs(features["valid"] @ weight + intercept - targets["valid"]).mean() for weight in weights]
    best = weights[int(np.argmin(errors))]
    return {fold: part @ best + intercept for fold, part in features.items()}


def _fit_logistic(features: Mapping[str, Array], targets: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Predicted classes per fold of the strength with the best validation accuracy."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train = np.asarray(targets["train"])
    if len(np.unique(train)) == 1:  # nothing to tell apart
        return {fold: np.full(len(part), train[0]) for fold, part in features.items()}
    models = [LogisticRegression(C=strength, max_iter=200) for strength in _INVERSE_STRENGTHS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a baseline that stops early is a baseline all the same
        for model in models:
            model.fit(features["train"], train)
    hits = [np.mean(model.predict(features["valid"]) == targets["valid"]) for model in models]
    best = models[int(np.argmax(hits))]
    return {fold: best.predict(part) for fold, part in features.items()}
