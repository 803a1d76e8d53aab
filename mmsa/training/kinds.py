"""The kinds of targets, which decide the metrics that score them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmsa.data.naming import EMOTIONS
from mmsa.errors import ConfigError, DataError
from mmsa.training.emotion_metrics import emotion_errors
from mmsa.training.metrics import Score, binary_metrics, error_metrics, over_fold, regression_metrics
from mmsa.training.sims_metrics import THREE_CLASSES, sims_metrics
from mmsa.training.task import TargetTask, of_one_number

KindName = Literal["sentiment", "sims", "binary", "emotions", "number"]


@over_fold
def _signed_metrics(predicted: NDArray[Any], truth: NDArray[Any]) -> dict[str, float]:
    """Of two classes that are regressed as -1 and 1: no label is 0, so one binary convention is left."""
    binary = binary_metrics(predicted, truth)
    return error_metrics(predicted, truth) | {name: binary[name] for name in ("acc2_non0", "f1_non0")}


@dataclass(frozen=True)
class Kind:
    """One kind of target.

    Args:
        requirement: on its values, in words.
        fits: whether the values of a fold are so.
        score: metrics of regression.
        shown: those of them that tables show, in order.
        thresholds: default cuts of classification; without them they have to be typed.
        columns: names of its columns; none is one number per utterance.
        levels: one value in each of its finest classes, from which the majority baseline of regression chooses.
        finest: the accuracy over these classes.
        nominal_range: of its values, where it has one; the doctor reports what lies beyond.
    """

    requirement: str
    fits: Callable[[NDArray[Any]], bool]
    score: Score
    shown: tuple[str, ...]
    thresholds: tuple[float, ...] = ()
    columns: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()
    finest: str = ""
    nominal_range: tuple[float, float] = (-math.inf, math.inf)


KINDS: dict[str, Kind] = {
    "sentiment": Kind(
        "labels on the scale [-3, 3]",
        lambda values: True,  # beyond it in genuine files: the data set bounds them
        regression_metrics,
        ("mae", "corr", "acc7", "acc2_has0", "acc2_non0", "f1_non0"),
        thresholds=(0.0,),
        levels=(-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0),
        finest="acc7",
        nominal_range=(-3.0, 3.0),
    ),
    "sims": Kind(
        "labels in [-1, 1]",
        lambda values: bool((np.abs(values) <= 1 + 1e-6).all()),
        sims_metrics,
        ("mae_sims", "corr_sims", "acc5_sims", "acc3_sims", "acc2_neg0", "f1_neg0"),
        thresholds=THREE_CLASSES,
        levels=(-1.0, -0.4, 0.0, 0.4, 1.0),
        finest="acc5_sims",
        nominal_range=(-1.0, 1.0),
    ),
    "binary": Kind(
        "labels of 0 or 1",
        lambda values: bool(np.isin(values, (0, 1)).all()),
        _signed_metrics,
        ("acc2_non0", "f1_non0", "mae"),
        thresholds=(0.5,),
        levels=(-1.0, 1.0),
        finest="acc2_non0",
        nominal_range=(0.0, 1.0),
    ),
    "emotions": Kind(
        "degrees of at least 0",
        lambda values: bool((values >= 0).all()),
        emotion_errors,
        ("mae", "corr_emotions"),
        columns=EMOTIONS,
    ),
    "number": Kind("numbers", lambda values: True, over_fold(error_metrics), ("mae", "rmse", "corr")),
}


USUAL = {"sentiment": "sentiment", "emotions": "emotions", "humor": "binary", "sarcasm": "binary"}


def kind_of(target: str, stated: Mapping[str, str] | None) -> str:
    """The kind of a target: as the data set declares it, else by its name (USUAL), else a number.

    Args:
        target: its name.
        stated: kind of each target that the data set states; "auto" is that of its name.
    """
    kind = (stated or {}).get(target, "auto")
    return USUAL.get(target, "number") if kind == "auto" else kind


class KindTask(TargetTask):
    """A task whose metrics follow the kind of its target.

    Args:
        target: name of the target in the store; None takes the first that is stated.
        kind: a key of KINDS; "auto": as of `kind_of`.
        stated: as of `kind_of`.
        monitor, head_dropout, auxiliary: as of `TargetTask`.

    Raises:
        ConfigError: the data set states a kind that there is not.
    """

    def __init__(
        self,
        target: str | None,
        kind: str,
        stated: Mapping[str, str] | None,
        monitor: str,
        head_dropout: float,
        auxiliary: Mapping[str, float] | None,
    ) -> None:
        target = target or next(iter(stated or {}), "sentiment")
        super().__init__(target, monitor, head_dropout, auxiliary)
        self.kind = kind_of(target, stated) if kind == "auto" else kind
        if self.kind not in KINDS:
            raise ConfigError(
                f"the data set states the kind {self.kind} of its target {target}; choose from {', '.join(KINDS)}.\n"
                "  type task.kind=sentiment, or another of them"
            )
        self.meaning = KINDS[self.kind]
        self.columns = self.meaning.columns
        self.cuts: Sequence[float] = self.meaning.thresholds
        """Between its classes, of stored values, increasing."""

    def classes(self, target: Tensor) -> Tensor:
        """A stored target (N,) -> (N,) int64, how many of the cuts each value reaches.

        Raises:
            ConfigError: its kind has no cuts, or several columns.
        """
        if not self.cuts:
            has = f"{len(self.columns)} columns" if self.columns else "no cuts"
            cut = "" if self.columns else "task=classification task.thresholds=[0], or "
            raise ConfigError(
                f"task.target={self.target} has no classes, since its kind is {self.kind}, which has {has}.\n"
                f"  type {cut}objective=task"
            )
        return torch.stack([target >= cut for cut in self.cuts], dim=1).sum(dim=1)

    def check_monitor(self) -> None:
        """Refuse a monitored metric that this task does not compute.

        Raises:
            ConfigError: it does not.
        """
        blank = np.zeros((1, len(self.columns)) if self.columns else 1)
        known = ["loss", *self.metrics(blank, blank)]
        if self.monitor not in known:
            raise ConfigError(
                f"task.monitor={self.monitor}: task.target={self.target} has no such metric, since its kind is "
                f"{self.kind}; it has {', '.join(known)}.\n  type task.monitor={self.shown[0]}"
            )

    def select(self, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """This task's target (N,) among those of a fold, or (N, K) where its kind has K columns.

        Raises:
            DataError: the data set has no such target, or its values are not of its kind.
        """
        if self.columns and self.target in targets:
            values = targets[self.target]
            if values.shape[1:] != (len(self.columns),):
                came = f"{values.shape[1]} columns" if values.ndim == 2 else f"the shape {values.shape}"
                instead = "type task.kind=number" if values.ndim == 1 else of_one_number(targets)
                raise DataError(
                    f"task.target={self.target}: its kind is {self.kind}, which needs {len(self.columns)} columns "
                    f"({', '.join(self.columns)}); it has {came}.\n  {instead}"
                )
        else:
            values = super().select(targets)
        if not self.meaning.fits(values):
            others = {name: held for name, held in targets.items() if name != self.target}
            instead = of_one_number(others) if self.columns else "type task.kind=sentiment, or task.kind=number"
            raise DataError(
                f"task.target={self.target}: its kind is {self.kind}, which needs {self.meaning.requirement}; it holds "
                f"{values.min():g} to {values.max():g}.\n  {instead}"
            )
        return values
