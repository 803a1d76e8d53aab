"""Which runs of two rows are compared: pairs on the same fold, as far as there are any of the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmsa.analysis.layout import counted
from mmsa.analysis.predictions import Predictions
from mmsa.analysis.runs import Group, Run

Pairs = Sequence[tuple[Run, Run]]
EQUAL = 1e-6
"""Targets that are closer are the same."""


def paired(row: Group, other: Group) -> tuple[Pairs, list[str]]:
    """The pairs of two rows, those of one fold together, and restrictions in words.

    Folds differ only where they are own ones; those that one row lacks have no pair.
    """
    ours, theirs = (_by_fold(group.runs) for group in (row, other))
    shared, num = sorted(ours.keys() & theirs.keys()), len(ours.keys() | theirs.keys())
    if not shared:
        return [], ["no fold is shared"]
    remarks = [f"only {counted(len(shared), 'fold')} of {num} shared"] if len(shared) < num else []
    found = [_of_one_fold(ours[fold], theirs[fold]) for fold in shared]
    remarks += dict.fromkeys(remark for _, of_fold in found for remark in of_fold)
    return [pair for pairs, _ in found for pair in pairs], remarks


def unlike(pairs: Pairs, tables: Mapping[Path, Predictions | str]) -> str:
    """Why runs on one fold cannot be compared by their metrics; empty where they can, as far as predictions say.

    Args:
        pairs: of one fold.
        tables: the predictions by a run's folder; a text where there are none.
    """
    found = [table for pair in pairs for run in pair if isinstance(table := tables[run.folder], Predictions)]
    for table in found[1:]:
        first = found[0]
        if table.rows.keys() != first.rows.keys():
            return "their utterances differ"
        same = table.truth.shape == first.truth.shape
        ours, theirs = (one.truth[[one.rows[name] for name in first.rows]] for one in (first, table))
        if not same or not np.allclose(ours, theirs, rtol=0, atol=EQUAL):
            return "their targets differ"
    return ""


def _by_fold(runs: Sequence[Run]) -> dict[int, list[Run]]:
    folds: dict[int, list[Run]] = {}
    for run in runs:
        folds.setdefault(run.place[0], []).append(run)
    return folds


def _of_one_fold(first: Sequence[Run], second: Sequence[Run]) -> tuple[Pairs, list[str]]:
    """Runs of the same seed; where no seed is shared one run against all, or runs in the order of their seeds."""
    ours, theirs = ({run.seed: run for run in runs} for runs in (first, second))
    shared = sorted(ours.keys() & theirs.keys())
    num = max(len(ours), len(theirs))
    if shared:
        left = f"only {counted(len(shared))} of {num} shared"
        return [(ours[seed], theirs[seed]) for seed in shared], [left] if len(shared) < num else []
    if min(len(ours), len(theirs)) == 1 < num:
        return [(a, b) for a in first for b in second], [f"a single run against each of {counted(num)}"]
    return list(zip(first, second, strict=False)), ["no seed is shared: paired in their order"]
