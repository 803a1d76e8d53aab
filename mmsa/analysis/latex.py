"""Tables as LaTeX with the rules of booktabs; no name in them is a command."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmsa.analysis.layout import Cell, Row, Table

PACKAGE = r"% in the preamble: \usepackage{booktabs}"
_SIGNS = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "`": r"\textasciigrave{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "'": "{'}",
    "[": "{[}",  # behind \\ a bracket would be its argument, and so would a star
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "–": r"\textendash{}",
    "…": r"\dots{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    **{sign: f"\\{sign}" for sign in "#$%&_{}"},
}
_SPECIAL = re.compile("|".join(map(re.escape, _SIGNS)))
_MINUS = re.compile(r"^-(?=\d)|(?<=[ (\[])-(?=\d)")


def escaped(text: str) -> str:
    """Printable text that LaTeX sets as it is."""
    written = "$-$".join(_SPECIAL.sub(lambda found: _SIGNS[found[0]], part) for part in _MINUS.split(text))
    return re.sub("-(?=-)", "-{}", written)  # two are no dash


def tabulars(tables: Sequence[Table]) -> str:
    """One `table` per table, captioned by its title and notes; a comment behind each row names its runs.

    Args:
        tables: with every text escaped.
    """
    return "\n\n".join([PACKAGE, *map(_one, tables)])


def _one(table: Table) -> str:
    best = [rf"\textbf{{Bold}}: {table.best}"] if table.has_best else []
    caption = ". ".join([table.title, *table.notes, *best])
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}.}}"]
    if table.rows:
        kinds = "".join("r" if column.folds_to is None else "l" for column in table.columns)
        blocks = [[_row(row) for row in block] for block in table.blocks if block]
        heads = " & ".join(column.head for column in table.columns)
        lines += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", rf"{heads} \\"]
        lines += [line for block in blocks for line in (r"\midrule", *block)]
        lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip{{\footnotesize {line}\par}}" for line in table.foot]
    return "\n".join([*lines, r"\end{table}"])


def _row(row: Row) -> str:
    folders = " ".join(path for cell in row for _, path in cell.runs)
    return rf"{' & '.join(cell.joined(_half) for cell in row)} \\{f' % {folders}' if folders else ''}"


def _half(cell: Cell) -> str:
    text = rf"\textbf{{{cell.text}}}" if cell.best else cell.text
    return rf"{text}\textsuperscript{{{cell.mark}}}" if cell.mark else text
