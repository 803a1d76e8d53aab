"""The vectorised aligner does what an obvious one does."""

from __future__ import annotations

import numpy as np
import pytest

from mmsa.data.readers.align import EPSILON, mean_onto, overlapping


def obvious_rows(intervals: np.ndarray, span: np.ndarray) -> list[int]:
    """Rows of `intervals` that overlap `span`, one by one."""
    rows = []
    for row, (start, end) in enumerate(intervals.astype(float)):
        overlap = min(end, float(span[1])) - max(start, float(span[0]))
        if overlap > EPSILON:
            rows.append(row)
    return sorted(rows, key=lambda row: float(intervals[row, 0]))


def random_intervals(rng: np.random.Generator, count: int) -> np.ndarray:
    """Unsorted intervals: overlapping, nested, far apart, of length zero, touching, and in float32 or float64."""
    starts = rng.uniform(0, 10, count)
    lengths = rng.choice([0.0, 1e-6, 0.05, 0.5, 6.0], count) * rng.uniform(0.5, 1, count)
    intervals = np.stack([starts, starts + lengths], axis=1)
    touching = rng.random(count) < 0.3
    intervals[1:][touching[1:], 0] = intervals[:-1][touching[1:], 1]
    return intervals.astype(np.float32 if rng.random() < 0.5 else np.float64).astype(np.float64)


@pytest.mark.parametrize("seed", range(60))
def test_overlaps_equal_the_obvious_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    intervals, onto = random_intervals(rng, int(rng.integers(0, 60))), random_intervals(rng, int(rng.integers(0, 40)))
    rows, counts = overlapping(intervals, onto)
    expected = [obvious_rows(intervals, span) for span in onto]
    assert counts.tolist() == [len(group) for group in expected]
    assert rows.tolist() == [row for group in expected for row in group]


@pytest.mark.parametrize("seed", range(20))
def test_means_equal_the_obvious_ones_and_a_nan_touches_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    intervals, onto = random_intervals(rng, 80), random_intervals(rng, 30)
    features = rng.normal(0, 100, (80, 3)).astype(np.float32)
    features[rng.integers(0, 80, 4), 1] = rng.choice([np.nan, np.inf, -np.inf], 4)
    means, covered = mean_onto(intervals, features, onto)
    assert means.dtype == np.float32
    for k, span in enumerate(onto):
        rows = obvious_rows(intervals, span)
        assert covered[k] == bool(rows)
        with np.errstate(invalid="ignore"):
            expected = features[rows].astype(float).mean(axis=0) if rows else np.zeros(3)
        np.testing.assert_allclose(means[k], expected, rtol=1e-6, atol=1e-6)


def test_a_small_value_after_a_huge_one_is_not_cancelled() -> None:
    intervals = np.array([[0.0, 1.0], [1.0, 2.0]])
    means, _ = mean_onto(intervals, np.array([[1e30], [1e-3]], dtype=np.float32), intervals)
    np.testing.assert_allclose(means[:, 0], [1e30, 1e-3], rtol=1e-6)


@pytest.mark.parametrize(("gap", "counts"), [(EPSILON / 2, 0), (EPSILON * 2, 1)])
def test_an_overlap_counts_only_beyond_epsilon(gap: float, counts: int) -> None:
    assert overlapping(np.array([[0.0, 1.0]]), np.array([[1.0 - gap, 2.0]]))[1].tolist() == [counts]


def test_intervals_of_one_start_keep_their_order() -> None:
    intervals = np.stack([np.tile([0.5, 0.0], 100), np.ones(200)], axis=1)
    assert overlapping(intervals, np.array([[0.0, 1.0]]))[0].tolist() == [*range(1, 200, 2), *range(0, 200, 2)]


def test_an_interval_that_is_no_number_never_overlaps() -> None:
    rows, counts = overlapping(
        np.array([[np.nan, 1.0], [0.0, np.nan], [0.0, 1.0]]), np.array([[0.0, 1.0], [np.nan, 1.0]])
    )
    assert rows.tolist() == [2]
    assert counts.tolist() == [1, 0]
