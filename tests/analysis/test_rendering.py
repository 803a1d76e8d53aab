from __future__ import annotations

import csv
import io
import math
from typing import Any

import pytest

from mmsa.analysis.layout import LABELS, Cell, Column, Table
from mmsa.analysis.rendering import rendered

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
