"""Repairs between which a part computes other results; CHANGELOG.md is where they are kept."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from mmsa.program import installed

_LINE = re.compile(r"^- (\d+)\. `([\w.]+)`: (.+(?:\n  .+)*)$", re.MULTILINE)


class Repair(NamedTuple):
    """A repair.

    Args:
        number: its place among all, from 1.
        part: the module or package whose results it changed, such as `mmsa.fusion.misa`.
        text: the change.
    """

    number: int
    part: str
    text: str


@cache
def repairs() -> tuple[Repair, ...]:
    """All repairs of this version, in their order."""
    text = installed("CHANGELOG.md").read_text(encoding="utf-8")
    section = text.partition("\n### Repairs\n")[2].partition("\n#")[0]
    return tuple(Repair(int(number), part, " ".join(about.split())) for number, part, about in _LINE.findall(section))


def latest() -> int:
    """The number of the last repair, 0 before the first."""
    return max((repair.number for repair in repairs()), default=0)
