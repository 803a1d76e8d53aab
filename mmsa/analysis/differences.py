"""Which rows of a result table differ: paired tests on the stored predictions of finished runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np

from mmsa.analysis.metric_sums import metric_sums
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.significance import (
    LEVEL,
    NUM_FLIPS,
    NUM_RESAMPLES,
    POWER,
    Interval,
    holm,
    over_videos_and_seeds,
    resamples,
    seed_effect,
    seeds_needed,
    sign_flips,
)
from mmsa.analysis.tables import counted
from mmsa.errors import DataError
from mmsa.readers.ids import segment_ids
from mmsa.run_folder import read_rows
from mmsa.training.metrics import METRICS, Array, metric_mode

Name = tuple[str, int]
"""Id of an utterance, and its place among those of the same id."""
Videos = Callable[[Run], Mapping[str, str]]
"""A run -> the video of each id."""
Test = Literal["flips and bootstrap", "bootstrap", "t over seeds", "none"]
DRAW_SEED = 20_260_101
"""Of all random draws, so that every p is repeatable and does not depend on the other rows."""
_AGREES = 1e-6


@dataclass(frozen=True)
class Difference:
    """A row minus the reference in one metric, over paired runs and the same utterances.

    Args:
        row, reference: labels of the groups.
        metric: its name.
        difference: mean over the pairs, and the interval over videos and seeds; over videos alone with one seed.
        over_seeds: the same mean, and the interval by Student's t over seeds alone, on these utterances.
        p: of the test.
        adjusted: p after Holm over the family.
        effect: Cohen's d over seeds, and its interval; NaN with one seed.
        seeds_needed: seeds with which a paired t test shows an effect of this size with the chance POWER; None where it
            is not defined or over 1,000.
        test: behind p.
        num_seeds, num_videos, num_utterances: that both rows have.
        remark: a restriction, in words; empty without any.
    """

    row: str
    reference: str
    metric: str
    difference: Interval
    over_seeds: Interval
    p: float
    adjusted: float
    effect: Interval
    seeds_needed: int | None
    test: Test
    num_seeds: int
    num_videos: int
    num_utterances: int
    remark: str = ""

    @property
    def marked(self) -> bool:
        """Whether a table marks it."""
        return self.adjusted <= LEVEL

    @property
    def better(self) -> bool | None:
        """Whether the row is better than the reference; None where they are equal, or nobody knows."""
        mean = self.difference.mean
        if self.metric not in METRICS or not mean or math.isnan(mean):
            return None
        return (mean < 0) == (metric_mode(self.metric) == "min")


def differences(
    groups: Sequence[Group], reference: str | None, metrics: Sequence[str], videos: Videos | None = None
) -> list[Difference]:
    """Compare rows of one table, each with the reference, or all pairs; all are one family of Holm's.

    Args:
        groups: the rows, on the same data and task.
        reference: label of one of them; None compares each row with every row above it.
        metrics: names without a fold.
        videos: the videos of a run's utterances; without it, or where it raises a DataError, the ids name them.

    Returns:
        Pair by pair, metric by metric.

    Raises:
        DataError: no row has the label of the reference.
    """
    pairs = [(row, above) for above, row in combinations(groups, 2)]
    if reference is not None:
        named = [group for group in groups if group.label == reference]
        if not named:
            labels = ", ".join(group.label for group in groups)
            raise DataError(f"no row is {reference!r}.\n  name one of: {labels}")
        pairs = [(group, named[0]) for group in groups if group is not named[0]]
    stored = _Stored(videos)
    found = [one for row, other in pairs for one in _compared(row, other, metrics, stored)]
    adjusted = holm([one.p for one in found])
    return [replace(one, adjusted=value) for one, value in zip(found, adjusted, strict=True)]


@dataclass(frozen=True)
class _Predictions:
    """The rows of a run's predictions.csv that are of its fold: names, predictions and truths (N,) or (N, K)."""

    names: tuple[Name, ...]
    predicted: Array
    truth: Array


@dataclass
class _Sample:
    """Utterances that paired runs share, V of them in order of their videos, with the resamples of these videos."""

    names: tuple[Name, ...]
    starts: np.ndarray
    """(V,) position of the first utterance of each video."""
    weights: Array
    """(B, V) how often each video is drawn."""
    scores: dict[tuple[object, ...], tuple[float, Array, Array | None]] = field(default_factory=dict)


class _Stored:
    """What is read and computed once for all comparisons."""

    def __init__(self, videos: Videos | None) -> None:
        self._videos = videos
        self._read: dict[object, _Predictions | str] = {}
        self._samples: dict[frozenset[Name], _Sample] = {}

    def predictions(self, run: Run) -> _Predictions | str:
        """Of the run's fold, or why there are none, in words."""
        if run.folder not in self._read:
            try:
                self._read[run.folder] = _read(run)
            except DataError as error:
                self._read[run.folder] = str(error).splitlines()[0]
        return self._read[run.folder]

    def sample(self, runs: Sequence[Run], tables: Sequence[_Predictions]) -> _Sample:
        """The utterances that all of these runs predict."""
        shared = frozenset(tables[0].names).intersection(*(table.names for table in tables[1:]))
        if shared not in self._samples:
            names = [name for name in tables[0].names if name in shared]
            video_of = self._video_of(runs[0], [name for name, _ in names])
            names.sort(key=lambda name: video_of[name[0]])  # stable: utterances of a video in their order
            held = np.array([video_of[name] for name, _ in names])
            starts = np.flatnonzero(np.concatenate([[True], held[1:] != held[:-1]])) if names else np.zeros(0, int)
            weights = resamples(len(starts), np.random.default_rng(DRAW_SEED)) if names else np.zeros((0, 0))
            self._samples[shared] = _Sample(tuple(names), starts, weights)
        return self._samples[shared]

    def score(self, run: Run, metric: str, sample: _Sample) -> tuple[float, Array, Array | None] | None:
        """A metric on the sample, on its resamples (B,), and of a mean its part of each video (V,), which sum to it.

        None where it cannot be had from the predictions, or these give another value than result.json.
        """
        table = self.predictions(run)
        assert_table = table if isinstance(table, _Predictions) else None
        if assert_table is None:
            return None
        return _score(run, metric, assert_table, sample)

    def _video_of(self, run: Run, ids: Sequence[str]) -> dict[str, str]:
        named = {name: video for name, (video, _) in zip(ids, segment_ids(ids)[0], strict=True)}
        if self._videos is not None:
            try:
                known = self._videos(run)
            except DataError:  # the store is gone
                return named
            return {name: known.get(name, video) for name, video in named.items()}
        return named
