"""Result tables: one row per configuration over its seeds, with the baselines below."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from mmsa.analysis import rendering
from mmsa.analysis.runs import FoundRuns, Group, Run, by_configuration, read_run, read_runs
from mmsa.errors import DataError
from mmsa.training.metrics import METRICS, metric_mode

Style = Literal["table", "markdown", "csv"]
PLANTED = "planted data: built-in corpus, not a result on human speech"


@dataclass(frozen=True)
class Cell:
    """A metric over seeds: its mean, and its sample standard deviation where there are two or more."""

    mean: float
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Cell:
        """The cell of one value per seed; NaN as soon as one seed has no value."""
        if not values or not all(map(math.isfinite, values)):
            return cls(math.nan)
        return cls(fmean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """A line of a table: a configuration over `num_seeds` seeds, or a baseline with none."""

    label: str
    num_seeds: int
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Table:
    """Runs that may be compared: one data set and fingerprint, one task, one fold, the same metrics.

    Args:
        title: data set and fold.
        notes: what has to be known to read it.
        planted: the data are the built-in corpus.
        data: name of the data set and fingerprint.
        task: regression or classification.
        fold: the fold that was scored.
        metrics: the columns.
        rows: configurations in the order in which they were first run.
        baselines: baselines, in the order in which they were fitted.
    """

    title: str
    notes: tuple[str, ...]
    planted: bool
    data: tuple[str, str]
    task: str
    fold: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    baselines: tuple[Row, ...]

    def best(self, metric: str) -> str | None:
        """The best mean of a column as it is printed, baselines included; None where there is none to prefer."""
        means = [row.cells[metric].mean for row in (*self.rows, *self.baselines)]
        finite = [mean for mean in means if math.isfinite(mean)]
        if len(finite) < 2 or metric not in METRICS:
            return None
        return rendering.number(min(finite) if metric_mode(metric) == "min" else max(finite))


def report(outputs: Path, sweep: str | None = None, format: Style = "table", width: int | None = None) -> str:
    """The table of every finished run under `outputs`, or of one multirun; the trials of studies are left out.

    Args:
        outputs: the outputs folder.
        sweep: id of a multirun, or name of a study.
        format: a table for the terminal, Markdown or CSV.
        width: columns of the table for the terminal; None is the terminal's, and 100 where there is none.

    Raises:
        DataError: there is no finished run.
    """
    found = read_runs(outputs, sweep)
    if not found.runs and not found.trials:
        raise DataError(_nothing_found(outputs, sweep, found))
    left_out = _left_out(found)
    text = _rendered(make_tables(found.runs), format, width)
    if not found.runs and format != "csv":
        text = f"{outputs} holds no finished run beside the trials of studies."
    if format == "csv" or not left_out:
        return text
    return f"{text}\n\n{left_out} left out."


def run_table(folder: Path, style: Style = "table", width: int | None = None) -> str:
    """The table of one run beside its baselines.

    Args:
        folder: the folder of a finished run.
        style: a table for the terminal, Markdown or CSV.
        width: as for `report`.

    Raises:
        DataError: the folder does not hold a finished run.
    """
    return _rendered(make_tables([read_run(folder)]), style, width)


def make_tables(runs: Iterable[Run]) -> list[Table]:
    """One table per data set and fingerprint, task, fold and choice of metrics: the rest is not comparable."""
    comparable: dict[tuple[tuple[str, str], str, str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        comparable.setdefault((run.data, run.task, run.fold, run.primary), []).append(run)
    return [_table(members) for members in comparable.values()]


def data_line(run: Run, fold: str) -> str:
    """What a table says of its data."""
    name, fingerprint = run.data
    return f"{name}, {fold} fold, data {fingerprint[:12]}"


def _table(runs: Sequence[Run]) -> Table:
    first = runs[0]
    groups = by_configuration(runs)
    rows = []
    for group in groups:
        values = {metric: [_value(run.metrics, run.fold, metric) for run in group.runs] for metric in first.primary}
        rows.append(Row(group.label, len(group.runs), {metric: Cell.of(seeds) for metric, seeds in values.items()}))
    notes = [PLANTED] if first.planted else []
    if any(row.num_seeds > 1 for row in rows):
        notes.append("mean ± standard deviation over seeds")
    commits = {run.commit for group in groups for run in group.runs if run.commit}
    if len(commits) > 1:
        notes.append(f"runs of {len(commits)} git commits")
    return Table(
        title=data_line(first, first.fold),
        notes=tuple(notes),
        planted=first.planted,
        data=first.data,
        task=first.task,
        fold=first.fold,
        metrics=first.primary,
        rows=tuple(rows),
        baselines=_baseline_rows(groups),
    )


def _baseline_rows(groups: Sequence[Group]) -> tuple[Row, ...]:
    """Each baseline once; where runs disagree on one (other modalities, say), each value with its configuration."""
    values: dict[str, dict[tuple[str, ...], tuple[str, dict[str, Cell]]]] = {}
    for group in groups:
        for run in group.runs:
            for name, scores in run.baselines.items():
                cells = {metric: Cell(_value(scores, run.fold, metric)) for metric in run.primary}
                printed = tuple(rendering.number(cell.mean) for cell in cells.values())
                values.setdefault(name, {}).setdefault(printed, (group.label, cells))
    rows = []
    for name, variants in values.items():
        for label, cells in variants.values():
            rows.append(Row(name if len(variants) == 1 else f"{name} [{label}]", 0, cells))
    return tuple(rows)


def _value(scores: Mapping[str, float], fold: str, metric: str) -> float:
    return scores.get(f"{fold}/{metric}", math.nan)


def _rendered(tables: Sequence[Table], style: Style, width: int | None) -> str:
    draw: dict[Style, Callable[[], str]] = {
        "table": lambda: rendering.terminal(tables, width),
        "markdown": lambda: rendering.markdown(tables),
        "csv": lambda: rendering.comma_separated(tables),
    }
    if style not in draw:
        raise DataError(f"format={style}: no such format of a table.\n  type one of {', '.join(draw)}")
    return draw[style]()


def _left_out(found: FoundRuns) -> str:
    parts = {"unfinished": found.num_unfinished, "damaged": found.num_damaged}
    told = [f"{number} {kind}" for kind, number in parts.items() if number]
    return f"{' and '.join(told)} run folder{'s' if sum(parts.values()) > 1 else ''}" if told else ""


def _nothing_found(outputs: Path, sweep: str | None, found: FoundRuns) -> str:
    left_out = _left_out(found)
    others = f" ({left_out})" if left_out else ""
    if sweep is None:
        return f"{outputs} holds no finished run{others}.\n  type python train.py, or name the folder of the runs"
    there = read_runs(outputs)
    sweeps = sorted({*(run.sweep for run in there.runs if run.sweep), *there.trials})[-5:]
    known = f"one of {', '.join(sweeps)}" if sweeps else "no sweep, to see all runs"
    return f"{outputs} holds no finished run of the sweep {sweep}{others}.\n  type {known}"
