from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from mmsa.analysis import baselines
from mmsa.analysis.baselines import fit_baselines
from mmsa.training.metrics import classification_metrics, regression_metrics

Folds = tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]


def linear_corpus(sizes: dict[str, int], widths: dict[str, int], seed: int = 0) -> Folds:
    """Labels that are linear in text and audio; visual is noise."""
    generator = np.random.default_rng(seed)
    weights = {m: generator.normal(size=width) * (m != "visual") for m, width in widths.items()}
    pooled: dict[str, dict[str, np.ndarray]] = {}
    targets: dict[str, np.ndarray] = {}
    for fold, size in sizes.items():
        pooled[fold] = {m: 5 + 3 * generator.normal(size=(size, width)) for m, width in widths.items()}
        signal = sum((pooled[fold][m] - 5) @ weights[m] / np.sqrt(widths[m]) / 3 for m in widths)
        targets[fold] = np.clip(signal + 0.3 + 0.3 * generator.normal(size=size), -3, 3).astype(np.float32)
    return pooled, targets


@pytest.fixture
def corpus() -> Folds:
    return linear_corpus({"train": 300, "valid": 80, "test": 90}, {"text": 20, "audio": 8, "visual": 5})


def test_every_baseline_is_scored_on_validation_and_test(corpus: Folds) -> None:
    pooled, targets = corpus
    scores = fit_baselines(pooled, targets, regression_metrics)
    assert list(scores) == ["mean", "majority", "ridge text", "ridge audio", "ridge visual", "ridge joint"]
    error = {name: found["test/mae"] for name, found in scores.items()}
    assert error["mean"] == pytest.approx(np.abs(targets["test"] - targets["train"].mean()).mean())
    assert error["ridge joint"] < 0.35 < min(error["ridge text"], error["ridge audio"]) and error["ridge visual"] > 0.7
    assert all({"valid/mae", "test/mae", "test/acc2_non0"} <= set(found) for found in scores.values())


def test_the_test_fold_is_scored_only_where_it_is_given_and_chooses_nothing(corpus: Folds) -> None:
    pooled, targets = corpus
    whole = fit_baselines(pooled, targets, regression_metrics)
    part = {fold: found for fold, found in pooled.items() if fold != "test"}
    without = fit_baselines(part, {fold: targets[fold] for fold in part}, regression_metrics)
    for name, found in without.items():
        assert not [metric for metric in found if metric.startswith("test/")]
        assert all(whole[name][metric] == pytest.approx(value, nan_ok=True) for metric, value in found.items())


def test_ridge_is_scikit_learns_with_the_best_penalty_on_validation(corpus: Folds) -> None:
    pooled, targets = corpus
    scores = fit_baselines(pooled, targets, regression_metrics)
    scaler = StandardScaler().fit(pooled["train"]["text"])
    inputs = {fold: scaler.transform(found["text"]) for fold, found in pooled.items()}
    models = [Ridge(alpha=alpha).fit(inputs["train"], targets["train"]) for alpha in baselines._ALPHAS]
    errors = [regression_metrics(model.predict(inputs["valid"]), targets["valid"])["mae"] for model in models]
    best = models[int(np.argmin(errors))]
    expected = regression_metrics(best.predict(inputs["test"]), targets["test"])
    assert scores["ridge text"]["valid/mae"] == pytest.approx(min(errors), abs=1e-6)
    assert scores["ridge text"]["test/mae"] == pytest.approx(expected["mae"], abs=1e-6)


def test_ridge_is_scikit_learns_where_clipping_takes_from_one_side(corpus: Folds) -> None:
    pooled, targets = corpus
    text = {fold: {"text": found["text"][:, :3]} for fold, found in pooled.items()}
    text["train"]["text"][:9, 0] += 500.0
    text["train"]["text"][9, 1] -= 900.0
    scores = fit_baselines(text, targets, regression_metrics)
    scaler = StandardScaler().fit(text["train"]["text"])
    inputs = {fold: np.clip(scaler.transform(found["text"]), -5, 5) for fold, found in text.items()}
    models = [Ridge(alpha=alpha).fit(inputs["train"], targets["train"]) for alpha in baselines._ALPHAS]
    best = min(models, key=lambda model: float(np.abs(model.predict(inputs["valid"]) - targets["valid"]).mean()))
    expected = regression_metrics(best.predict(inputs["test"]), targets["test"])
    assert scores["ridge text"]["test/mae"] == pytest.approx(expected["mae"], abs=1e-6)


def test_missing_modalities_and_constant_columns_do_no_harm(corpus: Folds) -> None:
    pooled, targets = corpus
    for found in pooled.values():
        found["audio"][::5] = np.nan
        found["visual"][:, 0] = 1e6
    scores = fit_baselines(pooled, targets, regression_metrics)
    assert all(np.isfinite(found["test/mae"]) for found in scores.values())
    assert scores["ridge joint"]["test/mae"] < scores["ridge text"]["test/mae"]


def test_majority_names_the_largest_class_of_each_convention() -> None:
    labels = np.array([0, 0, 0, -1, -1, -1, -1, -2, 1, 1, 1, 2], dtype=np.float32)
    folds = {"train": labels, "valid": labels, "test": labels}
    pooled = {fold: {"text": np.ones((len(labels), 1))} for fold in folds}
    majority = fit_baselines(pooled, folds, regression_metrics)["majority"]
    expected = {"test/acc7": 4 / 12, "test/acc2_has0": 7 / 12, "test/acc2_non0": 5 / 9, "test/acc2_neg0": 8 / 12}
    assert {name: majority[name] for name in expected} == pytest.approx(expected)
    assert majority["test/f1_non0"] == pytest.approx(5 / 9 * (2 * 5 / 14))
    nothing = {fold: np.zeros(4, dtype=np.float32) for fold in folds}
    flat = {fold: {"text": np.ones((4, 1))} for fold in folds}
    assert fit_baselines(flat, nothing, regression_metrics)["majority"]["test/acc7"] == 1
    assert majority["test/mae"] == pytest.approx(np.abs(labels + 1).mean())
    assert majority["test/f1_has0"] == pytest.approx(7 / 12 * (2 * 7 / 19))


def test_classes_get_a_majority_and_logistic_regression(corpus: Folds) -> None:
    pooled, targets = corpus
    classes = {fold: np.digitize(found, [-0.5, 0.5]) for fold, found in targets.items()}
    scores: dict[str, dict[str, Any]] = fit_baselines(pooled, classes, classification_metrics, "classification")
    assert list(scores) == ["majority", "logistic text", "logistic audio", "logistic visual", "logistic joint"]
    share = np.mean(classes["test"] == np.bincount(classes["train"]).argmax())
    assert scores["majority"]["test/accuracy"] == pytest.approx(share)
    assert scores["logistic joint"]["test/accuracy"] > max(0.7, scores["logistic text"]["test/accuracy"])
    one = {fold: np.zeros_like(found) for fold, found in classes.items()}
    assert fit_baselines(pooled, one, classification_metrics, "classification")["logistic joint"]["test/accuracy"] == 1


def test_one_modality_has_no_joint_row(corpus: Folds) -> None:
    pooled, targets = corpus
    text = {fold: {"text": found["text"]} for fold, found in pooled.items()}
    assert list(fit_baselines(text, targets, regression_metrics)) == ["mean", "majority", "ridge text"]


def test_sixteen_thousand_utterances_take_seconds() -> None:
    widths = {"text": 300, "audio": 74, "visual": 35}
    pooled, targets = linear_corpus({"train": 16_000, "valid": 1_800, "test": 4_600}, widths)
    begin = time.perf_counter()
    fit_baselines(pooled, targets, regression_metrics)
    assert time.perf_counter() - begin < 10  # about 1.5 s on an idle core
