"""Interval alignment with the semantics of the upstream SDK, vectorised over one video."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-5
"""Seconds: an interval or an overlap that is not longer than this does not count."""


def overlapping(intervals: np.ndarray, onto: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `intervals` overlap each interval of `onto` by more than EPSILON.

    Neither list needs to be sorted or free of overlaps; intervals without a positive length never count.

    Args:
        intervals: (n, 2) seconds.
        onto: (m, 2) seconds.

    Shapes:
        (n, 2), (m, 2) -> rows (P,) positions in `intervals`, grouped by the interval of `onto` and within a group by
        start; counts (m,) rows per group.
    """
    order = np.argsort(intervals[:, 0], kind="stable")
    order = order[intervals[order, 1] - intervals[order, 0] > EPSILON]
    starts, ends = intervals[order, 0], intervals[order, 1]
    # The overlap is the least of four differences, hence two bounds beside the two lengths. Ends need not be sorted:
    # nothing before `first` ends late enough, what follows is tested one by one.
    first = np.searchsorted(np.maximum.accumulate(ends), onto[:, 0] + EPSILON, side="right")
    stop = np.searchsorted(starts, onto[:, 1] - EPSILON, side="left")
    candidates = np.where(onto[:, 1] - onto[:, 0] > EPSILON, np.maximum(stop - first, 0), 0)
    groups = np.repeat(np.arange(len(onto)), candidates)
    within = np.arange(len(groups)) - np.repeat(np.cumsum(candidates) - candidates, candidates)
    rows = first[groups] + within
    counted = ends[rows] > onto[groups, 0] + EPSILON
    return order[rows[counted]], np.bincount(groups[counted], minlength=len(onto))


def mean_onto(intervals: np.ndarray, features: np.ndarray, onto: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unweighted mean of the frames that overlap each interval of `onto`; zeros where there are none.

    A value that is not finite makes that feature of that mean not finite and touches nothing else.

    Args:
        intervals: (n, 2) seconds.
        features: (n, D) numbers.
        onto: (m, 2) seconds.

    Shapes:
        (n, 2), (n, D), (m, 2) -> means (m, D) float32; covered (m,) bool, False where there are no frames.
    """
    rows, counts = overlapping(intervals, onto)
    means = np.zeros((len(onto), features.shape[1]), dtype=np.float32)
    covered = counts > 0
    if covered.any():
        group_starts = (np.cumsum(counts) - counts)[covered]
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and sums beyond float32: counted by the caller
            # Sums per group in float64: differences of running sums would cancel and spread a single NaN.
            sums = np.add.reduceat(features[rows].astype(np.float64), group_starts, axis=0)  # (covered, D)
            means[covered] = sums / counts[covered, None]
    return means, covered
