"""Tables as text: for a terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmsa.training.metrics import METRICS, metric_mode

if TYPE_CHECKING:
    from mmsa.analysis.tables import Cell, Row, Table

PIPED_WIDTH, WIDEST = 100, 140
_LABEL_WIDTH = 24  # what a row's label keeps at least


def number(value: float) -> str:
    """A metric as it is printed."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def terminal(tables: Sequence[Table], width: int | None = None) -> str:
    """Tables for a terminal, plain text; `*` marks the best value of a column.

    Args:
        tables: the tables, one below the other.
        width: columns; None is the terminal's, at most 140, and 100 where there is none.
    """
    if width is None:
        columns = shutil.get_terminal_size().columns
        width = min(columns, WIDEST) if sys.stdout.isatty() else PIPED_WIDTH
    return "\n\n".join(_terminal(table, width) for table in tables)


def markdown(tables: Sequence[Table]) -> str:
    """Tables as Markdown; the best value of a column is bold, and every metric is defined below."""
    parts = []
    for table in tables:
        head = [f"**{plain(table.title)}**", *(f"*{note}*" for note in table.notes)]
        lines = ["  \n".join(head), "", markdown_line(["", *map(_headed, table.metrics)])]
        lines.append(markdown_line([":---", *["---:"] * len(table.metrics)]))
        for row in (*table.rows, *table.baselines):
            cells = [_bold(table, metric, row.cells[metric]) for metric in table.metrics]
            lines.append(markdown_line([plain(_labelled(row)), *cells]))
        parts.append("\n".join(lines))
    shown = dict.fromkeys(metric for table in tables for metric in table.metrics if metric in METRICS)
    definitions = [f"- `{metric}`: {METRICS[metric].definition}" for metric in shown]
    return "\n\n".join([*parts, "\n".join(definitions)])


def comma_separated(tables: Sequence[Table]) -> str:
    """Tables as one CSV: a line per row, with mean and standard deviation of every metric in full precision."""
    metrics = list(dict.fromkeys(metric for table in tables for metric in table.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = ["dataset", "fingerprint", "planted", "task", "fold", "kind", "label", "seeds"]
    writer.writerow(known + [f"{metric}_{part}" for metric in metrics for part in ("mean", "std")])
    for table in tables:
        for row in (*table.rows, *table.baselines):
            kind = "configuration" if row.num_seeds else "baseline"
            line: list[object] = [*table.data, str(table.planted).lower(), table.task, table.fold]
            line += [kind, row.label, row.num_seeds or ""]
            for metric in metrics:
                cell = row.cells.get(metric)
                line += ["", ""] if cell is None else [precise(cell.mean), precise(cell.std)]
            writer.writerow(line)
    return text.getvalue().rstrip("\n")


def _terminal(table: Table, width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    rows = (*table.rows, *table.baselines)
    heads = [_headed(metric) for metric in table.metrics]
    columns = [[_starred(table, metric, row.cells[metric]) for row in rows] for metric in table.metrics]
    if _needed(heads, columns) > width:  # two lines: the name at its first underscore, the mean above its deviation
        heads = [head.replace("_", "_\n", 1) for head in heads]
        columns = [[text.replace(" ±", "\n±") for text in texts] for texts in columns]
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid.add_column("", overflow="fold")
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for row, *texts in zip(rows, *columns, strict=True):
        if table.baselines and row is table.baselines[0]:
            grid.add_section()
        grid.add_row(_labelled(row), *texts)
    marked = any(text.startswith("*") for texts in columns for text in texts)
    page = io.StringIO()
    # A screen narrower than the numbers folds lines rather than losing them.
    screen = Console(
        file=page,
        width=max(width, _needed(heads, columns)),
        color_system=None,
        markup=False,
        highlight=False,
        force_jupyter=False,  # else a notebook shows the lines at once and the page stays empty
    )
    for line in (table.title, *table.notes, *(["* best of its column"] if marked else [])):
        screen.print(line)
    screen.print()
    screen.print(grid)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def _needed(heads: Sequence[str], columns: Sequence[Sequence[str]]) -> int:
    """Columns that the numbers take beside a readable label."""
    lines = ["\n".join([head, *texts]).split("\n") for head, texts in zip(heads, columns, strict=True)]
    return _LABEL_WIDTH + sum(max(map(len, column)) + 2 for column in lines)


def _headed(metric: str) -> str:
    if metric not in METRICS:
        return metric
    return f"{metric} {'↓' if metric_mode(metric) == 'min' else '↑'}"


def _labelled(row: Row) -> str:
    if not row.num_seeds:
        return row.label
    return f"{row.label} ({row.num_seeds} seed{'s' if row.num_seeds > 1 else ''})"


def _celled(cell: Cell) -> str:
    return number(cell.mean) if cell.std is None else f"{number(cell.mean)} ± {number(cell.std)}"


def _is_best(table: Table, metric: str, cell: Cell) -> bool:
    return math.isfinite(cell.mean) and number(cell.mean) == table.best(metric)


def _starred(table: Table, metric: str, cell: Cell) -> str:
    return f"{'*' if _is_best(table, metric, cell) else ''}{_celled(cell)}"


def _bold(table: Table, metric: str, cell: Cell) -> str:
    return f"**{_celled(cell)}**" if _is_best(table, metric, cell) else _celled(cell)


def markdown_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\|*_[]<":
        text = text.replace(sign, f"\\{sign}")
    return text


def precise(value: float | None) -> str:
    """A number without loss; nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else repr(value)
