"""Result tables: one row per configuration over its seeds, with the baselines below."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from mmsa.analysis.rendering import LABELS, Cell, Column, Row, Style, Table, headed, number, rendered
from mmsa.analysis.runs import FoundRuns, Group, Run, by_configuration, read_runs
from mmsa.data.naming import data_name
from mmsa.errors import DataError
from mmsa.program import training
from mmsa.training.metrics import METRICS, metric_mode

PLANTED = "planted data: built-in corpus, not a result on human speech"
SPREAD = "± sample standard deviation over"
MAJORITY = "majority: each column has its own class, the largest of the train fold"
_NUM_NAMED = 3
_FIELDS = ("dataset", "source", "fingerprint", "planted", "task", "fold", "kind", "label", "seeds")


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

    def text(self) -> str:
        """As it is printed."""
        return number(self.mean) if self.std is None else f"{number(self.mean)} ± {number(self.std)}"


@dataclass(frozen=True)
class Scored:
    """A configuration over `num_seeds` seeds, or a baseline with none, and its metrics."""

    label: str
    num_seeds: int
    metrics: Mapping[str, Estimate]


def report(outputs: Path, sweep: str | None = None, format: Style = "table", width: int | None = None) -> str:
    """The table of every finished run under `outputs`, or of one multirun; the trials of studies are left out.

    Args:
        outputs: the outputs folder.
        sweep: id of a multirun, or name of a study.
        format, width: how it is written, as of `rendered`.

    Raises:
        DataError: there is no finished run.
    """
    found = read_runs(outputs, sweep)
    if not found.runs and not found.trials:
        raise DataError(_nothing_found(outputs, sweep, found))
    tables = make_tables(found.runs)
    tables = tables or [Table(f"{outputs} holds no finished run beside the trials of studies.", fields=_FIELDS)]
    left_out = _left_out(found)
    tables[-1] = replace(tables[-1], foot=[f"{left_out} left out.", *_named(found)] if left_out else [])
    return rendered(tables, format, width)


def make_tables(runs: Iterable[Run]) -> list[Table]:
    """One table per data set and fingerprint, task, fold and choice of metrics: the rest is not comparable."""
    comparable: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        key = (run.dataset, run.data.fingerprint, run.task, run.fold, run.primary)
        comparable.setdefault(key, []).append(run)
    return [_table(members) for members in comparable.values()]


def data_line(runs: Sequence[Run], fold: str) -> str:
    """A table's line on the data of its runs."""
    return f"{data_name(runs[0].dataset, source_of(runs))}, {fold} fold, data {runs[0].data.fingerprint[:12]}"


def source_of(runs: Iterable[Run]) -> str | None:
    """The source of runs on the same data: one name, unless copies of it have other names."""
    return ", ".join(dict.fromkeys(run.data.source for run in runs if run.data.source)) or None


def notes_of(run: Run, num_seeds: int) -> list[str]:
    """Notes on the numbers: planted data, and the meaning of ± with several seeds."""
    planted = [PLANTED] if run.planted else []
    return planted + ([f"mean {SPREAD} seeds"] if num_seeds > 1 else [])


def counted(num_seeds: int) -> str:
    """A number of seeds in words."""
    return f"{num_seeds} seed{'' if num_seeds == 1 else 's'}"


def estimates_row(label: str, estimates: Iterable[Estimate]) -> Row:
    """A row without a best."""
    return (Cell(label), *(Cell(estimate.text()) for estimate in estimates))


def _table(runs: Sequence[Run]) -> Table:
    first, metrics, groups = runs[0], runs[0].primary, by_configuration(runs)
    configurations = [_scored(group, first.fold, metrics) for group in groups]
    baselines = _baselines(groups)
    rows = [*configurations, *baselines]
    notes = notes_of(first, max(row.num_seeds for row in rows))
    own_classes = first.task == "regression" and any(row.label.partition(" [")[0] == "majority" for row in baselines)
    notes += [MAJORITY] if own_classes else []  # of a classification it is one class
    commits = {run.git.commit for group in groups for run in group.runs if run.git.commit}
    notes += [f"runs of {len(commits)} git commits"] if len(commits) > 1 else []
    best = {metric: _best(metric, [row.metrics[metric].mean for row in rows]) for metric in metrics}
    known = [metric for metric in metrics if metric in METRICS]
    heads = [headed(metric, metric_mode(metric)) if metric in known else metric for metric in metrics]
    return Table(
        title=data_line(runs, first.fold),
        notes=notes,
        columns=[LABELS, *map(Column, heads)],
        blocks=[[_row(row, best) for row in part] for part in (configurations, baselines)],
        best="best of its column",
        terms={metric: METRICS[metric].definition for metric in known},
        fields=[*_FIELDS, *(f"{metric}_{part}" for metric in metrics for part in ("mean", "std"))],
        records=[_record(runs, row) for row in rows],
    )


def _scored(group: Group, fold: str, metrics: Iterable[str]) -> Scored:
    values = {metric: [_value(run.metrics, fold, metric) for run in group.runs] for metric in metrics}
    return Scored(group.label, len(group.runs), {metric: Estimate.of(seeds) for metric, seeds in values.items()})


def _baselines(groups: Sequence[Group]) -> list[Scored]:
    """Each baseline once; where runs disagree on one (other modalities, say), each value with its configuration."""
    values: dict[str, dict[tuple[str, ...], tuple[str, dict[str, Estimate]]]] = {}
    for group in groups:
        for run in group.runs:
            for name, scores in run.baselines.items():
                metrics = {metric: Estimate(_value(scores, run.fold, metric)) for metric in run.primary}
                printed = tuple(estimate.text() for estimate in metrics.values())
                values.setdefault(name, {}).setdefault(printed, (group.label, metrics))
    return [
        Scored(name if len(variants) == 1 else f"{name} [{label}]", 0, metrics)
        for name, variants in values.items()
        for label, metrics in variants.values()
    ]


def _value(scores: Mapping[str, float], fold: str, metric: str) -> float:
    return scores.get(f"{fold}/{metric}", math.nan)


def _best(metric: str, means: Iterable[float]) -> str | None:
    """The best mean of a column as it is printed; None where there is none to prefer."""
    finite = [mean for mean in means if math.isfinite(mean)]
    if len(finite) < 2 or metric not in METRICS:
        return None
    return number(min(finite) if metric_mode(metric) == "min" else max(finite))


def _row(row: Scored, best: Mapping[str, str | None]) -> Row:
    label = f"{row.label} ({counted(row.num_seeds)})" if row.num_seeds else row.label
    return (Cell(label), *(Cell(one.text(), number(one.mean) == best[metric]) for metric, one in row.metrics.items()))


def _record(runs: Sequence[Run], row: Scored) -> list[object]:
    first, kind = runs[0], "configuration" if row.num_seeds else "baseline"
    data = [first.dataset, source_of(runs), first.data.fingerprint, str(first.planted).lower()]
    about = [*data, first.task, first.fold, kind, row.label, row.num_seeds or ""]
    return [*about, *(value for one in row.metrics.values() for value in (one.mean, one.std))]


def _left_out(found: FoundRuns) -> str:
    parts = {"unfinished": found.num_unfinished, "damaged": len(found.damaged)}
    named = [f"{count} {kind}" for kind, count in parts.items() if count]
    return f"{' and '.join(named)} run folder{'s' if sum(parts.values()) > 1 else ''}" if named else ""


def _named(found: FoundRuns) -> list[str]:
    """The first of the folders that cannot be read, and why."""
    more = [f"and {len(found.damaged) - _NUM_NAMED} more"] if len(found.damaged) > _NUM_NAMED else []
    return [*found.damaged[:_NUM_NAMED], *more]


def _nothing_found(outputs: Path, sweep: str | None, found: FoundRuns) -> str:
    left_out = _left_out(found)
    others = f" ({left_out})" if left_out else ""
    if sweep is None:
        reasons = "".join(f"\n  {line}" for line in _named(found))
        return f"{outputs} holds no finished run{others}.{reasons}\n  type {training()}, or name the folder of the runs"
    there = read_runs(outputs)
    sweeps = sorted({*(run.sweep for run in there.runs if run.sweep), *there.trials})[-5:]
    known = f"one of {', '.join(sweeps)}" if sweeps else "no sweep, to see all runs"
    return f"{outputs} holds no finished run of the sweep {sweep}{others}.\n  type {known}"
