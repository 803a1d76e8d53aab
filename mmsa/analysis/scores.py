"""The scores behind the rows of a table: of configurations over seeds, of baselines and of published results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from mmsa.analysis.anchors import Anchor, known_anchors
from mmsa.analysis.layout import number
from mmsa.analysis.runs import Group, Run


@dataclass(frozen=True)
class Estimate:
    """A metric over seeds: its mean, and its sample standard deviation where there are two or more."""

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The estimate from one value per seed; NaN as soon as one seed has no value."""
        if not values or not all(map(math.isfinite, values)):
            return cls(math.nan)
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)

    def text(self, percent: bool = False) -> str:
        """As it is printed, in percent with the digits that count alike."""
        values = [self.mean] if self.std is None else [self.mean, self.std]
        return " ± ".join(number(100 * value, 1) if percent else number(value) for value in values)


@dataclass(frozen=True)
class Scored:
    """A row: its name, its metrics, and the runs that it rests on.

    Args:
        label: its name.
        kind: "configuration"; of a line of CSV also "seed"; "baseline"; or "published".
        metrics: name -> value over the runs.
        runs: those that have these values.
        url: of a published row.
    """

    label: str
    kind: str
    metrics: Mapping[str, Estimate]
    runs: tuple[Run, ...]
    url: str = ""


def scored(label: str, kind: str, runs: tuple[Run, ...], metrics: Iterable[str]) -> Scored:
    """A row of these runs."""
    values = {metric: [_value(run.metrics, run.fold, metric) for run in runs] for metric in metrics}
    return Scored(label, kind, {metric: Estimate.of(seeds) for metric, seeds in values.items()}, runs)


def baselines_of(groups: Sequence[Group], metrics: Sequence[str]) -> list[Scored]:
    """Each baseline once; where runs disagree on one (other modalities, say), each value with its configuration.

    Of own folds it is the mean over the test folds, on each of which all seeds have the same.
    """
    values: dict[str, dict[tuple[str, ...], Scored]] = {}
    for group in groups:
        for runs in _of_one_baseline(group.runs):
            for name in dict.fromkeys(name for run in runs for name in run.baselines):
                known = [run for run in runs if name in run.baselines]
                by_fold = {run.data.held_out: run for run in known}.values()
                found = {
                    metric: Estimate.of([_value(run.baselines[name], run.fold, metric) for run in by_fold])
                    for metric in metrics
                }
                printed = tuple(estimate.text() for estimate in found.values())
                same = values.setdefault(name, {}).setdefault(printed, Scored(group.label, "baseline", found, ()))
                values[name][printed] = replace(same, runs=(*same.runs, *known))
    return [
        replace(row, label=name if len(variants) == 1 else f"{name} [{row.label}]")
        for name, variants in values.items()
        for row in variants.values()
    ]


def _of_one_baseline(runs: Sequence[Run]) -> list[Sequence[Run]]:
    """A row's runs: those over own folds together, others one by one."""
    return [runs] if runs[0].data.parts else [[run] for run in runs]


def _value(scores: Mapping[str, float], fold: str, metric: str) -> float:
    return scores.get(f"{fold}/{metric}", math.nan)


def published(anchor: Anchor, metrics: Iterable[str]) -> Scored:
    """The row of a published result."""
    values = {metric: Estimate(anchor.metrics.get(metric, math.nan)) for metric in metrics}
    return Scored(anchor.label, "published", values, (), known_anchors().sources[anchor.source].url)
