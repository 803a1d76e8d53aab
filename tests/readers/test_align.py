"""The vectorised aligner does what an obvious one does."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsa.readers import align
from mmsa.readers.align import EPSILON, mean_onto, overlapping


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


@st.composite
def lattice(draw: st.DrawFn, least: int = 0) -> np.ndarray:
    """Up to 12 intervals whose ends coincide, or nearly so: by less than EPSILON, by more, or not at all."""
    near = st.sampled_from([0.0, 0.3 * EPSILON, 3 * EPSILON])  # no sum of two differences is EPSILON
    count = draw(st.integers(least, 12))
    start = np.array(draw(st.lists(st.integers(0, 16), min_size=count, max_size=count)), dtype=float) / 4
    steps = np.array(draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)), dtype=float) / 4
    shifts = np.array(draw(st.lists(st.tuples(near, near), min_size=count, max_size=count))).reshape(-1, 2)
    return np.stack([start, start + steps], axis=1).reshape(-1, 2) + shifts


DTYPES = st.sampled_from(["float32", "float64", "int16", "int64", "uint8", "float16"])


@settings(deadline=None, max_examples=150)
@given(lattice(), lattice(), DTYPES, st.sampled_from([1, 7, 1 << 20]), st.integers(0, 2**31))
def test_any_intervals_and_numbers_give_the_obvious_means(
    intervals: np.ndarray, onto: np.ndarray, dtype: str, at_once: int, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 100, (len(intervals), 2)).astype(dtype)
    with pytest.MonkeyPatch.context() as patched:  # however few pairs are tested at once
        patched.setattr(align, "_PAIRS", at_once)
        patched.setattr(align, "_VALUES", at_once)
        rows, counts = overlapping(intervals, onto)
        means, covered = mean_onto(intervals, values, onto)
    expected = [obvious_rows(intervals, span) for span in onto]
    assert counts.tolist() == [len(group) for group in expected]
    assert rows.tolist() == [row for group in expected for row in group]
    assert covered.tolist() == [bool(group) for group in expected]
    for mean, group in zip(means, expected, strict=True):
        obvious = [sum(float(values[row, i]) for row in group) / max(1, len(group)) for i in range(2)]
        np.testing.assert_allclose(mean, obvious, rtol=1e-5, atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(lattice(), lattice(), st.randoms(use_true_random=False))
def test_the_order_of_the_intervals_changes_no_mean(
    intervals: np.ndarray, onto: np.ndarray, shuffler: random.Random
) -> None:
    order = list(range(len(intervals)))
    shuffler.shuffle(order)
    values = np.arange(len(intervals), dtype=np.float32)[:, None]
    straight, _ = mean_onto(intervals, values, onto)
    shuffled, _ = mean_onto(intervals[order], values[order], onto)
    np.testing.assert_allclose(shuffled, straight, rtol=1e-6)


def test_one_frame_as_long_as_the_video_does_not_fill_the_memory() -> None:
    count = 10_000
    edges = np.arange(count + 1, dtype=float)
    short = np.stack([edges[:-1], edges[1:]], axis=1)
    tracemalloc.start()
    try:
        means, _ = mean_onto(np.concatenate([[[0.0, count]], short]), np.ones((count + 1, 1), np.int8), short)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (means == 1).all()
    assert peak < 100e6  # 50 million pairs of a frame and a word
