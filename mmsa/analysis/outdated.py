"""Rows of a table that were trained before a repair which others of it have."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa.analysis.runs import Group, Run
from mmsa.repairs import Repair, repairs

OUTDATED = "‡"


def outdated(groups: Sequence[Group]) -> dict[str, list[Repair]]:
    """Label of a row -> the repairs of its parts that some of its runs lack, where a run of the table has them."""
    runs = [run for group in groups for run in group.runs]
    mixed = [one for one in repairs() if len({run.repairs >= one.number for run in runs if _has(run, one.part)}) > 1]
    missing = {group.label: [one for one in mixed if any(_lacks(run, one) for run in group.runs)] for group in groups}
    return {label: found for label, found in missing.items() if found}


def lacking(run: Run) -> list[Repair]:
    """The repairs of a run's parts that were made since it was trained."""
    return [one for one in repairs() if _lacks(run, one)]


def about(found: dict[str, list[Repair]]) -> list[str]:
    """A note per repair."""
    every = dict.fromkeys(one for repairs in found.values() for one in repairs)
    return [f"{OUTDATED} trained before the repair of {one.part}, train it again: {one.text}" for one in every]


def _lacks(run: Run, repair: Repair) -> bool:
    return run.repairs < repair.number and _has(run, repair.part)


def _has(run: Run, part: str) -> bool:
    """Whether a part of a run is of a module or package."""
    targets = (value for key, value in run.configuration.items() if key.endswith("_target_"))
    return any(f"{target}.".startswith(f"{part}.") for target in targets)
