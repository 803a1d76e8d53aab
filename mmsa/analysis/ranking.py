"""The rows of a table in the order of their validation scores, which decides before the test fold is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mmsa.analysis.runs import Group, Run
from mmsa.training.metrics import METRICS, metric_mode


@dataclass(frozen=True)
class Ranking:
    """Rows with their validation scores.

    Args:
        metric: by which they are ranked, without a fold; None: it is not known.
        groups: the best row first, those without a score last.
        scores: of each group the mean over its runs; NaN where one has none.
    """

    metric: str | None
    groups: Sequence[Group]
    scores: Sequence[float]

    @property
    def best(self) -> Group | None:
        """The row that validation chooses; None where no row has a score."""
        return self.groups[0] if self.groups and math.isfinite(self.scores[0]) else None


def ranked(groups: Sequence[Group]) -> Ranking:
    """Rank the rows of one table by the metric that selects epochs; equal ones stay in their order."""
    first = next((group.runs[0] for group in groups if not group.runs[0].is_import), groups[0].runs[0])
    metric = deciding(first)
    means = [fmean(run.metrics.get(f"valid/{metric}", math.nan) for run in group.runs) for group in groups]
    sign = -1.0 if metric and metric_mode(metric) == "max" else 1.0
    order = sorted(
        range(len(groups)), key=lambda place: sign * means[place] if math.isfinite(means[place]) else math.inf
    )
    return Ranking(metric, [groups[place] for place in order], [means[place] for place in order])


def deciding(run: Run) -> str | None:
    """The metric by which a run is judged: that which selects epochs, else the first that tables show; None unknown."""
    names = [run.monitor.rpartition("/")[2], *run.primary]
    return next(
        (name for name in names if name != "loss" and name in METRICS and f"{run.fold}/{name}" in run.metrics), None
    )
