"""A run and its repetition: which of their results differ, from which epoch on, and by how much."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsa.analysis.layout import counted
from mmsa.analysis.predictions import Predictions, read_predictions
from mmsa.errors import DataError, printable
from mmsa.record import RunRecord
from mmsa.run_folder import read_columns
from mmsa.training.metrics import Array

TOLERANCE = 1e-3
"""Of losses and errors, relative; of correlations; of predictions, in standard deviations of the labels."""
CLASS_TOLERANCE = 0.01
"""Share of the utterances that may be of another class."""
_FOLLOWS = re.compile(r"(.*/)?(accuracy|w?acc|f1|recall|lr$).*")
"""Metrics that follow from the classes of predictions, where one close to a cut is of either; and the learning rate."""


@dataclass(frozen=True)
class Results:
    """The results of a finished run, as its folder holds them.

    Args:
        weights: hash of the selected ones; None of a former version.
        epochs: the number of epochs, and that of the selected one.
        history: metric -> its value in each epoch, NaN where it has none.
        metrics: of the selected weights, named fold/metric.
        predictions: per fold.
    """

    weights: str | None
    epochs: tuple[int | None, int | None]
    history: Mapping[str, Array]
    metrics: Mapping[str, float]
    predictions: Mapping[str, Predictions]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Those of a folder.

        Raises:
            DataError: a file is missing or damaged.
        """
        record, path = RunRecord.read(folder), folder / "history.csv"
        columns = read_columns(path)
        try:
            history = {name: np.array([float(text or "nan") for text in values]) for name, values in columns.items()}
        except ValueError as error:
            raise DataError(f"{path} is damaged: {printable(str(error))}.\n  name another run") from None
        if "epoch" not in history or not record.metrics:
            raise DataError(
                f"{folder} lacks its history or its metrics.\n  copy the whole folder from where it was made"
            )
        del history["epoch"]
        folds = dict.fromkeys(name.partition("/")[0] for name in record.metrics)
        predictions = {fold: read_predictions(folder, fold) for fold in folds}
        return cls(record.weights, (record.epochs, record.best_epoch), history, dict(record.metrics), predictions)


@dataclass(frozen=True)
class Difference:
    """A result that differs.

    Args:
        text: its name, both values, and the distance.
        within: whether it is within the tolerance, or follows from others that are judged.
    """

    text: str
    within: bool


def differences(then: Results, now: Results) -> list[Difference]:
    """All results that both runs have and that differ in a bit; those of the epochs first."""
    found = [*_of_epochs(then, now), *_of_metrics(then.metrics, now.metrics)]
    for fold in [fold for fold in then.predictions if fold in now.predictions]:
        found += _of_predictions(fold, then.predictions[fold], now.predictions[fold])
    if then.weights and now.weights and then.weights != now.weights:
        found.append(Difference("weights: other bits", within=True))  # what they compute is judged
    return found


def not_in_both(then: Results, now: Results) -> list[str]:
    """The names of the metrics that only one of the runs has, which cannot be compared."""
    return sorted({*then.history, *then.metrics} ^ {*now.history, *now.metrics})


def _of_epochs(then: Results, now: Results) -> Iterator[Difference]:
    for name in [name for name in then.history if name in now.history]:
        pairs = list(zip(then.history[name], now.history[name], strict=False))  # of the epochs that both have
        far = [_distance(name, *pair) for pair in pairs]
        first, most = next((epoch for epoch, one in enumerate(far) if one), None), int(np.argmax(far)) if far else 0
        if first is not None:
            largest = "" if most == first else f"; most in epoch {most + 1}, {_both(*pairs[most])}"
            text = f"{printable(name)} from epoch {first + 1} on: {_both(*pairs[first])}{largest}"
            yield Difference(text, _follows(name) or far[most] <= TOLERANCE)
    for what, ours, theirs in zip(("epochs", "selected epoch"), then.epochs, now.epochs, strict=True):
        if ours != theirs:
            yield Difference(f"{what}: {ours} then, {theirs} now", within=True)


def _of_metrics(then: Mapping[str, float], now: Mapping[str, float]) -> Iterator[Difference]:
    for name in [name for name in then if name in now]:
        if far := _distance(name, then[name], now[name]):
            yield Difference(
                f"{printable(name)} of the selected weights: {_both(then[name], now[name])}",
                _follows(name) or far <= TOLERANCE,
            )


def _of_predictions(fold: str, then: Predictions, now: Predictions) -> Iterator[Difference]:
    named = f"predictions of {printable(fold)}"
    if then.rows.keys() != now.rows.keys() or then.predicted.shape != now.predicted.shape:
        yield Difference(f"{named}: of other utterances", within=False)
        return
    names = list(then.rows)
    ours, theirs = (side.predicted[[side.rows[name] for name in names]] for side in (then, now))
    ours, theirs = (values.reshape(len(names), -1) for values in (ours, theirs))  # (N, K)
    far = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, np.abs(ours - theirs))
    far = np.nan_to_num(far, nan=np.inf).max(axis=1)  # (N,)
    if not far.any():
        return
    most, num = int(far.argmax()), int((far > 0).sum())
    if all((values == np.round(values)).all() for values in (ours, theirs)):
        yield Difference(
            f"{named}: {num:,} of {len(names):,} are of another class", num <= CLASS_TOLERANCE * len(names)
        )
        return
    allowed = TOLERANCE * float(then.truth.std())
    text = f"{named}: {num:,} of {counted(len(names), 'utterance')}, most {printable(names[most][0])}"
    yield Difference(f"{text}, {far[most]:.1e}", bool(far[most] <= allowed))


def _distance(name: str, then: float, now: float) -> float:
    """How far apart two values are: of losses and errors relative to the former one; 0 only where they are equal."""
    if then == now or (np.isnan(then) and np.isnan(now)):
        return 0.0
    far = abs(then - now)
    if np.isnan(far):
        return float("inf")
    bounded = name.rpartition("/")[2].startswith("corr")
    return float(far if bounded or not then else far / abs(then))


def _follows(name: str) -> bool:
    return _FOLLOWS.fullmatch(name) is not None


def _both(then: float, now: float) -> str:
    return f"{then:.9g} then, {now:.9g} now ({abs(then - now):.0e})"


def verdict(found: Sequence[Difference]) -> str:
    """The worst of them in a word: "equal", "within" the tolerance, or "differs"."""
    return "equal" if not found else "within" if all(one.within for one in found) else "differs"
