"""Tables as one HTML page that asks no other host; each row links to the folders of its runs.

Its one script sorts rows. The page's policy lets the browser run this script, by its hash, and nothing else.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape

from mmsa.analysis.layout import Cell, Column, Row, Table, counted

_MOST_LINKED = 60  # characters of the names of a row's runs, beyond which they are folded away

_STYLE = """
:root { color-scheme: light dark; --ink: #30353b; --quiet: #5b636d; --line: #b4bac2; --paper: #fff; --link: #1f5a99; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dfe3e8; --quiet: #a3abb5; --line: #555d67; --paper: #1b1e22; --link: #8ab8ec; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 90rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0; font-size: 1.3rem; } p { margin: 0; color: var(--quiet); max-width: 72rem; }
p.warning { color: var(--ink); border-left: .25rem solid #c9781f; padding-left: .6rem; margin: .2rem 0; }
a { color: var(--link); } div { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; } thead, tbody + tbody { border: solid var(--line); border-width: 1px 0; }
th { font-weight: 600; } td, th { padding: .25rem .7rem; vertical-align: top; }
tbody th { font-weight: 400; text-align: left; min-width: 17rem; max-width: 30rem; }
tr > th:first-child { position: sticky; left: 0; background: var(--paper); }
td, thead th { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .text, td.text { text-align: left; } td.text { white-space: normal; min-width: 9rem; }
img { max-width: 100%; background: #fff; } sup { line-height: 0; } summary { cursor: pointer; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline dotted; text-underline-offset: .25em; }
[aria-sort] button { text-decoration: underline solid .15em; }
.runs { font-size: .8em; display: block; } dt { font-family: monospace; } dd { margin: 0 0 .3rem 1.5rem; }
@media (max-width: 40rem) { tbody th { min-width: 7.5rem; max-width: 7.5rem; } td, th { padding: .25rem .45rem; } }
""".strip()

_SCRIPT = """
"use strict";
const missing = cell => !cell.dataset.value && ["", "–"].includes(cell.textContent);
function compare(one, other) {
  const [a, b] = [one, other].map(cell => cell.dataset.value ? Number(cell.dataset.value) : NaN);
  if (!isNaN(a) && !isNaN(b)) return a - b;
  if (isNaN(a) !== isNaN(b)) return isNaN(a) ? 1 : -1;
  return one.textContent.localeCompare(other.textContent, "en", { numeric: true });
}
function sort(head) {
  const best = head.textContent.endsWith("↑") ? "descending" : "ascending";
  const other = best === "ascending" ? "descending" : "ascending";
  const order = head.ariaSort === best ? other : best;
  for (const one of head.parentNode.cells) one.removeAttribute("aria-sort");
  head.ariaSort = order;
  const sign = order === "ascending" ? 1 : -1;
  for (const body of head.closest("table").tBodies) {
    const rows = [...body.rows].map(row => [row.cells[head.cellIndex], row]);
    rows.sort(([a], [b]) => missing(a) - missing(b) || (missing(a) ? 0 : sign * compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  }
}
for (const head of document.querySelectorAll("th.sorts")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(head.textContent || "name");
  button.onclick = () => sort(head);
  head.replaceChildren(button);
}
""".strip()


def page(tables: Sequence[Table], title: str = "mmsa report") -> str:
    """The whole page, with the meaning of every term below the tables.

    Args:
        tables: with every text escaped, quotes too; but the terms.
        title: of the window.
    """
    terms = {name: meaning for table in tables for name, meaning in table.terms.items()}
    sorts = any(column.sorts for table in tables for column in table.columns)
    script = f"script-src '{_hash(_SCRIPT)}'; " if sorts else ""
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(_STYLE)}'; {script}base-uri 'none'; form-action 'none'"
    )
    head = (
        "<meta charset='utf-8'><meta http-equiv='Content-Security-Policy' "
        f'content="{policy}">'
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style>"
    )
    parts = [*map(_section, tables), *([_terms(terms)] if terms else [])]
    parts += [f"<script>{_SCRIPT}</script>"] if sorts else []
    return "\n".join([f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>", *parts, "</body></html>"])


def _hash(content: str) -> str:
    """The source of a policy that admits an element with this content."""
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"


def _section(table: Table) -> str:
    best = [f"<b>bold</b>: {table.best}"] if table.has_best else []
    lines = [f"<h2>{table.title}</h2>", *(f"<p>{note}</p>" for note in [*table.notes, *best])]
    if table.picture:
        content, meaning = table.picture
        lines.append(f"<img alt='{meaning}' src='data:image/png;base64,{b64encode(content).decode()}'>")
    if table.rows:
        heads = "".join(f"<th scope='col'{_kind(column)}>{column.head}</th>" for column in table.columns)
        lines += [f"<div><table><thead><tr>{heads}</tr></thead>"]
        lines += [f"<tbody>\n{_rows(block, table.columns)}\n</tbody>" for block in table.blocks if block]
        lines += ["</table></div>"]
    return "\n".join([*lines, *map(_line, table.foot)])


def _kind(column: Column) -> str:
    kinds = [*(["text"] if column.folds_to is not None else []), *(["sorts"] if column.sorts else [])]
    return f" class='{' '.join(kinds)}'" if kinds else ""


def _line(text: str) -> str:
    return f"<p class='warning'>{text}</p>" if text.startswith("warning: ") else f"<p>{text}</p>"


def _rows(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    return "\n".join(f"<tr>{''.join(map(_cell, row, columns))}</tr>" for row in rows)


def _cell(cell: Cell, column: Column) -> str:
    text = cell.joined(_half)
    if cell.runs:
        links, errors = (
            " ".join(f"<a href='{address}'>{name}</a>" for name, address in these) for these in (cell.runs, cell.errors)
        )
        if sum(len(name) for name, _ in cell.runs) > _MOST_LINKED:
            links = f"<details><summary>{counted(len(cell.runs), 'run')}</summary>{links}</details>"
        links += f"<br>errors: {errors}" if errors else ""
        return f"<th scope='row'>{text}<span class='runs'>{links}</span></th>"
    value = "" if cell.value is None else f" data-value='{cell.value!r}'"
    return f"<td{value}>{text}</td>" if column.folds_to is None else f"<td class='text'{value}>{text}</td>"


def _half(cell: Cell) -> str:
    text = f"<b>{cell.text}</b>" if cell.best else cell.text
    return f"{text}<sup>{cell.mark}</sup>" if cell.mark else text


def _terms(terms: Mapping[str, str]) -> str:
    return (
        f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>' for name, meaning in terms.items())}</dl>"
    )
