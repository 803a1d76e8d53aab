from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from mmsa.training.metrics import regression_metrics
from mmsa.training.sims_metrics import sims_metrics

GRID = np.arange(-5, 6, dtype=np.float32) / 5  # CH-SIMS' labels: -1, -0.8, ..., 1


@pytest.fixture
def fold() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    target = generator.choice(GRID, 300)
    prediction = 0.9 * target + generator.normal(size=300) * 0.5
    prediction[:30], prediction[30:60] = 0.0, generator.choice(GRID, 30)
    return prediction.astype(np.float32), target


def test_both_sides_are_clipped_before_everything(fold: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = fold
    got, clipped = sims_metrics(prediction, target), np.clip(prediction, -1, 1)
    assert got["mae_sims"] == pytest.approx(np.abs(clipped - target).mean())
    assert got["corr_sims"] == pytest.approx(np.corrcoef(clipped, target)[0, 1])
    assert got["mae_sims"] < got["mae"] and got["corr_sims"] != got["corr"], "the fold must hold what is clipped"
    beyond = sims_metrics(np.array([7.0, -7.0]), np.array([1.0, -1.0]))
    assert beyond["mae_sims"] == 0 and beyond["acc5_sims"] == beyond["acc2_neg0"] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_on_a_cut_belongs_to_the_class_below(dtype: type[np.floating]) -> None:
    values: np.ndarray = np.array([-0.8, -0.7, -0.6, -0.1, 0.0, 0.1, 0.2, 0.7, 0.8], dtype=dtype)
    three = [-1, -1, -1, -1, 0, 0, 1, 1, 1]
    five = [-2, -2, -1, -1, 0, 0, 1, 1, 2]
    inside = {3: np.array([-0.5, 0.05, 0.5]), 5: np.array([-0.9, -0.3, 0.05, 0.3, 0.9])}
    for number, classes in ((3, three), (5, five)):
        middle = inside[number][np.array(classes) + number // 2]
        assert sims_metrics(values, middle)[f"acc{number}_sims"] == 1
        assert sims_metrics(middle, values)[f"acc{number}_sims"] == 1


def test_its_two_classes_put_zero_among_the_negative(fold: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, target = fold
    got = sims_metrics(prediction, target)
    predicted, truth = np.clip(prediction, -1, 1) > 0, target > 0
    assert got["acc2_neg0"] == pytest.approx(accuracy_score(truth, predicted))
    assert got["f1_neg0"] == pytest.approx(f1_score(truth, predicted, average="weighted"))


def test_what_needs_no_scale_is_that_of_any_sentiment(fold: tuple[np.ndarray, np.ndarray]) -> None:
    ours, other = sims_metrics(*fold), regression_metrics(*fold)
    assert {name for name in other if name not in ours} == {"acc7", "acc7_away", "acc5"}
    assert {name: ours[name] for name in ours if name in other} == {n: other[n] for n in other if n in ours}


def test_undefined_is_nan_and_shapes_are_checked() -> None:
    assert math.isnan(sims_metrics(np.array([2.0, 3.0]), np.array([0.2, 1.0]))["corr_sims"])  # both are clipped to 1
    assert all(math.isnan(value) for value in sims_metrics(np.array([np.nan, 1.0]), np.array([-1.0, 1.0])).values())
    with pytest.raises(ValueError, match="N >= 1"):
        sims_metrics(np.zeros((3, 1)), np.zeros(3))
