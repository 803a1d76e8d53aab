"""Tables as one HTML page that asks no other host and runs nothing; each row links to the folders of its runs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

from mmsa.analysis.layout import Cell, Column, Row, Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #30353b; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2rem 0 0; } p { margin: 0; color: #5b636d; } div { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; } thead, tbody + tbody { border: solid #b4bac2; border-width: 1px 0; }
th { font-weight: 600; } tbody th { font-weight: 400; text-align: left; }
td, th { padding: .25rem .7rem; vertical-align: top; } img { max-width: 100%; }
td, thead th { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .text, td.text { text-align: left; } td.text { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
.runs { font-size: .8em; display: block; } dt { font-family: monospace; } dd { margin: 0 0 .3rem 1.5rem; }
""".strip()


def page(tables: Sequence[Table]) -> str:
    """The whole page, with the meaning of every term below the tables.

    Args:
        tables: with every text escaped, quotes too; but the terms.
    """
    terms = {name: meaning for table in tables for name, meaning in table.terms.items()}
    head = (
        "<meta charset='utf-8'><meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>mmsa report</title><style>\n{_STYLE}\n</style>"
    )
    parts = [*map(_section, tables), *([_terms(terms)] if terms else [])]
    return "\n".join([f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>", *parts, "</body></html>"])


def _section(table: Table) -> str:
    best = [f"<b>bold</b>: {table.best}"] if table.has_best else []
    lines = [f"<h2>{table.title}</h2>", *(f"<p>{note}</p>" for note in [*table.notes, *best])]
    if table.picture:
        content, meaning = table.picture
        lines.append(f"<img alt='{meaning}' src='data:image/png;base64,{b64encode(content).decode()}'>")
    if table.rows:
        kinds = ["" if column.folds_to is None else " class='text'" for column in table.columns]
        heads = "".join(
            f"<th scope='col'{kind}>{column.head}</th>" for column, kind in zip(table.columns, kinds, strict=True)
        )
        lines += [f"<div><table><thead><tr>{heads}</tr></thead>"]
        lines += [f"<tbody>\n{_rows(block, table.columns)}\n</tbody>" for block in table.blocks if block]
        lines += ["</table></div>"]
    return "\n".join([*lines, *(f"<p>{line}</p>" for line in table.foot)])


def _rows(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    return "\n".join(f"<tr>{''.join(map(_cell, row, columns))}</tr>" for row in rows)


def _cell(cell: Cell, column: Column) -> str:
    text = cell.joined(_half)
    if cell.runs:
        links = " ".join(f"<a href='{address}'>{name}</a>" for name, address in cell.runs)
        return f"<th scope='row'>{text}<span class='runs'>{links}</span></th>"
    return f"<td>{text}</td>" if column.folds_to is None else f"<td class='text'>{text}</td>"


def _half(cell: Cell) -> str:
    text = f"<b>{cell.text}</b>" if cell.best else cell.text
    return f"{text}<sup>{cell.mark}</sup>" if cell.mark else text


def _terms(terms: Mapping[str, str]) -> str:
    return (
        f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>' for name, meaning in terms.items())}</dl>"
    )
