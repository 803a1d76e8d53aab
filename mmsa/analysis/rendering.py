"""Tables as text, in each of the styles."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html import escape
from itertools import accumulate
from typing import Literal, get_args

from mmsa.analysis import html_page, latex
from mmsa.analysis.layout import Cell, Column, Table
from mmsa.display import screen
from mmsa.errors import DataError, printable

Style = Literal["table", "markdown", "csv", "latex", "html"]

_PIPED_WIDTH, _WIDEST = 100, 140
_LONGEST = 400  # characters of a text in a table that somebody reads
_GAP = 3  # columns of the screen between two of the table
_BREAKS = re.compile(r"(?<=[._/])(?=[a-z])| (?=\(|\S+=)")  # where a head may go on in the next line


def rendered(tables: Sequence[Table], style: Style = "table", width: int | None = None) -> str:
    """Tables in one of the styles, one below the other.

    Args:
        tables: the tables.
        style: plain text for the terminal, Markdown, CSV, LaTeX, or a page of HTML.
        width: columns of the terminal; None is its own, at most 140, and 100 where there is none.

    Raises:
        DataError: there is no such style.
    """
    if style not in get_args(Style):
        raise DataError(f"format={style}: no such format of a table.\n  choose from {', '.join(get_args(Style))}")
    written, joined = {
        "table": (_short, lambda safe: _terminal(safe, width)),
        "markdown": (_plain, _markdown),
        "csv": (_cell, _comma_separated),
        "latex": (_of_latex, latex.tabulars),
        "html": (_of_page, html_page.page),
    }[style]
    return joined([_with_texts(table, written) for table in tables])


def paged(tables: Sequence[Table], title: str) -> str:
    """Tables as a page of HTML with a title of its own."""
    return html_page.page([_with_texts(table, _of_page) for table in tables], title)


def _with_texts(table: Table, written: Callable[[str], str]) -> Table:
    """The table with every text, which may be a file's, as a style writes it."""

    def cell(one: Cell) -> Cell:
        runs, errors = ([(written(name), address) for name, address in links] for links in (one.runs, one.errors))
        second = one.second and cell(one.second)
        return one._replace(text=written(one.text), mark=written(one.mark), second=second, runs=runs, errors=errors)

    return replace(
        table,
        title=written(table.title),
        notes=list(map(written, table.notes)),
        columns=[replace(column, head=written(column.head)) for column in table.columns],
        blocks=[[tuple(map(cell, row)) for row in block] for block in table.blocks],
        best=written(table.best),
        foot=list(map(written, table.foot)),
        picture=table.picture and (table.picture[0], written(table.picture[1])),
        fields=list(map(written, table.fields)),
        records=[[written(v) if isinstance(v, str) else v for v in record] for record in table.records],
    )


def _terminal(tables: Sequence[Table], width: int | None) -> str:
    if width is None:
        width = min(shutil.get_terminal_size().columns, _WIDEST) if screen().isatty() else _PIPED_WIDTH
    parts = []
    for table in tables:
        parts.append("\n".join([table.title, *table.notes, *([f"* {table.best}"] if table.has_best else [])]))
        parts += [_grid(table, width)] if table.rows else []
        parts += ["\n".join(table.foot)] if table.foot else []
    return "\n\n".join(parts)


def _markdown(tables: Sequence[Table]) -> str:
    """The best values are bold, and terms are explained below all tables."""
    parts = []
    for table in tables:
        parts.append("  \n".join([f"**{table.title}**", *(f"*{note}*" for note in table.notes)]))
        if table.rows:
            cells = [[column.head for column in table.columns]]
            cells += [["---:" if column.folds_to is None else ":---" for column in table.columns]]
            cells += [[cell.joined(_bold) for cell in row] for row in table.rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in cells))
        parts.append("  \n".join(table.foot))
    terms = {name: meaning for table in tables for name, meaning in table.terms.items()}
    return "\n\n".join(filter(None, [*parts, "\n".join(f"- `{name}`: {meaning}" for name, meaning in terms.items())]))


def _bold(cell: Cell) -> str:
    return f"**{cell.text}**{cell.mark}" if cell.best else f"{cell.text}{cell.mark}"


def _comma_separated(tables: Sequence[Table]) -> str:
    """One CSV of all tables; nothing stands where a number is missing."""
    page = io.StringIO()
    heads = dict.fromkeys(name for table in tables for name in table.fields)
    writer = csv.DictWriter(page, list(heads), lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for record in table.records:
            known = [None if isinstance(value, float) and not math.isfinite(value) else value for value in record]
            writer.writerow(dict(zip(table.fields, known, strict=True)))
    return page.getvalue().rstrip("\n")


def _grid(table: Table, width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    *_, narrowest = forms = list(_forms(table))
    columns = next((form for form in forms if _needed(form) <= width), narrowest)
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, lines in columns:
        whole = column.folds_to is None
        grid.add_column(lines[0], justify="right" if whole else "left", no_wrap=whole, overflow="fold")
    ends = set(accumulate(map(len, table.blocks)))
    for place, cells in enumerate(zip(*(lines[1:] for _, lines in columns), strict=True), start=1):
        grid.add_row(*cells, end_section=place in ends)
    page = io.StringIO()
    screen = Console(
        file=page,
        width=max(width, _needed(columns)),  # a narrower screen folds lines rather than losing them
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
        force_jupyter=False,  # else a notebook shows the lines at once and the page stays empty
    )
    screen.print(grid)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def _forms(table: Table) -> Iterator[list[tuple[Column, list[str]]]]:
    """The columns with their heads and cells: as they are, then ever narrower."""
    cells = zip(*([cell.joined(_starred) for cell in row] for row in table.rows), strict=True)
    wide = [(column, [column.head, *texts]) for column, texts in zip(table.columns, cells, strict=True)]
    yield wide
    yield (broken := [(column, [_BREAKS.sub("\n", head), *texts]) for column, (head, *texts) in wide])
    yield (pairs := [(column, [text.replace(" / ", " /\n") for text in lines]) for column, lines in broken])
    yield (two := [(column, [text.replace(" ±", "\n±") for text in lines]) for column, lines in pairs])
    yield [(column, [text.replace(" [", "\n[") for text in (_last(head), *texts)]) for column, (head, *texts) in two]
    options = [[f"{head}={text}" for text in texts] for column, (head, *texts) in wide if column.option]
    if options:
        together = ["configuration", *map(" ".join, zip(*options, strict=True))]
        yield [*(part for part in wide if not part[0].option), (Column("configuration", folds_to=24), together)]


def _last(head: str) -> str:
    """A head of several words with the last one below the others."""
    return "\n".join(head.rsplit(" ", 1)) if head.count(" ") else head


def _starred(cell: Cell) -> str:
    return f"{'*' if cell.best else ''}{cell.text}{cell.mark}"


def _needed(columns: Sequence[tuple[Column, Sequence[str]]]) -> int:
    """Columns of the screen that these columns take at least."""
    widths = [(column, max(len(line) for text in texts for line in text.split("\n"))) for column, texts in columns]
    return sum(min(width, column.folds_to or width) + _GAP for column, width in widths) - _GAP


def _short(text: str) -> str:
    """Text as a terminal shows it."""
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, as readable as that allows: signs within words and numbers change nothing."""
    return re.sub(r"[\\|*<`$~]|(?<!\w)_|_(?!\w)|\](?=[(\[:])", r"\\\g<0>", _short(text))


def _cell(text: str) -> str:
    """Text that no spreadsheet computes; a number, or a name that begins with a sign, is as it was."""
    return re.sub(r"^\s*([=@]|[+-].*[(|!])", r"'\g<0>", printable(text))


def _of_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return latex.escaped(_short(text))


def _of_page(text: str) -> str:
    """Text that a browser shows as it is, also within an attribute."""
    return escape(_short(text))
