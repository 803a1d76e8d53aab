"""Result tables: one row per configuration over its seeds, with the baselines below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from mmsa.analysis.alarms import alarms
from mmsa.analysis.anchors import Anchor, known_anchors
from mmsa.analysis.difference_table import difference_table
from mmsa.analysis.differences import MARK, differences, note
from mmsa.analysis.fold_lines import folds_notes, folds_text, spread_over
from mmsa.analysis.layout import LABELS, Cell, Column, Row, Table, counted, headed, number
from mmsa.analysis.outdated import OUTDATED, outdated
from mmsa.analysis.outdated import about as about_outdated
from mmsa.analysis.partial import note_on, on_equal_utterances
from mmsa.analysis.predictions import Stored
from mmsa.analysis.rendering import Style, rendered
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import Shape, check_rows
from mmsa.data.naming import data_name
from mmsa.training.metrics import METRICS, is_share, metric_mode

PLANTED = "planted data: built-in corpus, not a result on human speech"
SPREAD = "± sample standard deviation over"
_ALL = Shape()
MAJORITY = "majority: each column has its own class, the largest of the train fold"
_OF_TABLE = ("dataset", "source", "fingerprint", "parts", "planted", "task", "fold", "utterances")
_FIELDS = (*_OF_TABLE, "kind", "label", "folds", "held_out", "seeds", "seed", "runs")


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


def report(
    asked: Selection,
    shape: Shape = _ALL,
    format: Style = "table",
    width: int | None = None,
) -> str:
    """The tables of the runs that are asked for.

    Args:
        asked: the runs.
        shape: the rows and columns.
        format, width: how it is written, as of `rendered`.

    Raises:
        ConfigError: nothing fits a name, an option, a metric or a row that is asked for.
        DataError: there is no finished run.
    """
    return rendered(report_tables(asked, shape), format, width)


def report_tables(asked: Selection, shape: Shape = _ALL) -> list[Table]:
    """As `report`, the tables before they are written, with warnings below them."""
    found = asked.finished()
    tables = make_tables(found.runs, shape, warned=True)
    tables = tables or [Table(f"{asked.outputs} holds no finished run beside the trials of studies.", fields=_FIELDS)]
    tables[-1] = replace(tables[-1], foot=[*tables[-1].foot, *found.left_out])
    return tables


def make_tables(runs: Iterable[Run], shape: Shape = _ALL, warned: bool = False) -> list[Table]:
    """One table per data set, fingerprint and own folds, task, fold and choice of metrics: the rest is not comparable.

    Args:
        runs: the runs.
        shape: the rows and columns.
        warned: whether warnings stand below.

    Raises:
        ConfigError: no run has what the shape asks for.
    """
    members = comparable(runs, shape)
    if members:
        shape.check([run for runs in members for run in runs])
        check_rows(shape, members)
    data = _data_told_apart(members)
    stored = Stored()
    made = (_tables(runs, shape, told, stored, warned) for runs, told in zip(members, data, strict=True))
    return [table for tables in made for table in tables if table.blocks[0]]


def comparable(runs: Iterable[Run], shape: Shape = _ALL) -> list[list[Run]]:
    """The runs of each table.

    A partial import stands in a table of its own, in which every row is scored on the utterances that it has.
    """
    members: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        read = (run.dataset, run.data.fingerprint, run.data.parts)
        key = (*read, run.task, run.fold, () if shape.metrics else run.primary)
        members.setdefault(key, []).append(run)
    return [table for alike in members.values() for table in on_equal_utterances(alike)]


def data_line(runs: Sequence[Run], fold: str) -> str:
    """A table's line on the data of its runs."""
    name, data = data_name(runs[0].dataset, source_of(runs)), runs[0].data
    return f"{name}, {folds_text(runs, fold)}, data {data.fingerprint[:12]}"


def source_of(runs: Iterable[Run]) -> str | None:
    """The source of runs on the same data: one name, unless copies of it have other names."""
    return ", ".join(dict.fromkeys(run.data.source for run in runs if run.data.source)) or None


def notes_of(run: Run, num_runs: int, over: str = "seeds") -> list[str]:
    """Notes on the numbers: planted data, and the meaning of ± where a row has several runs."""
    planted = [PLANTED] if run.planted else []
    return planted + ([f"mean {SPREAD} {over}"] if num_runs > 1 else [])


def estimates_row(label: str, estimates: Iterable[Estimate]) -> Row:
    """A row without a best."""
    return (Cell(label), *(Cell(estimate.text()) for estimate in estimates))


def _tables(runs: Sequence[Run], shape: Shape, data: Sequence[str], stored: Stored, warned: bool) -> list[Table]:
    """The table of comparable runs, and that of the differences between its rows where they are compared."""
    first, columns = runs[0], shape.columns(runs)
    groups, notes = shape.groups(runs)
    metrics = list(dict.fromkeys(metric for column in columns for metric in column))
    configurations = [_scored(group.label, "configuration", group.runs, metrics) for group in groups]
    baselines = _baselines(groups, metrics) if shape.baselines else []
    rows = [*configurations, *baselines]
    found = differences(groups, shape.reference, metrics, stored) if shape.compares(groups) else []
    marked = {(one.row, one.metric) for one in found if one.marked and not shape.pairs}
    tests = note(found) if found else []
    old = outdated(groups)
    anchors = known_anchors().fitting(first.dataset, metrics) if shape.anchors and not first.planted else []
    published = [_published(anchor, metrics) for anchor in anchors]
    percent = {metric: shape.percent and is_share(metric) for metric in metrics}
    best = {metric: _best(metric, [row.metrics[metric].mean for row in rows], percent[metric]) for metric in metrics}
    over = f"runs, grouped by {', '.join(shape.by)}" if shape.by else spread_over(groups)
    table = Table(
        title=data_line(runs, first.fold),
        notes=[*data, *note_on(runs),
               *notes_of(first, max((len(row.runs) for row in configurations), default=0), over), *notes,
               *([] if shape.seeds else folds_notes(groups)), *_cautions(first, baselines), *about_outdated(old),
               *(tests if not shape.pairs else [])],
        columns=[LABELS, *(Column(_head(column, percent[column[0]])) for column in columns)],
        blocks=[[_row(row, columns, percent, best, shape, marked, old) for row in part]
                for part in (configurations, baselines, *([published] if published else []))],
        best="best of its column",
        foot=[*(known_anchors().notes(anchors, runs, metrics) if shape.anchors else []),
              *(alarm.line for alarm in (alarms(groups, stored) if warned else []))],
        terms={metric: METRICS[metric].definition for metric in metrics if metric in METRICS},
        fields=[*_FIELDS, *(f"{metric}_{part}" for metric in metrics for part in ("mean", "std"))],
        records=[_record(runs, row) for row in _lines([*rows, *published], shape, metrics)],
    )  # fmt: skip
    if not found:
        return [table]
    about = dict(zip(_OF_TABLE, _about(runs), strict=True))
    above = tests if shape.pairs else ["tests: see above"]
    return [table, difference_table(found, table.title, above, percent, about)]


def _cautions(first: Run, baselines: Sequence[Scored]) -> list[str]:
    own_classes = first.task == "regression" and any(row.label.partition(" [")[0] == "majority" for row in baselines)
    return [MAJORITY] if own_classes else []  # of a classification it is one class


def _published(anchor: Anchor, metrics: Iterable[str]) -> Scored:
    values = {metric: Estimate(anchor.metrics.get(metric, math.nan)) for metric in metrics}
    return Scored(anchor.label, "published", values, (), known_anchors().sources[anchor.source].url)


def _data_told_apart(tables: Sequence[Sequence[Run]]) -> list[list[str]]:
    """A note per table that only its data's hash would tell from another: the options, or the path, that differ."""
    notes: list[list[str]] = []
    titles = [(runs[0].dataset, source_of(runs)) for runs in tables]
    for title, runs in zip(titles, tables, strict=True):
        of_others = [
            other[0]
            for name, other in zip(titles, tables, strict=True)
            if name == title and other[0].data.fingerprint != runs[0].data.fingerprint
        ]
        ours = _data_options(runs[0])
        differing = {key for other in of_others for key, value in _data_options(other) ^ ours}
        told = [f"{key}={value}" for key, value in sorted(ours) if key in differing]
        notes.append([f"data of {' '.join(told) or 'other files'}"] if of_others else [])
    return notes


def _data_options(run: Run) -> set[tuple[str, str]]:
    options = run.configuration.items()
    made = {(key, value) for key, value in options if key.startswith("dataset.") and key != "dataset.num_folds"}
    return made | {("dataset.source", run.path)} if run.path else made


def _scored(label: str, kind: str, runs: tuple[Run, ...], metrics: Iterable[str]) -> Scored:
    values = {metric: [_value(run.metrics, run.fold, metric) for run in runs] for metric in metrics}
    return Scored(label, kind, {metric: Estimate.of(seeds) for metric, seeds in values.items()}, runs)


def _baselines(groups: Sequence[Group], metrics: Sequence[str]) -> list[Scored]:
    """Each baseline once; where runs disagree on one (other modalities, say), each value with its configuration.

    Of own folds it is the mean over the test folds, on each of which all seeds have the same.
    """
    values: dict[str, dict[tuple[str, ...], Scored]] = {}
    for group in groups:
        for runs in _of_one_baseline(group.runs):
            for name in dict.fromkeys(name for run in runs for name in run.baselines):
                scored = [run for run in runs if name in run.baselines]
                by_fold = {run.data.held_out: run for run in scored}.values()
                found = {
                    metric: Estimate.of([_value(run.baselines[name], run.fold, metric) for run in by_fold])
                    for metric in metrics
                }
                printed = tuple(estimate.text() for estimate in found.values())
                same = values.setdefault(name, {}).setdefault(printed, Scored(group.label, "baseline", found, ()))
                values[name][printed] = replace(same, runs=(*same.runs, *scored))
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


def _best(metric: str, means: Iterable[float], percent: bool) -> str | None:
    """The best mean of a column as it is printed; None where there is none to prefer."""
    finite = [mean for mean in means if math.isfinite(mean)]
    if len(finite) < 2 or metric not in METRICS:
        return None
    return Estimate(min(finite) if metric_mode(metric) == "min" else max(finite)).text(percent)


def _head(column: Sequence[str], percent: bool) -> str:
    """The head of a column: its metric, or the two of a pair, whose common beginning stands once."""
    first, *second = column
    shared = first.partition("_")[0]
    name = "/".join([first, *(other.removeprefix(f"{shared}_") for other in second)])
    name += " %" if percent else ""
    return headed(name, metric_mode(first)) if first in METRICS else name


def _row(
    row: Scored,
    columns: Sequence[Sequence[str]],
    percent: Mapping[str, bool],
    best: Mapping[str, str | None],
    shape: Shape,
    marked: Set[tuple[str, str]],
    old: Container[str],
) -> Row:
    extent = ""
    if row.kind == "configuration":
        extent = counted(len(row.runs), "run") if shape.by else Group(row.label, row.runs).extent
    count = f" ({extent})" if extent and not shape.seeds else ""
    places = Counter(run.place_text for run in row.runs)
    names = [run.place_text.replace("=", " ") if places[run.place_text] == 1 else "" for run in row.runs]
    runs = [(name or run.folder.name, _address(run.folder)) for name, run in zip(names, row.runs, strict=True)]
    cells = []
    for column in columns:
        made = [
            Cell(
                row.metrics[metric].text(percent[metric]),
                row.kind != "published" and Estimate(row.metrics[metric].mean).text(percent[metric]) == best[metric],
                MARK if row.kind == "configuration" and (row.label, metric) in marked else "",
            )
            for metric in column
        ]
        cells.append(made[0] if len(made) == 1 else made[0]._replace(second=made[1]))
    mark = OUTDATED if row.kind == "configuration" and row.label in old else ""
    return (Cell(f"{row.label}{count}", mark=mark, runs=runs), *cells)


def _lines(rows: Iterable[Scored], shape: Shape, metrics: Sequence[str]) -> Iterable[Scored]:
    """The lines of the CSV: behind each row over several runs the runs themselves."""
    for row in rows:
        alone = row.kind == "configuration" and shape.seeds
        yield replace(row, kind="seed") if alone else row
        if row.kind == "configuration" and not alone:
            yield from (_scored(row.label, "seed", (run,), metrics) for run in row.runs)


def _record(runs: Sequence[Run], row: Scored) -> list[object]:
    about = _about(runs)
    numbers: list[object] = ["", "", "", ""]
    if row.kind == "configuration":
        held_out = {run.data.held_out for run in row.runs if run.data.parts}
        seeds = {run.seed for run in row.runs} if held_out else row.runs
        numbers = [len(held_out) or "", "", len(seeds), ""]
    elif row.kind == "seed":
        numbers = ["", row.runs[0].data.held_out, "", row.runs[0].seed]
    elif row.kind == "published":
        about[1:5], about[6:8] = ["", "", "", "false"], ["test", ""]
    folders = row.url or ";".join(str(run.folder) for run in row.runs)
    values = [value for one in row.metrics.values() for value in (one.mean, one.std)]
    return [*about, row.kind, row.label, *numbers, folders, *values]


def _about(runs: Sequence[Run]) -> list[object]:
    """The first fields of CSV: what all rows of a table rest on."""
    first = runs[0]
    data = [first.dataset, source_of(runs), first.data.fingerprint, first.data.parts, str(first.planted).lower()]
    number = first.data.utterances.get(first.fold, "") if first.among is None else len(first.among)
    return [*data, first.task, first.fold, number]


def _address(folder: Path) -> str:
    return folder.absolute().as_uri()
