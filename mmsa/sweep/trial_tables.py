"""A study's best trials as text: for a terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import sys
from collections.abc import Sequence

from mmsa.analysis import rendering
from mmsa.analysis.rendering import markdown_line, plain, precise
from mmsa.analysis.tables import PLANTED
from mmsa.sweep.summary import Row, Summary

_REASONS = 5  # different reasons of failures that are told
_GAP = 3  # columns of the screen between two of the table
_LEAST = 24  # columns that a configuration keeps at least
_FRACTION = re.compile(r"-?(\d+\.\d*|\.\d+|\d+(?=e))(e[+-]?\d+)?", re.IGNORECASE)


def value_text(objective: str, value: float) -> str:
    """An objective's value as it is printed."""
    if objective == "num_parameters":
        return f"{value:,.0f}"
    return f"{value:.1f}" if objective == "seconds" else rendering.number(value)


def standing(summary: Summary) -> str:
    """How far a study is, such as "50 of 50 trials done, 10 of them pruned, 3 failed"."""
    counts = summary.counts
    parts = [f"{counts['done'] + counts['pruned']} of {summary.total} trials done"]
    parts += [f"{counts['pruned']} of them pruned"] if counts["pruned"] else []
    return ", ".join([*parts, *(f"{counts[state]} {state}" for state in ("failed", "running") if counts[state])])


def terminal(summary: Summary, width: int | None, top: int) -> str:
    """For a terminal, plain text; `*` marks what is best."""
    if width is None:
        columns = shutil.get_terminal_size().columns
        width = min(columns, rendering.WIDEST) if sys.stdout.isatty() else rendering.PIPED_WIDTH
    shown = _shown(summary, top)
    head = [_title(summary), *_notes(summary, shown)]
    if not shown:
        return "\n".join([*head, *_failures(summary)])
    best = "of the Pareto front" if len(summary.objectives) > 1 else "best trial"
    head += [f"* {best}"] if summary.best else []
    return "\n".join([*head, "", _drawn(summary, shown, width), "", *_foot(summary, shown)]).rstrip()


def markdown(summary: Summary, top: int) -> str:
    """As Markdown; what is best is bold."""
    shown = _shown(summary, top)
    head = [f"**{plain(_title(summary))}**", *(f"*{plain(note)}*" for note in _notes(summary, shown))]
    parts = ["  \n".join(head)]
    if shown:
        keys = summary.varying()
        heads = ["trial", *_headed(summary), "seconds", *keys]
        lines = [markdown_line(list(map(plain, heads))), markdown_line(["---:"] * len(heads))]
        for row in shown:
            values = _values(summary, row)
            values = [f"**{value}**" for value in values] if row in summary.best else values
            lines.append(
                markdown_line(
                    [str(row.number), *values, _seconds(row.seconds), *(plain(_chosen(row, key)) for key in keys)]
                )
            )
        parts.append("\n".join(lines))
    parts += ["  \n".join(map(plain, _foot(summary, shown)))]
    return "\n\n".join(part for part in parts if part)


def comma_separated(summary: Summary) -> str:
    """As CSV: a line per trial in the order of their numbers, values in full precision."""
    keys = summary.varying()
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    known = ["study", "dataset", "fingerprint", "planted", "trial", "state", "seeds", "seconds", "reason"]
    writer.writerow([*known, *summary.objectives, f"{summary.objectives[0]}_std", *keys])
    for row in summary.rows:
        line: list[object] = [summary.name, summary.dataset, summary.fingerprint, str(summary.planted).lower()]
        line += [row.number, row.state, len(row.scores) or "", precise(row.seconds), row.reason]
        line += [precise(value) for value in row.values] or [""] * len(summary.objectives)
        line.append(precise(row.deviation) if row.values else "")
        writer.writerow([*line, *(row.overrides.get(key, "") for key in keys)])
    return page.getvalue().rstrip("\n")


def _shown(summary: Summary, top: int) -> list[Row]:
    return summary.ranked()[:top]


def _title(summary: Summary) -> str:
    return f"study {summary.name}: {standing(summary)}"


def _notes(summary: Summary, shown: Sequence[Row]) -> list[str]:
    """What has to be known to read the table."""
    data = f", data {summary.fingerprint[:12]}" if summary.fingerprint else ""
    fold = "test" if summary.final else "validation"
    notes = [f"{summary.dataset}, {fold} fold{data}", f"sampler {summary.sampler}, pruner {summary.pruner}"]
    notes += [PLANTED] if summary.planted else []
    if summary.best:
        notes.append("values of the validation fold: the best one is optimistic, because it was chosen by them")
    if summary.seeds > 1 and shown:
        value = "confidence bound" if any(row.is_bound for row in shown) else "mean"
        notes.append(f"{value} ± standard deviation over {summary.seeds} seeds")
    return notes


def _foot(summary: Summary, shown: Sequence[Row]) -> list[str]:
    """What stands below the table."""
    done = summary.counts["done"]
    lines = [f"the best {len(shown)} of {done} trials that ran to their end"] if len(shown) < done else []
    if shown:
        lines.append(f"{_seconds(summary.mean_seconds)} s per trial, {_seconds(summary.total_seconds)} s all together")
    return [*lines, *_failures(summary)]


def _failures(summary: Summary) -> list[str]:
    """Why trials failed, the most frequent reason first."""
    lines = [f"failed: {number} × {reason}" for reason, number in summary.reasons.items()]
    more = sum(list(summary.reasons.values())[_REASONS:])
    return [*lines[:_REASONS], *([f"failed: {more} × for other reasons"] if more else [])]


def _headed(summary: Summary) -> list[str]:
    return [
        f"{name} {'↓' if mode == 'min' else '↑'}" for name, mode in zip(summary.objectives, summary.modes, strict=True)
    ]


def _values(summary: Summary, row: Row) -> list[str]:
    """A cell per objective; the first with its deviation where there are several seeds."""
    cells = [value_text(name, value) for name, value in zip(summary.objectives, row.values, strict=True)]
    if row.deviation is not None:
        cells[0] += f" ± {value_text(summary.objectives[0], row.deviation)}"
    return cells


def _chosen(row: Row, key: str) -> str:
    """What a trial has of a key; fractions with the three digits that count."""
    value = row.overrides.get(key, "–")
    return f"{float(value):.3g}" if _FRACTION.fullmatch(value) else value


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f}" if math.isfinite(seconds) else "–"


def _drawn(summary: Summary, shown: Sequence[Row], width: int) -> str:
    """The table: a column per varying override, or where those do not fit, one for all of them."""
    keys = summary.varying()
    stars = ["*" if row in summary.best else "" for row in shown]
    values = zip(_headed(summary), *(_values(summary, row) for row in shown), strict=True)
    known = [
        ["trial", *(f"{star}{row.number}" for star, row in zip(stars, shown, strict=True))],
        *map(list, values),
        ["seconds", *(_seconds(row.seconds) for row in shown)],
    ]
    chosen = [[key, *(_chosen(row, key) for row in shown)] for key in keys]
    parted = [[re.sub(r"([./])(?=.)", r"\1\n", head), *cells] for head, *cells in chosen]
    for columns in (chosen, parted):
        if _needed([*known, *columns]) <= width:
            return _grid([*known, *columns], width)
    together = [" ".join(f"{key}={_chosen(row, key)}" for key in keys) for row in shown]
    # A screen narrower than the numbers folds lines rather than losing them.
    return _grid([*known, ["configuration", *together]], max(width, _needed(known) + _GAP + _LEAST))


def _grid(columns: Sequence[Sequence[str]], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head, *_ in columns:
        in_one = head == "configuration"
        grid.add_column(head, justify="left" if in_one else "right", no_wrap=not in_one, overflow="fold")
    for cells in list(zip(*columns, strict=True))[1:]:
        grid.add_row(*cells)
    page = io.StringIO()
    screen = Console(
        file=page,
        width=width,
        color_system=None,
        markup=False,
        highlight=False,
        force_jupyter=False,  # else a notebook shows the lines at once and the page stays empty
    )
    screen.print(grid)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def _needed(columns: Sequence[Sequence[str]]) -> int:
    """Columns of the screen that these columns take."""
    return sum(max(len(line) for cell in cells for line in cell.split("\n")) + _GAP for cells in columns) - _GAP
