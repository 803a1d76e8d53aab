"""Tests and intervals for paired results that vary by video and by seed, as functions of arrays."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from mmsa.training.metrics import Array

CONFIDENCE = 0.95
LEVEL = 0.05
"""Of the tests, 1 - CONFIDENCE."""
POWER = 0.8
"""Chance with which `seeds_needed` seeds show a difference of the observed size."""
NUM_FLIPS = 9_999
NUM_RESAMPLES = 2_000
MOST_SEEDS = 1_000
_LEAST_DEFINED = 0.9
_BLOCK = 1 << 22
_TIES = 1e-9


@dataclass(frozen=True)
class Interval:
    """A mean over `num` values and its confidence interval by Student's t; NaN bounds where there is one value."""

    mean: float
    low: float
    high: float
    num: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """The interval of independent values; all NaN as soon as one is not finite, or without any."""
        if not values or not all(map(math.isfinite, values)):
            return cls(math.nan, math.nan, math.nan, len(values))
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls._around(fmean(values), deviation / math.sqrt(len(values)), len(values) - 1, len(values))

    @classmethod
    def between(cls, first: Sequence[float], second: Sequence[float]) -> Interval:
        """Mean of `first` minus mean of `second` and its interval by Welch's t, for independent samples."""
        if min(len(first), len(second)) < 2:
            difference = fmean(first) - fmean(second) if first and second else math.nan
            return cls(difference, math.nan, math.nan, len(first) + len(second))
        shares = [float(np.var(values, ddof=1)) / len(values) for values in (first, second)]
        spread = sum(share**2 / (len(v) - 1) for share, v in zip(shares, (first, second), strict=True))
        freedom = sum(shares) ** 2 / spread if spread > 0 else 1.0
        error = math.sqrt(sum(shares))
        return cls._around(fmean(first) - fmean(second), error, freedom, len(first) + len(second))

    @classmethod
    def _around(cls, mean: float, error: float, freedom: float, num: int) -> Interval:
        if not math.isfinite(error):
            return cls(mean, math.nan, math.nan, num)
        half = _times_error(freedom) * error
        return cls(mean, mean - half, mean + half, num)

    def text(self, digits: int = 3) -> str:
        """As it is printed: the mean, and the bounds where there are any."""
        if not math.isfinite(self.mean):
            return "–"
        bounds = f" [{self.low:+.{digits}f}, {self.high:+.{digits}f}]" if math.isfinite(self.low) else ""
        return f"{self.mean:+.{digits}f}{bounds}"


def sign_flips(totals: Array, rng: np.random.Generator, num: int = NUM_FLIPS) -> Array:
    """Two-sided p of a sum over videos whose signs are flipped video by video, (C, V) -> (C,).

    Under the null hypothesis a video's difference is as likely to have the other sign. All 2^V patterns where they are
    at most `num` + 1, else `num` random ones and the observed one. All C sums see the same flips.

    Args:
        totals: summed differences of each video.
        rng: draws the flips.
        num: of them.
    """
    observed = np.abs(totals.sum(axis=1))  # (C,)
    least = observed - _TIES * np.abs(totals).sum(axis=1)  # sums in another order are ties
    num_videos, extreme = totals.shape[1], np.zeros(len(totals), dtype=np.int64)
    every = 2**num_videos <= num + 1
    for signs in _all_signs(num_videos) if every else _random_signs(num_videos, num, rng):
        extreme += (np.abs(totals @ signs.T) >= least[:, None]).sum(axis=1)
    return extreme / 2**num_videos if every else (extreme + 1) / (num + 1)


def _all_signs(num_videos: int) -> Iterator[Array]:
    bits = np.arange(2**num_videos)[:, None] >> np.arange(num_videos) & 1
    yield 1 - 2 * bits.astype(np.float64)


def _random_signs(num_videos: int, num: int, rng: np.random.Generator) -> Iterator[Array]:
    """Blocks (n, V) of -1 and 1, n in all `num`."""
    rows = max(1, _BLOCK // num_videos)
    for start in range(0, num, rows):
        bits = rng.integers(0, 2, size=(min(rows, num - start), num_videos), dtype=np.int8)
        yield 1 - 2 * bits.astype(np.float64)


def resamples(num: int, rng: np.random.Generator, draws: int = NUM_RESAMPLES) -> Array:
    """How often each of `num` videos, or seeds, is drawn: (draws, num), rows that sum to num - 1; one counts always.

    With one draw less than there are, the variance of a resampled mean is the unbiased one, which matters with 3 seeds.
    """
    if num == 1:
        return np.ones((draws, 1))
    return rng.multinomial(num - 1, np.full(num, 1 / num), size=draws).astype(np.float64)


def over_videos_and_seeds(values: Array, resampled: Array, num_videos: int, seeds: Array) -> tuple[Interval, float]:
    """Interval and two-sided p of a mean difference that varies by video and by seed.

    The standard error is the deviation over resamples of videos and of seeds together. Its degrees of freedom are
    Satterthwaite's, of the part of the videos (V - 1) and the part of the seeds (S - 1). With one seed only the videos
    vary.

    Args:
        values: differences per seed, (S,).
        resampled: the same on resampled videos, (B, S), NaN where a metric is not defined.
        num_videos: V.
        seeds: weights of the seeds in each resample, (B, S).

    Returns:
        All NaN but the mean where there is one video, or over a tenth of the resamples has no value.
    """
    mean, num = float(values.mean()), num_videos
    defined = np.isfinite(resampled).all(axis=1)
    if num_videos < 2 or not math.isfinite(mean) or defined.mean() < _LEAST_DEFINED:
        return Interval(mean, math.nan, math.nan, num), math.nan
    drawn, weights = resampled[defined], seeds[defined]
    error = float(np.std((drawn * weights).sum(axis=1) / weights.sum(axis=1), ddof=1))
    by_video = float(np.var(drawn.mean(axis=1), ddof=1))
    by_seed = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
    if error <= _TIES * np.abs(resampled[defined]).max(initial=0.0):  # every resample has the same difference
        return Interval(mean, mean, mean, num), 1.0 if mean == 0 else math.nan
    spread = by_video**2 / (num_videos - 1) + by_seed**2 / max(len(values) - 1, 1)
    freedom = (by_video + by_seed) ** 2 / spread
    half = _times_error(freedom) * error
    return Interval(mean, mean - half, mean + half, num), _two_sided(abs(mean) / error, freedom)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests; a NaN stays so and is not of the family."""
    family = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    adjusted, largest = [math.nan] * len(p), 0.0
    for rank, (value, place) in enumerate(family):
        largest = max(largest, min(1.0, (len(family) - rank) * value))
        adjusted[place] = largest
    return adjusted


def t_test(values: Sequence[float]) -> float:
    """Two-sided p of Student's t for a mean of 0; NaN with one value, or where they do not vary around another mean."""
    return corrected_t_test(values, 0.0)[1]


def corrected_t_test(values: Sequence[float], ratio: float) -> tuple[Interval, float]:
    """Interval and two-sided p of a mean of 0 over folds whose train parts overlap: the corrected resampled t test.

    The variance of the mean is 1/k + ratio times that of the values, where independent ones would have 1/k (Nadeau and
    Bengio, Inference for the generalization error, Machine Learning 52, 2003).

    Args:
        values: of each fold, (k,).
        ratio: utterances of a test fold to those of its train fold; 0 does not correct.

    Returns:
        p is NaN with one value, or where they do not vary around another mean than 0.
    """
    over, num = Interval.of(values), len(values)
    if num < 2 or not math.isfinite(over.mean):
        return over, math.nan
    error = float(np.std(values, ddof=1)) * math.sqrt(1 / num + ratio)
    interval = Interval._around(over.mean, error, num - 1, num)
    if not error > _TIES * abs(over.mean):
        return interval, 1.0 if over.mean == 0 else math.nan
    return interval, _two_sided(abs(over.mean) / error, num - 1)


def seed_effect(values: Sequence[float]) -> Interval:
    """Cohen's d of paired differences, mean over sample deviation, and its interval by the noncentral t.

    All NaN with one value, with one that is not finite, or where they do not vary.
    """
    from scipy.special import nctdtrinc

    over = Interval.of(values)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    if not deviation > _TIES * abs(over.mean):
        return Interval(math.nan, math.nan, math.nan, len(values))
    effect, root = over.mean / deviation, math.sqrt(len(values))
    low, high = (
        float(nctdtrinc(len(values) - 1, tail, effect * root)) / root for tail in (0.5 + CONFIDENCE / 2, LEVEL / 2)
    )
    return Interval(effect, low, high, len(values))


def seeds_needed(effect: float) -> int | None:
    """The least number of seeds with which a paired t test shows an effect with the chance POWER.

    Args:
        effect: Cohen's d of the paired differences.

    Returns:
        None where it is over MOST_SEEDS, or the effect is not defined.
    """
    if math.isnan(effect) or _power(abs(effect), MOST_SEEDS) < POWER:
        return None
    return bisect_left(range(2, MOST_SEEDS), True, key=lambda num: _power(abs(effect), num) >= POWER) + 2


def _power(effect: float, num: int) -> float:
    """Of the two-sided paired t test; the chance of a significant difference in the other direction is left out."""
    from scipy.special import nctdtr

    return float(1 - nctdtr(num - 1, effect * math.sqrt(num), _times_error(num - 1)))


def _times_error(freedom: float) -> float:
    """Half of the width of an interval by Student's t, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _two_sided(t: float, freedom: float) -> float:
    """p of Student's t >= 0."""
    from scipy.special import stdtr

    return 2 * float(stdtr(freedom, -t))
