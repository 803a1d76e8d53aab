"""Interval alignment with the semantics of the upstream SDK, vectorised over one video."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

EPSILON = 1e-5
"""Seconds: an interval or an overlap that is not longer than this does not count."""

_PAIRS = 1 << 20
_VALUES = 1 << 21


def overlapping(
    intervals: np.ndarray, onto: np.ndarray, pay: Callable[[float], None] = lambda num_bytes: None
) -> tuple[np.ndarray, np.ndarray]:
    """Which of `intervals` overlap each interval of `onto` by more than EPSILON.

    Neither list needs to be sorted or free of overlaps; intervals without a positive length never count.

    Args:
        intervals: (n, 2) seconds.
        onto: (m, 2) seconds.
        pay: called with the bytes of the work before it is done; may raise.

    Shapes:
        (n, 2), (m, 2) -> rows (P,) positions in `intervals`, grouped by the interval of `onto` and within a group by
        start; counts (m,) rows per group.
    """
    blocks = list(_overlaps(intervals, onto, _PAIRS, pay))
    none = np.zeros(0, dtype=np.int64)
    return (
        np.concatenate([none, *(rows for _, rows, _ in blocks)]),
        np.concatenate([none, *(counts for _, _, counts in blocks)]),
    )


def mean_onto(
    intervals: np.ndarray, features: np.ndarray, onto: np.ndarray, pay: Callable[[float], None] = lambda num_bytes: None
) -> tuple[np.ndarray, np.ndarray]:
    """Unweighted mean of the frames that overlap each interval of `onto`; zeros where there are none.

    A value that is not finite makes that feature of that mean not finite and touches nothing else.

    Args:
        intervals: (n, 2) seconds.
        features: (n, D) numbers.
        onto: (m, 2) seconds.
        pay: called with the bytes of the work before it is done; may raise.

    Shapes:
        (n, 2), (n, D), (m, 2) -> means (m, D) float32; covered (m,) bool, False where there are no frames.
    """
    pay(4 * len(onto) * features.shape[1])
    means = np.zeros((len(onto), features.shape[1]), dtype=np.float32)
    covered = np.zeros(len(onto), dtype=bool)
    for block, rows, counts in _overlaps(intervals, onto, _VALUES // max(1, features.shape[1]), pay):
        filled = counts > 0
        covered[block] = filled
        if not len(rows):
            continue
        pay(8 * len(rows) * features.shape[1])
        group_starts = (np.cumsum(counts) - counts)[filled]
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf, and sums beyond float32: counted by the caller
            # Sums per group in float64: differences of running sums would cancel and spread a single NaN.
            sums = np.add.reduceat(features[rows].astype(np.float64), group_starts, axis=0)  # (filled, D)
            means[block][filled] = sums / counts[filled, None]
    return means, covered


def _overlaps(
    intervals: np.ndarray, onto: np.ndarray, limit: int, pay: Callable[[float], None]
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Block after block of `onto`, the result of `overlapping`.

    `limit` pairs are tested at once, so that one interval as long as the video does not fill the memory; an interval of
    `onto` is never split.
    """
    order = np.argsort(intervals[:, 0], kind="stable")
    order = order[intervals[order, 1] - intervals[order, 0] > EPSILON]
    starts, ends = intervals[order, 0], intervals[order, 1]
    # The overlap is the least of four differences, hence two bounds beside the two lengths. Ends need not be sorted:
    # nothing before `first` ends late enough, what follows is tested one by one.
    first = np.searchsorted(np.maximum.accumulate(ends), onto[:, 0] + EPSILON, side="right")
    stop = np.searchsorted(starts, onto[:, 1] - EPSILON, side="left")
    candidates = np.where(onto[:, 1] - onto[:, 0] > EPSILON, np.maximum(stop - first, 0), 0)
    total = np.cumsum(candidates)
    pay(8 * int(total[-1]) if len(total) else 0)
    begin = 0
    while begin < len(onto):
        before = total[begin] - candidates[begin]
        end = max(begin + 1, int(np.searchsorted(total, before + limit, side="right")))
        within_block = candidates[begin:end]
        groups = np.repeat(np.arange(end - begin), within_block)
        within = np.arange(len(groups)) - np.repeat(np.cumsum(within_block) - within_block, within_block)
        rows = first[begin:end][groups] + within
        counted = ends[rows] > onto[begin:end][groups, 0] + EPSILON
        yield slice(begin, end), order[rows[counted]], np.bincount(groups[counted], minlength=end - begin)
        begin = end
