"""Pages, comments of options and messages are in plain English: the worst phrases are refused by name."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.house.test_docs import CONF, PAGES, ROOT

REFUSED = {
    r"\bwhat (is|are|was|were)\b(?![^.\n]*\?)": "name the thing itself",
    r"\bso many\b": "give the number",
    r"\btold\b": "say who does what",
    r"\bhas a say\b": "results depend on it",
    r"\bgo(es|ne|ing)? on (with|to)\b": "resume, continue",
    r"\bonce more\b": "again",
    r"\bin the place of\b": "instead of",
    r"\bas it (stands|must)\b": "give the value, or leave it out",
    r"\b(is|are|be) said\b": "say who says it, or say it",
    r"\bone's own\b": "your own",
    r"\bto (the|a) (beginning|end) with\b": "leave it out",
}
"""Pattern -> what to write instead."""


@cache
def texts() -> list[tuple[str, str]]:
    """Every text of the project that somebody reads outside of the code: its place, and the text."""
    found = []
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "Makefile"]:
        found.append((page.name, page.read_text(encoding="utf-8")))
    for path in CONF.rglob("*.yaml"):
        found.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
    for path in [ROOT / "train.py", *(ROOT / "mmsa").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node.value))
    return found


def test_no_text_has_a_phrase_that_was_refused() -> None:
    found = [
        f"{place}: {match[0]!r}: {instead}"
        for place, text in texts()
        for pattern, instead in REFUSED.items()
        for match in re.finditer(pattern, text, flags=re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def test_type_stands_before_something_to_type() -> None:
    """Not before "another name" and the like; where the rest is filled in, the text ends with it."""
    typed = r"['+~-]*[\w./-]*[=/(~+-]|mmsa|python|make|pip|mlflow|export|rm|cp|mv|git|chmod|--|'|$"
    odd = [
        f"{place}: {match[0]!r}"
        for place, text in texts()
        if ".py:" in place
        for match in re.finditer(rf"^  type (?!(for example )?({typed})).*", text, flags=re.MULTILINE)
    ]
    assert not odd, "\n".join(odd)
