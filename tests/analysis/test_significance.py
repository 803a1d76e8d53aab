from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from mmsa.analysis.significance import (
    Interval,
    holm,
    over_videos_and_seeds,
    resamples,
    seed_effect,
    seeds_needed,
    sign_flips,
    t_test,
)


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_sign_flips_over_few_videos_are_those_of_scipy() -> None:
    totals = drawn(3, 9) + np.array([[0.0], [0.4], [1.0]])
    ours = sign_flips(totals, np.random.default_rng(0))
    for one, p in zip(totals, ours, strict=True):
        theirs = stats.permutation_test((one,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert p == pytest.approx(theirs.pvalue)
    assert len({*ours}) == 3


def test_random_sign_flips_agree_with_all_of_them() -> None:
    totals = drawn(4, 12) + 0.3
    every = sign_flips(totals, np.random.default_rng(0))
    some = sign_flips(totals, np.random.default_rng(0), num=4_000)
    assert some == pytest.approx(every, abs=0.025) and (some != every).any()
    assert np.array_equal(sign_flips(totals, np.random.default_rng(0), num=4_000), some)


def test_the_least_p_counts_the_observed_signs() -> None:
    assert sign_flips(np.ones((1, 40)), np.random.default_rng(0), num=99) == [0.01]
    assert sign_flips(np.ones((1, 5)), np.random.default_rng(0)) == [2 / 32]
    assert sign_flips(np.zeros((1, 40)), np.random.default_rng(0)) == [1.0]
    assert sign_flips(np.array([[0.3]]), np.random.default_rng(0)) == [1.0]


def test_resampled_means_have_the_unbiased_variance() -> None:
    values = drawn(4)
    weights = resamples(4, np.random.default_rng(1), draws=40_000)
    assert set(weights.sum(axis=1)) == {3.0}
    assert np.var(weights @ values / 3) == pytest.approx(np.var(values, ddof=1) / 4, rel=0.03)
    assert resamples(1, np.random.default_rng(1), draws=3).tolist() == [[1.0]] * 3


def clustered(values: np.ndarray, draws: int = 20_000) -> tuple[Interval, float]:
    """Of (V, S) values with videos and seeds."""
    num_videos, num_seeds = values.shape
    weights = resamples(num_videos, np.random.default_rng(2), draws)
    resampled = weights @ values / weights.sum(axis=1, keepdims=True)
    seeds = resamples(num_seeds, np.random.default_rng(3), draws)
    return over_videos_and_seeds(values.mean(axis=0), resampled, num_videos, seeds)


def test_where_one_source_varies_the_interval_is_students() -> None:
    videos = drawn(12) + 0.5
    for values in (videos[:, None], np.repeat(videos[:, None], 5, axis=1)):
        interval, p = clustered(values)
        theirs = stats.ttest_1samp(videos, 0)
        low, high = theirs.confidence_interval(0.95)
        assert (interval.mean, interval.low, interval.high) == pytest.approx((videos.mean(), low, high), abs=0.02)
        assert p == pytest.approx(theirs.pvalue, abs=0.01)
    seeds = drawn(4, seed=1)
    interval, p = clustered(np.repeat(seeds[None], 12, axis=0))
    assert p == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue, abs=0.01)


def test_both_sources_widen_the_interval() -> None:
    videos, seeds = drawn(12), drawn(5, seed=1)
    interval, _ = clustered(videos[:, None] + seeds)
    error = math.sqrt(np.var(videos, ddof=1) / 12 + np.var(seeds, ddof=1) / 5)
    freedom = error**4 / ((np.var(videos, ddof=1) / 12) ** 2 / 11 + (np.var(seeds, ddof=1) / 5) ** 2 / 4)
    assert interval.high - interval.mean == pytest.approx(stats.t.ppf(0.975, freedom) * error, rel=0.02)


def test_what_cannot_vary_has_no_interval() -> None:
    one = np.ones((50, 1))
    interval, p = over_videos_and_seeds(np.array([0.2]), one * 0.2, 1, one)
    assert interval.mean == 0.2 and math.isnan(interval.low) and math.isnan(p)
    interval, p = over_videos_and_seeds(np.array([0.0]), one * 0, 9, one)
    assert (interval.low, interval.high, p) == (0, 0, 1)
    _, p = over_videos_and_seeds(np.array([0.2]), one * 0.2, 9, one)
    assert math.isnan(p)
    undefined = np.where(np.arange(50)[:, None] < 6, np.nan, drawn(50, 1))
    _, p = over_videos_and_seeds(np.array([0.2]), undefined, 9, one)
    assert math.isnan(p)
    _, p = over_videos_and_seeds(np.array([0.2]), undefined[2:], 9, one[2:])
    assert 0 < p < 1


def holm_by_definition(p: list[float], level: float) -> list[bool]:
    """Step down: the smallest is compared with level / m, the next with level / (m - 1), until one fails."""
    rejected = [False] * len(p)
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[place] > level / (len(p) - rank):
            break
        rejected[place] = True
    return rejected


def test_holm_rejects_what_the_steps_reject() -> None:
    for p in product((0.001, 0.0125, 0.02, 0.03, 0.5), repeat=4):
        for level in (0.01, 0.05, 0.1):
            assert [one <= level + 1e-12 for one in holm(p)] == holm_by_definition([*p], level + 1e-13)
    found = holm([0.01, math.nan, 0.04, 0.9, 0.9])
    assert found[0] == 0.04 and math.isnan(found[1]) and found[2] == 0.12 and found[3:] == [1.0, 1.0]
    assert holm([]) == []


def test_the_t_test_is_that_of_scipy() -> None:
    values = [0.1, -0.2, 0.4, 0.3]
    assert t_test(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert t_test([0.0, 0.0]) == 1.0
    assert all(math.isnan(t_test(values)) for values in ([], [0.3], [0.3, 0.3, 0.3], [0.3, math.nan]))


def test_the_effect_has_the_interval_of_the_noncentral_t() -> None:
    values = [0.1, -0.05, 0.4, 0.3, 0.2]
    effect = seed_effect(values)
    assert effect.mean == pytest.approx(np.mean(values) / np.std(values, ddof=1))
    t = stats.ttest_1samp(values, 0).statistic
    assert stats.nct.cdf(t, 4, effect.low * 5**0.5) == pytest.approx(0.975)
    assert stats.nct.cdf(t, 4, effect.high * 5**0.5) == pytest.approx(0.025)
    assert all(math.isnan(seed_effect(values).mean) for values in ([], [1.0], [1.0, 1.0], [0.1 + 0.2, 0.3]))


def test_the_seeds_that_an_effect_needs_are_those_of_the_tables() -> None:
    """Of power tables for the two-sided paired t test at 0.05 with a power of 0.8."""
    assert {d: seeds_needed(d) for d in (0.2, 0.5, 0.8, 1.0)} == {0.2: 199, 0.5: 34, 0.8: 15, 1.0: 10}
    assert seeds_needed(-0.5) == 34 and seeds_needed(50.0) == 2
    assert seeds_needed(0.05) is None and seeds_needed(math.nan) is None and seeds_needed(0.0) is None
