"""The predictions that finished runs have stored, and their metrics on resampled videos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa.analysis.metric_sums import metric_sums
from mmsa.analysis.runs import Run
from mmsa.analysis.significance import resamples
from mmsa.errors import DataError
from mmsa.readers.ids import segment_ids
from mmsa.run_folder import read_rows
from mmsa.training.metrics import Array

Name = tuple[str, int]
"""Id of an utterance, and its place among those of the same id."""
DRAW_SEED = 20_260_101
"""Of all random draws, so that every p is repeatable and does not depend on the other rows."""
_AGREES = 1e-6


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
        self._samples: dict[frozenset[Name], Sample] = {}
        self._rows: dict[tuple[Path, Sample], np.ndarray] = {}
        self._scores: dict[tuple[Path, Sample, str], Score | None] = {}

    def predictions(self, run: Run) -> Predictions | str:
        """Of the run's fold, or in words why there are none."""
        if run.folder not in self._read:
            try:
                self._read[run.folder] = read_predictions(run.folder, run.fold)
            except DataError as error:
                self._read[run.folder] = str(error).splitlines()[0]
        return self._read[run.folder]

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
    path = folder / "predictions.csv"
    rows = [row for row in read_rows(path) if row.get("fold") == fold]
    if not rows:
        raise DataError(f"{path} has no row of the {fold} fold.")
    columns = {side: [key for key in rows[0] if key.split(" ")[0] == side] for side in ("prediction", "target")}
    try:
        predicted, truth = (np.array([[float(row[key]) for key in keys] for row in rows]) for keys in columns.values())
        seen: Counter[str] = Counter()
        places: dict[Name, int] = {}
        for place, row in enumerate(rows):
            places[row["id"], seen[row["id"]]] = place
            seen[row["id"]] += 1
    except (ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    if predicted.shape != truth.shape or not predicted.size or not np.isfinite(truth).all() or "" in seen:
        raise DataError(f"{path} is damaged: a prediction and a finite target are required for each id.")
    videos = {row["id"]: row["video"] for row in rows} if "video" in rows[0] else {}
    if predicted.shape[1] == 1 and " " not in columns["target"][0]:
        predicted, truth = predicted[:, 0], truth[:, 0]
    return Predictions(places, predicted, truth, videos)


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
    if known is not None and not (abs(known - whole) <= _AGREES or (math.isnan(known) and math.isnan(whole))):
        return None
    by_video = np.add.reduceat(found.parts[rows], sample.starts, axis=0)  # (V, F)
    total = by_video.sum(axis=0)
    value = float(found.value(total)) if finite else math.nan
    share = by_video[:, 0] / total[1] if found.is_mean and total[1] else None
    return Score(value, found.value(sample.weights @ by_video), share)
