"""The columns of a file of predictions, which anybody may have written: CSV, or named arrays."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mmsa.errors import DataError, printable
from mmsa.files import LARGEST, content_of
from mmsa.readers.array_file import ArrayFile
from mmsa.readers.mistaken import HDF5_START, ZIP_START, mistaken, no_file

_DELIMITERS = ",;\t"
_WORKBOOKS = (".xlsx", ".xls", ".ods", ".numbers")
_ONE_ARRAY = b"\x93NUMPY"
_MOST_ROWS = 1_000_000
_LONGEST = 60
_NUM_NAMED = 6
_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class Sheet:
    """The columns of a file, each of N cells as text.

    Args:
        path: of the file.
        sha256: of its content.
        columns: name, in small letters with single spaces -> cells.
    """

    path: Path
    sha256: str
    columns: Mapping[str, Sequence[str]]

    def column(self, name: str) -> Sequence[str]:
        """The cells of a column.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.columns:
            there = ", ".join(shown(held) for held in list(self.columns)[:_NUM_NAMED])
            raise DataError(
                f"{self.path} has no column {name}; it has {there or 'none'}.\n"
                f"  write a first line with the names of the columns, as in id,prediction: one of them {name}"
            )
        return self.columns[name]


def read_sheet(path: Path) -> Sheet:
    """Read a CSV with a line of names, or an .npz or HDF5 of arrays (N,), of 16 MiB at most.

    A CSV may be separated by commas, semicolons or tabs; with the latter a comma in a number is its decimal point.

    Raises:
        DataError: it is missing, of another kind, or damaged.
    """
    if path.suffix.lower() in _WORKBOOKS:
        raise DataError(f"{path} is a workbook, and a CSV is needed.\n  save its sheet as CSV (UTF-8), and name that")
    try:
        content = content_of(path)
    except FileNotFoundError:
        raise DataError(f"{path} {no_file(path)}.\n  name a CSV with the columns id and prediction") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        few = f"name a file of at most {LARGEST:,} bytes with the columns id and prediction"
        raise DataError(f"{path} cannot be read: it {reason}.\n  {few}") from None
    binary = content.startswith((ZIP_START, HDF5_START))
    said = None if binary or content.startswith(_ONE_ARRAY) else mistaken(path)
    if said is not None:
        raise DataError(said if "\n" in said else f"{said}\n  name a CSV with the columns id and prediction")
    columns = _of_arrays(path) if binary else _of_text(path, content)
    return Sheet(path, hashlib.sha256(content).hexdigest(), columns)


def number(text: str) -> float:
    """A cell as a number; NaN where it is none."""
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def shown(text: str) -> str:
    """A cell in a message."""
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def _of_text(path: Path, content: bytes) -> dict[str, list[str]]:
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except ValueError:
        raise DataError(f"{path} is no text in UTF-8.\n  save it as CSV (UTF-8), and name that") from None
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    delimiter = max(_DELIMITERS, key=lambda sign: len(_cells(first, sign)))
    read = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        rows = [row for row in islice(read, _MOST_ROWS + 1) if any(map(str.strip, row))]
    except csv.Error as error:
        raise _damaged(path, str(error)) from None
    _check_number(path, len(rows))
    names = [_name(cell) for cell in rows[0]] if rows else []
    while names and not names[-1]:  # columns that a spreadsheet adds
        names.pop()
    cells: list[list[str]] = [[] for _ in names]
    for place, row in enumerate(rows[1:], start=2):
        if len(row) < len(names) or any(row[len(names) :]):
            raise _damaged(path, f"its row {place} has {len(row)} cells, and its first line {len(names)}")
        for column, cell in zip(cells, row, strict=False):
            column.append(_with_point(cell.strip(), delimiter))
    return _named(path, list(zip(names, cells, strict=True)))


def _of_arrays(path: Path) -> dict[str, list[str]]:
    file = ArrayFile(path, option="")
    columns = []
    for name, header in file.headers.items():
        if (
            header.kind not in ("number", "string")
            or len(header.shape) not in (1, 2)
            or header.shape[1:] not in ((), (1,))
        ):
            continue  # none of ours
        _check_number(path, header.shape[0])
        columns.append((_name(name), [str(cell).strip() for cell in file.read(name).ravel().tolist()]))
    lengths = {len(cells) for name, cells in columns}
    if len(lengths) > 1:
        raise _damaged(path, f"its arrays have {' and '.join(map(str, sorted(lengths)[:3]))} entries")
    return _named(path, columns)


def _check_number(path: Path, number: int) -> None:
    if number > _MOST_ROWS:
        raise _damaged(path, f"it has more than {_MOST_ROWS:,} rows")


def _named(path: Path, columns: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    named = dict(columns)
    if len(named) < len(columns):
        names = [name for name, _ in columns]
        twice = next(name for name in names if names.count(name) > 1)
        raise _damaged(path, f"it has two columns {shown(twice)!r}")
    return named


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _name(cell: str) -> str:
    return " ".join(cell.replace("_", " ").casefold().split())


def _with_point(cell: str, delimiter: str) -> str:
    return cell.replace(",", ".") if delimiter != "," and _COMMA.fullmatch(cell) else cell


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path}: {printable(why)}.\n  write one line per prediction, below one with the names of the columns"
    )
