"""All results as one page: rows in the order of their validation scores, with differences, warnings and figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mmsa.analysis.differences import note
from mmsa.analysis.layout import Cell, Column, Row, Table, counted, headed, number
from mmsa.analysis.ranking import Ranking, ranked
from mmsa.analysis.rendering import paged
from mmsa.analysis.result_figures import draw_differences, draw_scores
from mmsa.analysis.runs import Group
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import MOST_COMPARED, Shape
from mmsa.analysis.tables import Result, finite, results
from mmsa.drawing import drawn
from mmsa.errors import ConfigError
from mmsa.run_folder import override_key, write_text
from mmsa.training.metrics import metric_mode

TITLE = "mmsa leaderboard"
_MOST_PANELS = 12
_OURS, _HEAD = f"<title>{TITLE}</title>".encode(), 2**16


def write_leaderboard(path: Path, asked: Selection, reference: str | None = None, more: Sequence[str] = ()) -> int:
    """Write the page; an earlier one is replaced.

    Args:
        path: of the page.
        asked: the runs.
        reference: name of the row that the others are compared with; a table without it takes its best by validation.
        more: lines that stand above the tables.

    Returns:
        The number of runs.

    Raises:
        ConfigError: the file is another one, or nothing fits a name or an option.
        DataError: there is no finished run.
    """
    _check_ours(path)
    found = asked.finished()
    shape = Shape(reference=reference, anchors=True, ranked=True)
    made = results(found.runs, shape, warned=True)
    about = [
        f"{counted(len(found.runs), 'run')} in {counted(len(made), 'table')}; only rows of one table compare",
        "rows stand in the order of their validation scores, so that the test fold chooses none",
        "a head sorts by its column, where the browser runs scripts; baselines and published results stay below",
    ]
    head = Table("Leaderboard", about, foot=[*more, *found.left_out])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, paged([head, *(table for one in made for table in _tables(one))], TITLE) + "\n")
    return len(found.runs)


def _check_ours(path: Path) -> None:
    """Check that no other file would be lost.

    Raises:
        ConfigError: one would.
    """
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if _OURS in file.read(_HEAD):
                return
    raise ConfigError(f"--output {path} is no leaderboard, and is kept.\n  type --output NEW.html")


def _tables(one: Result) -> list[Table]:
    """The table with the validation score and the options of each row, then its figure, then the differences."""
    shown, metrics = _shown(one), one.groups[0].runs[0].primary[:_MOST_PANELS]
    tables = [_wider(one, ranked(one.groups))]
    if len(one.groups) > 1:
        rows = f"the first {len(shown)} of {len(one.groups)} rows" if len(shown) < len(one.groups) else "every row"
        picture = drawn(draw_scores(shown, metrics), "png")
        tables.append(Table(f"{one.table.title}: scores of {rows}", picture=(picture, f"scores of {rows}")))
    if one.tested:
        forest = drawn(draw_differences([found for found in one.differences if found.metric in metrics]), "png")
        meaning = f"differences from {one.differences[0].reference}"
        tables.append(replace(one.tested, notes=note(one.differences), picture=(forest, meaning)))
    return tables


def _shown(one: Result) -> Sequence[Group]:
    """The rows that were compared, in the order of the table; else the first ones."""
    tested = {label for difference in one.differences for label in (difference.row, difference.reference)}
    return [group for group in one.groups if group.label in tested] or one.groups[:MOST_COMPARED]


def _wider(one: Result, ranking: Ranking) -> Table:
    """The table of a result with the column that orders its rows, and a column per option in which they differ."""
    options = _options(one.groups)
    heads = [Column(key, folds_to=18, option=True, sorts=True) for key in options]
    metric = ranking.metric if one.groups[0].runs[0].fold == "test" else None
    valid = [Column(headed(f"valid {metric}", metric_mode(metric)), sorts=True)] if metric else []
    behind = 1 + len(set(one.groups[0].runs[0].primary))  # the name and the metrics that the task shows

    def row(cells: Row, score: Sequence[Cell], chosen: Sequence[Cell]) -> Row:
        return (cells[0], *score[: len(valid)], *cells[1:behind], *chosen, *cells[behind:])

    configurations, *others = one.table.blocks
    ours = [
        row(
            cells, [Cell(number(score), value=finite(score))], [_option(of_rows[place]) for of_rows in options.values()]
        )
        for place, (cells, score) in enumerate(zip(configurations, ranking.scores, strict=True))
    ]
    rest = [[row(cells, [Cell("")], [Cell("")] * len(options)) for cells in block] for block in others]
    columns = [*one.table.columns[:1], *valid, *one.table.columns[1:behind], *heads, *one.table.columns[behind:]]
    of_tests = note(one.differences)[1:] if one.differences else []  # stand above the differences
    notes = [*(line for line in one.table.notes if line not in of_tests), *_about_order(one, ranking)]
    warnings = [alarm.line for alarm in one.alarms]
    foot = [*warnings, *(line for line in one.table.foot if line not in warnings)]
    return replace(one.table, notes=notes, columns=columns, blocks=[ours, *rest], foot=foot)


def _about_order(one: Result, ranking: Ranking) -> list[str]:
    """How the rows are ordered, and with which one the others are compared."""
    if len(one.groups) == 1:
        return []
    if ranking.best is None:
        return ["no row has a validation score: the order is that of the names"]
    lines = [f"ordered by {ranking.metric} of the validation fold, the mean over the runs of a row"]
    if not one.differences:
        return lines
    reference, others = one.differences[0].reference, len(_shown(one)) - 1
    chosen = "the best row by validation" if reference == ranking.best.label else "as asked"
    rows = "" if others == len(one.groups) - 1 else f", for the first {others} other rows"
    return [*lines, f"differences are tested from {reference}, {chosen}{rows}"]


def _options(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Option -> its value in each row, where rows differ in it: the options that were typed, and groups' choices."""
    typed = dict.fromkeys(override_key(part) for group in groups for part in group.parts)
    runs = [group.runs[0] for group in groups]
    rows = [{**{key: run.option(key) for key in typed}, **run.choices} for run in runs]
    values = {key: [row.get(key) or "–" for row in rows] for key in dict.fromkeys(key for row in rows for key in row)}
    return {key: of_rows for key, of_rows in values.items() if len(set(of_rows)) > 1}


def _option(value: str) -> Cell:
    with suppress(ValueError):
        return Cell(value, value=finite(float(value)))
    return Cell(value)
