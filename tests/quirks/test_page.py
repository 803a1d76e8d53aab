"""docs/originals/quirks.md: each row names tests that exist, and its measured numbers are those that are measured."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.quirks.effects import EFFECTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "originals" / "quirks.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]


def test_every_quirk_names_tests_that_exist() -> None:
    rows = [row for row in ROWS if row[0] not in ("what", "the original") and row[0] not in EFFECTS]
    assert len(rows) > 60
    for quirk, here, tests in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert quirk and here and named and len(named) == tests.count("`") // 2, quirk
        for place, name in named:
            file = ROOT / place if place.startswith("mmsa/") else ROOT / "tests" / place
            tree = ast.parse(file.read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{place}::{name}"


@pytest.mark.parametrize("what", EFFECTS)
def test_the_effects_are_as_large_as_the_page_says(what: str) -> None:
    (row,) = [row for row in ROWS if row[0] == what]
    here, theirs = EFFECTS[what]()
    assert here == pytest.approx(float(row[1]), rel=0.02, abs=1e-5)
    assert theirs == pytest.approx(float(row[2]), rel=0.02)
    assert {row[0] for row in ROWS} >= set(EFFECTS)
