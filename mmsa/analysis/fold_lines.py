"""The sentences of tables and comparisons on runs with folds of their own."""

from __future__ import annotations

from collections.abc import Sequence

from mmsa.analysis.runs import Group, Run

_MOST_NAMED = 6


def folds_text(runs: Sequence[Run], fold: str) -> str:
    """The fold of a table's runs: `test fold`, and of own folds also the held-out parts and their hash."""
    data = runs[0].data
    if data.parts is None:
        return f"{fold} fold"
    held_out = {run.data.held_out for run in runs}
    which = f"{fold} fold of held_out={data.held_out} in" if len(held_out) == 1 else f"{len(held_out)} {fold} folds of"
    return f"{which} num_folds={data.num_folds} by video (parts {data.parts[:12]})"


def spread_over(groups: Sequence[Group]) -> str:
    """What the sample standard deviations of these rows are over."""
    if not groups or not groups[0].runs[0].data.parts:
        return "seeds"
    extents = {group.extent for group in groups if len(group.runs) > 1}
    return extents.pop() if len(extents) == 1 else "the folds and seeds of each row"


def folds_notes(groups: Sequence[Group]) -> list[str]:
    """Notes on rows over several own folds, and on the folds that a row lacks beside others."""
    folds = {group.label: {run.data.held_out for run in group.runs if run.data.parts} for group in groups}
    if len(set().union(*folds.values())) < 2:
        return []
    every = set(range(groups[0].runs[0].data.num_folds or 0))
    notes = ["own folds: a metric is computed on each test fold; train folds overlap, so ± is not the error of a mean"]
    for label, there in folds.items():
        if lacking := sorted(every - there):
            more = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
            notes.append(f"{label} lacks held_out={','.join(map(str, lacking[:_MOST_NAMED]))}{more}")
    return notes
