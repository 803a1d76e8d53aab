"""The lines of a result table as CSV: each row, below it the runs that it is over, in full precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mmsa.analysis.runs import Run, source_of
from mmsa.analysis.scores import Scored, scored
from mmsa.analysis.shape import Shape

OF_TABLE = ("dataset", "source", "fingerprint", "parts", "planted", "task", "fold", "utterances")
FIELDS = (*OF_TABLE, "kind", "label", "folds", "held_out", "seeds", "seed", "runs")


def lines(rows: Iterable[Scored], shape: Shape, metrics: Sequence[str]) -> Iterable[Scored]:
    """The lines of the CSV: behind each row over several runs the runs themselves."""
    for row in rows:
        alone = row.kind == "configuration" and shape.seeds
        yield replace(row, kind="seed") if alone else row
        if row.kind == "configuration" and not alone:
            yield from (scored(row.label, "seed", (run,), metrics) for run in row.runs)


def record(about: Sequence[object], row: Scored) -> list[object]:
    """A line: the values of FIELDS, of which `about_table` gives the first, and of each metric mean and deviation."""
    about = list(about)
    numbers: list[object] = ["", "", "", ""]
    if row.kind == "configuration":
        held_out = {run.data.held_out for run in row.runs if run.data.parts}
        seeds = {run.seed for run in row.runs} if held_out else row.runs
        numbers = [len(held_out) or "", "", len(seeds), ""]
    elif row.kind == "seed":
        numbers = ["", row.runs[0].data.held_out, "", row.runs[0].seed]
    elif row.kind == "published":
        about[1:5], about[6:8] = ["", "", "", "false"], ["test", ""]
    folders = row.url or ";".join(str(run.folder) for run in row.runs)
    values = [value for one in row.metrics.values() for value in (one.mean, one.std)]
    return [*about, row.kind, row.label, *numbers, folders, *values]


def about_table(runs: Sequence[Run]) -> list[object]:
    """The first fields of CSV: what all rows of a table rest on."""
    first = runs[0]
    data = [first.dataset, source_of(runs), first.data.fingerprint, first.data.parts, str(first.planted).lower()]
    number = first.data.utterances.get(first.fold, "") if first.among is None else len(first.among)
    return [*data, first.task, first.fold, number]
