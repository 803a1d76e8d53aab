"""Tables in plain values, before any style writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        head: its head.
        folds_to: the width to which text on the left may be folded; None: it stands whole on the right, as numbers do.
        option: the head is an option's key; where the screen is too narrow, all options share a column as `key=value`.
        sorts: on a page a click on the head sorts the rows of each block.
    """

    head: str
    folds_to: int | None = None
    option: bool = False
    sorts: bool = False


LABELS = Column("", folds_to=18)
"""What the rows are."""


class Cell(NamedTuple):
    """One printed value, or two that stand as a pair.

    Args:
        text: as it is printed.
        best: whether it is marked as the best.
        mark: a sign behind it, which a note of the table explains.
        second: the other half of a pair, behind a slash.
        runs: of the cell that names a row, the runs that the row rests on: their names, and the folders' addresses
            (`file:///…`, whose every odd sign is encoded).
        errors: of these, those with a page of errors, with its address.
        value: in full precision, by which a page sorts; None of text, and of a number that is not defined.
    """

    text: str
    best: bool = False
    mark: str = ""
    second: Cell | None = None
    runs: Sequence[tuple[str, str]] = ()
    errors: Sequence[tuple[str, str]] = ()
    value: float | None = None

    @property
    def halves(self) -> list[Cell]:
        """The cell itself, and its second half where it is a pair."""
        return [self, self.second] if self.second else [self]

    def joined(self, written: Callable[[Cell], str]) -> str:
        """The cell as a style writes each half: 0.8/0.9, and 0.8 ± 0.1 / 0.9 ± 0.1."""
        return (" / " if " " in self.text else "/").join(map(written, self.halves))


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table in plain values; one without rows is its title, its notes and its foot.

    Args:
        title: its first line.
        notes: lines that explain it.
        columns: left to right.
        blocks: rows that belong together, such as configurations and baselines.
        best: the meaning of the mark.
        foot: lines below it.
        terms: name -> meaning, of metrics, for styles that have the room; no text of a file.
        picture: a PNG and its meaning in words, for pages.
        fields: heads of its CSV.
        records: lines of its CSV, which may be others than the rows, with numbers in full precision.
    """

    title: str
    notes: Sequence[str] = ()
    columns: Sequence[Column] = ()
    blocks: Sequence[Sequence[Row]] = ()
    best: str = ""
    foot: Sequence[str] = ()
    terms: Mapping[str, str] = field(default_factory=dict)
    picture: tuple[bytes, str] | None = None
    fields: Sequence[str] = ()
    records: Sequence[Sequence[object]] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows of all blocks."""
        return [row for block in self.blocks for row in block]

    @property
    def has_best(self) -> bool:
        """Whether a value is marked as the best."""
        return any(half.best for row in self.rows for cell in row for half in cell.halves)


def number(value: float, digits: int = 3) -> str:
    """A metric as it is printed."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1e9 else f"{value:.3e}"


def counted(num: int, noun: str = "seed") -> str:
    """A number of seeds, or of something else, in words."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def headed(name: str, mode: str) -> str:
    """The head of a column of values, of which the smallest ("min") or the largest is the best."""
    return f"{name} {'↓' if mode == 'min' else '↑'}"
