from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from mmsa.training.emotion_metrics import emotion_errors, emotion_metrics
from mmsa.training.metrics import METRICS, classification_metrics, metric_mode, regression_metrics
from mmsa.training.sims_metrics import sims_metrics


@pytest.fixture
def fold() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = generator.choice(np.array([-3, -2, -1.5, -1, -1 / 3, 0, 0, 0.5, 1, 5 / 3, 2, 10 / 3]), 300)
    prediction = target * 0.5 + generator.normal(size=300) * 1.2 + 0.3
    prediction[:40] = 0.0
    return prediction.astype(np.float32), target.astype(np.float32)


def test_binary_conventions_agree_with_scikit_learn(fold: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = fold
    got = regression_metrics(prediction, target)
    polar = target != 0
    pairs = {
        "has0": (prediction >= 0, target >= 0),
        "non0": (prediction[polar] > 0, target[polar] > 0),
        "non0_geq": (prediction[polar] >= 0, target[polar] > 0),
        "neg0": (prediction > 0, target > 0),
    }
    for name, (predicted, truth) in pairs.items():
        assert got[f"acc2_{name}"] == pytest.approx(accuracy_score(truth, predicted))
        assert got[f"f1_{name}"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
        assert got[f"f1_{name}_swapped"] == pytest.approx(f1_score(predicted, truth, average="weighted"))
    assert len({round(got[f"acc2_{name}"], 6) for name in pairs}) == 4, "the fold must tell the conventions apart"


def test_errors_and_correlation_are_neither_clipped_nor_rounded(fold: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = (part.astype(np.float64) for part in fold)
    got = regression_metrics(prediction, target)
    assert got["mae"] == pytest.approx(np.abs(prediction - target).mean())
    assert got["rmse"] == pytest.approx(np.sqrt(((prediction - target) ** 2).mean()))
    assert got["corr"] == pytest.approx(np.corrcoef(prediction, target)[0, 1])


def test_rounding_is_half_to_even_after_clipping() -> None:
    target = np.array([0.0, 2.0, 2.0, 3.0, -3.0, 2.0])
    prediction = np.array([0.5, 1.5, 2.5, 9.0, -2.4, 3.0])
    got = regression_metrics(prediction, target)
    assert got["acc7"] == pytest.approx(4 / 6)  # 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 9 -> 3; -2.4 and 3 are wrong
    assert got["acc5"] == 1.0  # five collapsed classes: everything beyond 2 is one class


def test_the_other_seven_class_map_rounds_away_from_zero() -> None:
    got = regression_metrics(np.array([0.2, 1.0, -1.2, 2.1, 0.0]), np.array([1.0, 1 / 3, -2.0, 5.0, 0.0]))
    assert got["acc7_away"] == 1.0 and got["acc7"] == pytest.approx(1 / 5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -2.7])
def test_a_constant_prediction_has_no_correlation(constant: float) -> None:
    target = np.random.default_rng(1).normal(size=3)
    got = regression_metrics(np.full(3, constant), target)  # the mean of three times 0.1 is not 0.1
    assert math.isnan(got["corr"]) and all(math.isfinite(value) for name, value in got.items() if name != "corr")


def test_one_utterance_is_a_fold() -> None:
    got = regression_metrics(np.array([0.4]), np.array([0.5]))
    assert got["acc2_non0"] == 1.0 and got["mae"] == pytest.approx(0.1) and math.isnan(got["corr"])


def test_labels_that_are_all_zero_leave_non0_undefined() -> None:
    got = regression_metrics(np.array([0.4, -1.0]), np.zeros(2))
    undefined = {name for name, value in got.items() if math.isnan(value)}
    assert undefined == {"corr"} | {name for name in got if "non0" in name}


def test_a_diverged_prediction_scores_nothing() -> None:
    got = regression_metrics(np.array([np.nan, 1.0, -1.0]), np.array([-1.0, 1.0, -1.0]))
    assert all(math.isnan(value) for value in got.values())


def test_the_order_of_the_utterances_changes_nothing(fold: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = fold
    order = np.random.default_rng(2).permutation(len(target))
    assert regression_metrics(prediction[order], target[order]) == pytest.approx(regression_metrics(prediction, target))


@pytest.mark.parametrize("shapes", [((3, 1), (3,)), ((3,), (4,)), ((0,), (0,))])
def test_shapes_that_would_broadcast_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="N >= 1"):
        regression_metrics(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_classes_and_scores_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    scores, target = generator.normal(size=(80, 4)), generator.integers(0, 3, size=80)  # class 3 is never true
    got = classification_metrics(scores, target)
    classes = scores.argmax(axis=1)
    assert got == classification_metrics(classes, target)
    assert got["accuracy"] == pytest.approx(accuracy_score(target, classes))
    assert got["f1_weighted"] == pytest.approx(f1_score(target, classes, average="weighted"))
    assert got["f1_macro"] == pytest.approx(f1_score(target, classes, average="macro"))
    true_classes = [0, 1, 2]
    assert got["recall_macro"] == pytest.approx(recall_score(target, classes, labels=true_classes, average="macro"))


def test_every_metric_is_described(fold: tuple[np.ndarray, np.ndarray]) -> None:
    computed = set(regression_metrics(*fold)) | set(classification_metrics(np.array([0, 1]), np.array([0, 1])))
    computed |= set(sims_metrics(*fold))
    computed |= {
        *emotion_metrics(np.zeros((2, 6)), np.zeros((2, 6))),
        *emotion_errors(np.zeros((2, 6)), np.ones((2, 6))),
    }
    assert computed | {"loss"} == set(METRICS)
    assert metric_mode("test/mae") == "min" and metric_mode("acc7") == "max"
