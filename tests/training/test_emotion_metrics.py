from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mmsa.data.naming import EMOTIONS
from mmsa.training.emotion_metrics import emotion_errors, emotion_metrics


@pytest.fixture
def fold() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = (generator.random((200, 6)) < np.linspace(0.1, 0.6, 6)).astype(np.int64)
    return np.where(generator.random((200, 6)) < 0.2, 1 - target, target), target


def test_each_emotion_is_scored_as_in_the_field(fold: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, targets = fold
    got = emotion_metrics(predictions, targets)
    for name, predicted, truth in zip(EMOTIONS, predictions.T, targets.T, strict=True):
        present, absent = int(truth.sum()), int((1 - truth).sum())
        hits, rejections = int((predicted & truth).sum()), int(((1 - predicted) & (1 - truth)).sum())
        assert got[f"acc2_{name}"] == pytest.approx(accuracy_score(truth, predicted))
        assert got[f"wacc_{name}"] == pytest.approx((hits * absent / present + rejections) / (2 * absent))
        assert got[f"f1_{name}"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
    for family in ("wacc", "f1"):
        assert got[f"{family}_emotions"] == pytest.approx(np.mean([got[f"{family}_{name}"] for name in EMOTIONS]))
    assert got["accuracy"] == pytest.approx((predictions == targets).mean())


def test_an_emotion_that_nobody_has_is_left_out_of_the_mean() -> None:
    targets = np.eye(6, dtype=np.int64)
    targets[:, 5] = 0
    got = emotion_metrics(targets, targets)
    assert math.isnan(got["wacc_fear"]) and got["wacc_emotions"] == got["f1_emotions"] == 1
    nothing = emotion_metrics(np.zeros((3, 6)), np.zeros((3, 6)))
    assert math.isnan(nothing["wacc_emotions"]) and nothing["accuracy"] == 1


def test_degrees_have_an_error_and_a_correlation_each() -> None:
    generator = np.random.default_rng(1)
    targets = generator.choice([0, 0, 1 / 3, 1, 2], (50, 6))
    targets[:, 2] = 0
    predictions = targets + generator.normal(size=(50, 6))
    got = emotion_errors(predictions, targets)
    error = np.abs(predictions - targets)
    assert got["mae"] == pytest.approx(error.mean()) and got["mae_sad"] == pytest.approx(error[:, 1].mean())
    assert got["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert got["corr_disgust"] == pytest.approx(np.corrcoef(predictions[:, 4], targets[:, 4])[0, 1])
    assert math.isnan(got["corr_anger"])
    defined = [got[f"corr_{name}"] for name in EMOTIONS if name != "anger"]
    assert got["corr_emotions"] == pytest.approx(np.mean(defined))


@pytest.mark.parametrize("compute", [emotion_metrics, emotion_errors])
def test_bad_predictions(compute: Callable[..., dict[str, float]]) -> None:
    diverged = np.zeros((3, 6))
    diverged[1, 2] = np.nan
    assert all(math.isnan(value) for value in compute(diverged, np.zeros((3, 6))).values())
    for shapes in (((3,), (3,)), ((3, 1), (3, 6)), ((3, 7), (3, 7)), ((0, 6), (0, 6))):
        with pytest.raises(ValueError, match="N >= 1"):
            compute(np.zeros(shapes[0]), np.zeros(shapes[1]))
