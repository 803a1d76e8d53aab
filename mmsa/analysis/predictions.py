"""The predictions that finished runs have stored, and their metrics on resampled videos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from mmsa.analysis.metric_sums import metric_sums
from mmsa.analysis.runs import Run
from mmsa.analysis.significance import resamples
from mmsa.errors import DataError
from mmsa.readers.ids import segment_ids
from mmsa.run_folder import read_columns
from mmsa.training.metrics import Array

Name = tuple[str, int]
"""Id of an utterance, and its place among those of the same id."""
DRAW_SEED = 20_260_101
"""Of all random draws, so that every p is repeatable and does not depend on the other rows."""
AGREES = 1e-6
_EQUAL = 1e-6
"""Distance from the label within which a prediction counts as equal."""


@dataclass(frozen=True)
class Predictions:
    """A run's predictions of one fold.

    Args:
        rows: utterance -> its place.
        predicted, truth: (N,), or (N, K) of K columns; NaN where a prediction is not finite.
        videos: id -> video; empty of a run of a former version, whose ids may name their videos.
    """

    rows: Mapping[Name, int]
    predicted: Array
    truth: Array
    videos: Mapping[str, str]

    def among(self, names: Collection[Name]) -> Predictions:
        """Those of some utterances alone, as far as they are there."""
        kept = {name: row for name, row in self.rows.items() if name in names}
        rows = list(kept.values())
        places = {name: row for row, name in enumerate(kept)}
        return Predictions(places, self.predicted[rows], self.truth[rows], self.videos)


@dataclass(frozen=True)
class Facts:
    """What a run's predictions show without their utterances.

    Args:
        spread: standard deviation of the predictions, divided by that of the labels; of several columns the largest.
        one_class: share of the most frequent prediction, and of it among the labels; of several columns those in which
            the predictions vary the most.
        equal: share of the utterances whose predictions are their labels, to 1e-6.
        num_labels: number of different labels.
    """

    spread: float
    one_class: tuple[float, float]
    equal: float
    num_labels: int

    @classmethod
    def of(cls, predicted: Array, truth: Array) -> Facts | None:
        """The facts of predictions; None where one is not finite. Shapes: as of `Predictions`."""
        if not np.isfinite(predicted).all():
            return None
        ours, theirs = (side.reshape(len(side), -1) for side in (predicted, truth))  # (N, K)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of numbers that nobody predicts
            spreads = ours.std(axis=0) / theirs.std(axis=0)
            equal = float((np.abs(ours - theirs) <= _EQUAL).all(axis=1).mean())
        shares = []
        for column, labels in zip(ours.T, theirs.T, strict=True):
            values, counts = np.unique(column, return_counts=True)
            shares.append((float(counts.max() / len(column)), float((labels == values[counts.argmax()]).mean())))
        return cls(float(np.nanmax([0.0, *spreads])), min(shares), equal, len(np.unique(theirs, axis=0)))


@dataclass(frozen=True)
class Score:
    """A metric of one run on a sample.

    Args:
        value: the metric.
        resampled: the same on resampled videos, (B,).
        by_video: of a mean over utterances the part of each video, (V,), which sum to the value; None of others.
    """

    value: float
    resampled: Array
    by_video: Array | None


@dataclass(frozen=True, eq=False)
class Sample:
    """Utterances that paired runs share, in the order of their V videos, at least one.

    Args:
        names: N of them.
        starts: place of the first utterance of each video, (V,).
        weights: how often each resample has each video, (B, V).
    """

    names: Sequence[Name]
    starts: np.ndarray
    weights: Array

    @classmethod
    def of(cls, names: Sequence[Name], video_of: Mapping[str, str]) -> Sample:
        """The sample of some utterances, whose videos are known by their ids."""
        ordered = sorted(names, key=lambda name: video_of[name[0]])
        videos = np.array([video_of[name] for name, _ in ordered])
        starts = np.flatnonzero(np.append(True, videos[1:] != videos[:-1]))
        return cls(ordered, starts, resamples(len(starts), np.random.default_rng(DRAW_SEED)))


class Stored:
    """The predictions of runs, read once, and their scores, computed once."""

    def __init__(self) -> None:
        self._read: dict[Path, Predictions | str] = {}
        self._facts: dict[Path, Facts | None] = {}
        self._samples: dict[frozenset[Name], Sample] = {}
        self._rows: dict[tuple[Path, Sample], np.ndarray] = {}
        self._scores: dict[tuple[Path, Sample, str], Score | None] = {}

    def predictions(self, run: Run) -> Predictions | str:
        """Of the run's fold, or in words why there are none."""
        if run.folder not in self._read:
            try:
                table = read_predictions(run.folder, run.fold)
                self._read[run.folder] = table if run.among is None else table.among(run.among)
            except DataError as error:
                self._read[run.folder] = str(error).splitlines()[0]
        return self._read[run.folder]

    def facts(self, run: Run) -> Facts | None:
        """Of the predictions of the run's fold, which are not kept; None where they are missing or not finite."""
        if run.folder not in self._facts:
            known = self._read.get(run.folder)
            try:
                if isinstance(known, Predictions):
                    predicted, truth = known.predicted, known.truth
                else:
                    _, predicted, truth, _ = _read(run.folder, run.fold)
                self._facts[run.folder] = Facts.of(predicted, truth)
            except DataError:
                self._facts[run.folder] = None
        return self._facts[run.folder]

    def sample(self, tables: Sequence[Predictions]) -> Sample | None:
        """The utterances that all of these tables have; None without any."""
        shared = frozenset(tables[0].rows).intersection(*(table.rows for table in tables[1:]))
        if shared and shared not in self._samples:
            names = [name for name in tables[0].rows if name in shared]
            self._samples[shared] = Sample.of(names, _videos_of([name for name, _ in names], tables))
        return self._samples.get(shared)

    def score(self, run: Run, metric: str, sample: Sample) -> Score | None:
        """A metric on a sample; None where predictions do not give it, or another value than result.json holds."""
        table, key = self.predictions(run), (run.folder, sample, metric)
        if isinstance(table, str):
            return None
        if key not in self._scores:
            known = run.metrics.get(f"{run.fold}/{metric}")
            self._scores[key] = _score(table, metric, self.rows(run.folder, table, sample), sample, known)
        return self._scores[key]

    def rows(self, folder: Path, table: Predictions, sample: Sample) -> np.ndarray:
        """Where the table of a run has the utterances of a sample, (N,)."""
        if (folder, sample) not in self._rows:
            self._rows[folder, sample] = np.array([table.rows[name] for name in sample.names])
        return self._rows[folder, sample]


def read_predictions(folder: Path, fold: str) -> Predictions:
    """The rows of a run's predictions.csv that are of a fold.

    Raises:
        DataError: there are none, or the table is damaged.
    """
    ids, predicted, truth, videos = _read(folder, fold)
    seen: Counter[str] = Counter()
    places: dict[Name, int] = {}
    for place, name in enumerate(ids):
        places[name, seen[name]] = place
        seen[name] += 1
    return Predictions(places, predicted, truth, dict(zip(ids, videos, strict=False)))


def _read(folder: Path, fold: str) -> tuple[list[str], Array, Array, list[str]]:
    """As `read_predictions`: the ids, the predictions, the truths, and the videos, which a former run lacks."""
    path = folder / "predictions.csv"
    columns = read_columns(path)
    of_fold = [name == fold for name in columns.get("fold", [])]
    if not any(of_fold):
        raise DataError(f"{path} has no row of the {fold} fold.")
    sides = {side: [key for key in columns if key.split(" ")[0] == side] for side in ("prediction", "target")}
    try:
        predicted, truth = (
            np.array([list(map(float, compress(columns[key], of_fold))) for key in keys]).T for keys in sides.values()
        )
        ids = list(compress(columns["id"], of_fold))
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    if predicted.shape != truth.shape or not predicted.size or not np.isfinite(truth).all() or "" in ids:
        raise DataError(f"{path} is damaged: a prediction and a finite target are required for each id.")
    if predicted.shape[1] == 1 and " " not in sides["target"][0]:
        predicted, truth = predicted[:, 0], truth[:, 0]
    return ids, predicted, truth, list(compress(columns.get("video", []), of_fold))


def _videos_of(ids: Sequence[str], tables: Sequence[Predictions]) -> Mapping[str, str]:
    """The video of each id, as one of the tables has it; where none does, as the ids name it."""
    known = next((table.videos for table in tables if table.videos), None)
    return known or {name: video for name, (video, _) in zip(ids, segment_ids(ids)[0], strict=True)}


def _score(table: Predictions, metric: str, rows: np.ndarray, sample: Sample, known: float | None) -> Score | None:
    """A metric of a table on a sample of its utterances; None as of `Stored.score`."""
    finite = bool(np.isfinite(table.predicted).all())
    found = metric_sums(metric, table.predicted if finite else np.zeros_like(table.truth), table.truth)
    if found is None:
        return None
    whole = found.whole if finite else math.nan  # as the metrics themselves have it
    if known is not None and not (abs(known - whole) <= AGREES or (math.isnan(known) and math.isnan(whole))):
        return None
    by_video = np.add.reduceat(found.parts[rows], sample.starts, axis=0)  # (V, F)
    total = by_video.sum(axis=0)
    value = float(found.value(total)) if finite else math.nan
    share = by_video[:, 0] / total[1] if found.is_mean and total[1] else None
    return Score(value, found.value(sample.weights @ by_video), share)
