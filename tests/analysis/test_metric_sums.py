from __future__ import annotations

import numpy as np
import pytest

from mmsa.analysis.metric_sums import metric_sums
from mmsa.data.naming import EMOTIONS
from mmsa.training.emotion_metrics import emotion_errors, emotion_metrics
from mmsa.training.kinds import KINDS
from mmsa.training.metrics import METRICS, Score, classification_metrics

RNG = np.random.default_rng(0)
LABELS = RNG.choice(np.array([-3, -2, -4 / 3, -1, -0.1, 0, 0, 0.7, 1, 2, 10 / 3]), 120)
SIGNS = RNG.choice([-1.0, 1.0], 120)
CLASSES = RNG.choice([0, 1, 4], 120)
DEGREES = np.maximum(RNG.normal(size=(120, 6)), 0)
PRESENT = (DEGREES > 0.3).astype(int)


def near(labels: np.ndarray) -> np.ndarray:
    return labels * 0.5 + RNG.normal(size=labels.shape)


TASKS: dict[str, tuple[Score, np.ndarray, np.ndarray]] = {
    "sentiment": (KINDS["sentiment"].score, near(LABELS), LABELS),
    "sims": (KINDS["sims"].score, near(LABELS / 3), LABELS / 3),
    "binary": (KINDS["binary"].score, near(SIGNS), SIGNS),
    "number": (KINDS["number"].score, near(LABELS) + 1e6, LABELS),
    "emotions": (emotion_errors, near(DEGREES), DEGREES),
    "classes": (classification_metrics, np.where(RNG.random(120) < 0.6, CLASSES, RNG.permutation(CLASSES)), CLASSES),
    "presence": (emotion_metrics, np.where(RNG.random((120, 6)) < 0.7, PRESENT, 1 - PRESENT), PRESENT),
    "constant": (KINDS["sentiment"].score, np.full(120, 0.1), LABELS),
    "one class": (classification_metrics, np.full(120, 4), CLASSES),
    "nobody happy": (emotion_metrics, PRESENT * 0, PRESENT * np.array([0, 1, 1, 1, 1, 1])),
    "no polar label": (KINDS["sentiment"].score, near(LABELS), LABELS * 0),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_of_every_resample_is_that_of_the_task(task: str) -> None:
    """Sums weighted by how often an utterance is drawn, against the task's own function on the drawn utterances."""
    score, predicted, truth = TASKS[task]
    drawn = [np.arange(120), *RNG.integers(0, 120, size=(4, 120)), RNG.integers(0, 120, size=7), np.array([3, 3, 3])]
    weights = np.stack([np.bincount(rows, minlength=120) for rows in drawn]).astype(float)
    wanted = [score(predicted[rows], truth[rows]) for rows in drawn]
    for metric in wanted[0]:
        found = metric_sums(metric, predicted.astype(float), truth.astype(float))
        assert found is not None, metric
        got = found.value(weights @ found.parts)
        assert got == pytest.approx([one[metric] for one in wanted], abs=1e-7, nan_ok=True), metric
        assert found.whole == pytest.approx(wanted[0][metric], abs=1e-9, nan_ok=True)


def test_every_metric_but_the_loss_comes_from_some_task() -> None:
    shapes = {1: np.ones(3), 2: np.ones((3, 6))}
    assert [m for m in METRICS if not any(metric_sums(m, one, one) for one in shapes.values())] == ["loss"]
    assert metric_sums("loss", shapes[1], shapes[1]) is None and metric_sums("corr", shapes[2], shapes[2]) is None
    assert metric_sums("mae", np.ones((3, 2)), np.ones((3, 2))) is None
    assert metric_sums("f1_macro", np.arange(101.0), np.arange(101.0)) is None, "no classes"


@pytest.mark.parametrize("task", TASKS)
def test_a_mean_is_one_whose_utterances_the_labels_choose(task: str) -> None:
    _, predicted, truth = TASKS[task]
    for metric in METRICS:
        found = metric_sums(metric, predicted.astype(float), truth.astype(float))
        mean_by_name = metric.startswith(("mae", "acc"))
        assert found is None or found.is_mean == mean_by_name, metric
        if found is not None and found.is_mean:
            other = metric_sums(metric, predicted[::-1].astype(float), truth.astype(float))
            assert other is not None and np.array_equal(other.parts[:, 1], found.parts[:, 1])


def test_columns_are_those_of_the_emotions() -> None:
    error = np.zeros((2, 6))
    error[:, EMOTIONS.index("anger")] = 1.0
    found = metric_sums("mae_anger", error, np.zeros((2, 6)))
    assert found is not None and found.whole == 1.0
