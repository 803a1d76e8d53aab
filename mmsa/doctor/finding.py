"""One thing that the doctor found, and how it is worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        severity: error: results on these data would be wrong; warning: they may mislead; note: a fact.
        code: its name.
        text: the finding, with numbers.
        advice: the remedy; empty where none is needed.
        modality: the only one concerned, so a run without it may ignore the finding; empty where all are.
    """

    severity: Severity
    code: str
    text: str
    advice: str = ""
    modality: str = ""


def counted(number: int, what: str) -> str:
    """A number and what it counts, in the plural where it has to be."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def named(names: Sequence[object], total: int | None = None) -> str:
    """The first of `total` names; without a total they are all there."""
    others = (len(names) if total is None else total) - len(names[:_SHOWN])
    more = f" and {others} more" if others else ""
    return ", ".join(str(name)[:60] for name in names[:_SHOWN]) + more
