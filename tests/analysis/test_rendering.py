from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from mmsa.analysis.latex import escaped
from mmsa.analysis.layout import LABELS, Cell, Column, Table
from mmsa.analysis.rendering import rendered
from tests.pages import Page

TABLE = Table(
    title="a *title*",
    notes=["a note with snake_case and _an underscore"],
    columns=[LABELS, Column("acc2_has0 ↑"), Column("optimizer.lr", option=True), Column("hidden_dim", option=True)],
    blocks=[
        [(Cell("first|of all"), Cell("0.901 ± 0.020", best=True), Cell("0.001"), Cell("64"))],
        [(Cell("second"), Cell("0.502 ± 0.010"), Cell("0.1"), Cell("–"))],
    ],
    best="what was best",
    foot=["below [1](there)"],
    terms={"acc2_has0": "an accuracy"},
    fields=["label", "value"],
    records=[["first", 0.1 + 0.2], ["second", math.nan], ["third", None]],
)


@pytest.mark.parametrize("width", [20, 45, 60, 100])
def test_the_terminal_loses_nothing_at_any_width(width: int) -> None:
    page = rendered([TABLE], width=width)
    words = [word for row in TABLE.rows for cell in row for word in cell.text.split()]
    assert all(word in page for word in [*words, *TABLE.notes, *TABLE.foot, "* what was best"])
    assert page.count("*0.901") == 1 and "*0.502" not in page


def test_options_share_a_column_where_the_screen_is_narrow() -> None:
    wide, narrow = rendered([TABLE], width=100), rendered([TABLE], width=20)
    assert "configuration" not in wide and "optimizer.lr" in wide
    assert "optimizer.lr=0.001" in narrow and "hidden_dim=–" in narrow


def test_blocks_stand_apart() -> None:
    lines = rendered([TABLE], width=100).splitlines()
    first, second = (next(i for i, line in enumerate(lines) if line.startswith(label)) for label in ("first", "second"))
    assert lines[first + 1 : second] == [""]


def test_markdown_shows_signs_as_they_are_and_explains_terms() -> None:
    title, note, _, head, aligned, first, second, _, foot, _, term = rendered([TABLE], "markdown").splitlines()
    assert (title, note) == (r"**a \*title\***  ", r"*a note with snake_case and \_an underscore*")
    assert head == "|  | acc2_has0 ↑ | optimizer.lr | hidden_dim |" and aligned == "| :--- | ---: | ---: | ---: |"
    assert first == r"| first\|of all | **0.901 ± 0.020** | 0.001 | 64 |" and second.startswith("| second | 0.502 ±")
    assert foot == r"below [1\](there)" and term == "- `acc2_has0`: an accuracy"


def test_tables_share_one_csv_in_full_precision() -> None:
    other = Table("another", fields=["label", "more"], records=[["fourth", 2]])
    rows = list(csv.DictReader(io.StringIO(rendered([TABLE, other], "csv"))))
    assert list(rows[0]) == ["label", "value", "more"] and float(rows[0]["value"]) == 0.1 + 0.2
    assert [row["value"] for row in rows[1:]] == ["", "", ""] and rows[3]["more"] == "2"


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_a_table_without_rows_is_its_title_notes_and_foot(style: Any) -> None:
    page = rendered([Table("nothing", notes=["found"], columns=[LABELS], foot=["at all"])], style)
    assert page.replace("*", "").replace("  ", "") == "nothing\nfound\n\nat all"


def test_a_mark_stands_behind_its_value_and_a_pair_has_two() -> None:
    pair = Cell("0.81", mark="†", second=Cell("0.83", best=True, mark="‡"))
    table = Table("t", columns=[LABELS, Column("acc2")], blocks=[[(Cell("a"), pair)]], best="the best")
    assert "0.81†/*0.83‡" in rendered([table]) and "0.81†/**0.83**‡" in rendered([table], "markdown")
    assert r"0.81\textsuperscript{\textdagger{}}/\textbf{0.83}\textsuperscript{" in rendered([table], "latex")
    assert "<td>0.81<sup>†</sup>/<b>0.83</b><sup>‡</sup></td>" in rendered([table], "html")


def test_latex_is_a_table_of_booktabs() -> None:
    page = rendered([TABLE], "latex").splitlines()
    assert page[0] == r"% in the preamble: \usepackage{booktabs}"
    assert page[2:] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{a {*}title{*}. a note with snake\_case and \_an underscore. \textbf{Bold}: what was best.}",
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r" & acc2\_has0 $\uparrow$ & optimizer.lr & hidden\_dim \\",
        r"\midrule",
        r"first\textbar{}of all & \textbf{0.901 $\pm$ 0.020} & 0.001 & 64 \\",
        r"\midrule",
        r"second & 0.502 $\pm$ 0.010 & 0.1 & \textendash{} \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize below {[}1{]}(there)\par}",
        r"\end{table}",
    ]
    assert escaped("-0.98 [-1, -2] a--b---c") == r"$-$0.98 {[}$-$1, $-$2{]} a-{}-b-{}-{}-c"


def test_html_is_a_page_that_asks_nobody_and_links_to_the_runs() -> None:
    linked = replace(TABLE, blocks=[[(Cell("a <b>", runs=[("seed '1'", "file:///a%20b")]), Cell("1", best=True))]])
    page = rendered([replace(linked, columns=[LABELS, Column("x & y")])], "html")
    assert (
        "<th scope='row'>a &lt;b&gt;<span class='runs'><a href='file:///a%20b'>seed &#x27;1&#x27;</a></span></th>"
        in page
    )
    assert "<th scope='col'>x &amp; y</th>" in page and "<dt>acc2_has0</dt><dd>an accuracy</dd>" in page
    parsed = Page()
    parsed.feed(page)
    assert not parsed.open and not {"script", "img", "link", "iframe"} & parsed.seen
    assert not re.search(r"https?:|//(?!/)", page.replace("file:///", ""))
