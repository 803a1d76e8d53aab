"""Pages that promise something: each row names the tests that hold it, and they exist."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PAGES = {"safety.md": 11, "crashes.md": 27}
"""Page -> the least number of its rows."""


@pytest.mark.parametrize("page", PAGES)
def test_each_row_names_tests_that_exist(page: str) -> None:
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert len(rows) >= PAGES[page]
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row.strip("| ").split(" | ")[-1])
        assert named, row
        for place, name in named:
            tree = ast.parse((ROOT / "tests" / place).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{place}::{name}"
