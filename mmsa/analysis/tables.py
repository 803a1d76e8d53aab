"""Result tables: one row per configuration over its seeds, with the baselines below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from mmsa.analysis.alarms import Alarm, alarms
from mmsa.analysis.anchors import known_anchors
from mmsa.analysis.difference_table import difference_table
from mmsa.analysis.differences import MARK, Difference, differences, note
from mmsa.analysis.fold_lines import folds_notes, folds_text, spread_over
from mmsa.analysis.layout import LABELS, Cell, Column, Row, Table, counted, headed
from mmsa.analysis.outdated import OUTDATED, outdated
from mmsa.analysis.outdated import about as about_outdated
from mmsa.analysis.partial import extent, note_on, on_equal_utterances
from mmsa.analysis.predictions import Stored
from mmsa.analysis.rendering import Style, rendered
from mmsa.analysis.runs import Group, Run, source_of
from mmsa.analysis.scores import Estimate, Scored, baselines_of, published, scored
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import Shape, check_rows
from mmsa.analysis.table_lines import FIELDS, OF_TABLE, about_table, lines, record
from mmsa.data.naming import data_name
from mmsa.training.metrics import METRICS, is_share, metric_mode

PLANTED = "planted data: built-in corpus, not a result on human speech"
SPREAD = "± sample standard deviation over"
_ALL = Shape()
ERRORS = "errors.html"
"""Of a run's folder, if `mmsa evaluate RUN --errors` has made it: the page of its worst utterances."""
MAJORITY = "majority: each column has its own class, the largest of the train fold"


@dataclass(frozen=True)
class Result:
    """The table of comparable runs, and what it shows.

    Args:
        table: the rows.
        tested: the table of their differences; None where rows are not compared.
        groups: the runs of each row.
        metrics: of the columns, without a fold.
        differences: those that were tested.
        alarms: the warnings; none where they were not asked for.
    """

    table: Table
    tested: Table | None
    groups: Sequence[Group]
    metrics: Sequence[str]
    differences: Sequence[Difference]
    alarms: Sequence[Alarm]

    @property
    def tables(self) -> list[Table]:
        """The table, and that of the differences where there is one."""
        return [self.table, *([self.tested] if self.tested else [])]


def report(asked: Selection, shape: Shape = _ALL, format: Style = "table", width: int | None = None) -> str:
    """The tables of the runs that are asked for, with warnings below them.

    Args:
        asked: the runs.
        shape: the rows and columns.
        format, width: how it is written, as of `rendered`.

    Raises:
        ConfigError: nothing fits a name, an option, a metric or a row that is asked for.
        DataError: there is no finished run.
    """
    return rendered(reported(asked, shape)[0], format, width)


def reported(asked: Selection, shape: Shape = _ALL) -> tuple[list[Table], list[Result]]:
    """As `report`, the tables before they are written, and what they show."""
    found = asked.finished()
    made = results(found.runs, shape, warned=True)
    tables = [table for one in made for table in one.tables]
    tables = tables or [Table(f"{asked.outputs} holds no finished run beside the trials of studies.", fields=FIELDS)]
    tables[-1] = replace(tables[-1], foot=[*tables[-1].foot, *found.left_out])
    return tables, made


def make_tables(runs: Iterable[Run], shape: Shape = _ALL, warned: bool = False) -> list[Table]:
    """The tables of `results`."""
    return [table for one in results(runs, shape, warned) for table in one.tables]


def results(runs: Iterable[Run], shape: Shape = _ALL, warned: bool = False) -> list[Result]:
    """One per data set, fingerprint and own folds, task, fold and choice of metrics: the rest is not comparable.

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
    made = (_result(runs, shape, told, warned) for runs, told in zip(members, data, strict=True))
    return [one for one in made if one.groups]


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
    return ", ".join(filter(None, [name, folds_text(runs, fold), extent(runs, fold), f"data {data.fingerprint[:12]}"]))


def notes_of(run: Run, num_runs: int, over: str = "seeds") -> list[str]:
    """Notes on the numbers: planted data, and the meaning of ± where a row has several runs."""
    planted = [PLANTED] if run.planted else []
    return planted + ([f"mean {SPREAD} {over}"] if num_runs > 1 else [])


def estimates_row(label: str, estimates: Iterable[Estimate]) -> Row:
    """A row without a best."""
    return (Cell(label), *(Cell(estimate.text()) for estimate in estimates))


def _result(runs: Sequence[Run], shape: Shape, data: Sequence[str], warned: bool) -> Result:
    first, columns, about, stored = runs[0], shape.columns(runs), about_table(runs), Stored()
    groups, notes = shape.groups(runs)
    metrics = list(dict.fromkeys(metric for column in columns for metric in column))
    configurations = [scored(group.label, "configuration", group.runs, metrics) for group in groups]
    baselines = baselines_of(groups, metrics) if shape.baselines else []
    rows = [*configurations, *baselines]
    reference, compared = shape.compared(groups)
    tested_metrics = [metric for metric in metrics if not shape.ranked or metric in first.primary]
    found = differences(compared, reference, tested_metrics, stored) if compared else []
    marked = {(one.row, one.metric) for one in found if one.marked and not shape.pairs}
    tests = note(found) if found else []
    old, warnings = outdated(groups), alarms(groups, stored) if warned else []
    anchors = known_anchors().fitting(first.dataset, metrics) if shape.anchors and not first.planted else []
    of_others = [published(anchor, metrics) for anchor in anchors]
    percent = {metric: shape.percent and is_share(metric) for metric in metrics}
    best = {metric: _best(metric, [row.metrics[metric].mean for row in rows], percent[metric]) for metric in metrics}
    over = f"runs, grouped by {', '.join(shape.by)}" if shape.by else spread_over(groups)
    table = Table(
        title=data_line(runs, first.fold),
        notes=[*data, *note_on(runs),
               *notes_of(first, max((len(row.runs) for row in configurations), default=0), over), *notes,
               *([] if shape.seeds else folds_notes(groups)), *_cautions(first, baselines), *about_outdated(old),
               *(tests if not shape.pairs else [])],
        columns=[replace(LABELS, sorts=True),
                 *(Column(_head(column, percent[column[0]]), sorts=True) for column in columns)],
        blocks=[[_row(row, columns, percent, best, shape, marked, old) for row in part]
                for part in (configurations, baselines, *([of_others] if of_others else []))],
        best="best of its column",
        foot=[*(known_anchors().notes(anchors, runs, metrics) if shape.anchors else []),
              *(warning.line for warning in warnings)],
        terms={metric: METRICS[metric].definition for metric in metrics if metric in METRICS},
        fields=[*FIELDS, *(f"{metric}_{part}" for metric in metrics for part in ("mean", "std"))],
        records=[record(about, row) for row in lines([*rows, *of_others], shape, metrics)],
    )  # fmt: skip
    tested = None
    if found:
        above = tests if shape.pairs else ["tests: see above"]
        tested = difference_table(found, table.title, above, percent, dict(zip(OF_TABLE, about, strict=True)))
    return Result(table, tested, groups, metrics, found, warnings)


def _cautions(first: Run, baselines: Sequence[Scored]) -> list[str]:
    own_classes = first.task == "regression" and any(row.label.partition(" [")[0] == "majority" for row in baselines)
    return [MAJORITY] if own_classes else []  # of a classification it is one class


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
    over = ""
    if row.kind == "configuration":
        over = counted(len(row.runs), "run") if shape.by else Group(row.label, row.runs).extent
    count = f" ({over})" if over and not shape.seeds else ""
    places = Counter(run.place_text for run in row.runs)
    names = [run.place_text.replace("=", " ") if places[run.place_text] == 1 else "" for run in row.runs]
    named = [(name or run.folder.name, run.folder) for name, run in zip(names, row.runs, strict=True)]
    runs = [(name, _address(folder)) for name, folder in named]
    pages = [(name, folder / ERRORS) for name, folder in named] if row.kind == "configuration" else []
    errors = [(name, _address(page)) for name, page in pages if page.is_file()]
    cells = []
    for column in columns:
        made = [
            Cell(
                row.metrics[metric].text(percent[metric]),
                row.kind != "published" and Estimate(row.metrics[metric].mean).text(percent[metric]) == best[metric],
                MARK if row.kind == "configuration" and (row.label, metric) in marked else "",
                value=finite(row.metrics[metric].mean),
            )
            for metric in column
        ]
        cells.append(made[0] if len(made) == 1 else made[0]._replace(second=made[1]))
    mark = OUTDATED if row.kind == "configuration" and row.label in old else ""
    return (Cell(f"{row.label}{count}", mark=mark, runs=runs, errors=errors), *cells)


def finite(value: float) -> float | None:
    """A number, if it is one."""
    return value if math.isfinite(value) else None


def _address(path: Path) -> str:
    return path.absolute().as_uri()
