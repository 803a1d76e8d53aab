"""Imports that lack utterances of their fold, beside runs that are scored on the same utterances."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmsa.analysis.metric_sums import metric_sums
from mmsa.analysis.predictions import AGREES, Name, Predictions, Stored
from mmsa.analysis.runs import Run
from mmsa.training.metrics import METRICS


def on_equal_utterances(runs: Sequence[Run]) -> list[list[Run]]:
    """The tables of runs that are otherwise comparable: of all that have every utterance of the fold, and one per
    set of utterances that partial imports have, in which every run is scored on these.

    An import counts until one of its name and seed is newer. Where predictions are missing or damaged, a run is
    left out of such a table, and an import has one for itself.
    """
    newest = {_place(run): run.folder for run in sorted(runs, key=lambda run: run.folder.name) if run.is_import}
    current = [run for run in runs if not run.is_import or newest[_place(run)] == run.folder]
    whole = [run for run in current if not run.is_partial]
    partial = [run for run in current if run.is_partial]
    stored = Stored()
    sets: dict[object, list[Run]] = {}
    for run in partial:
        table = stored.predictions(run)
        sets.setdefault(run.folder if isinstance(table, str) else frozenset(table.rows), []).append(run)
    tables = [whole] if whole else []
    for names, imports in sets.items():
        if isinstance(names, frozenset):
            imports = [run.model_copy(update={"among": names}) for run in imports]
            others = [found for run in whole if (found := _restricted(run, names, stored)) is not None]
            imports = [*others, *imports]
        tables.append(imports)
    return tables


def note_on(runs: Sequence[Run]) -> list[str]:
    """The note of a table of partial imports: which utterances its numbers rest on."""
    partial = [run for run in runs if run.is_partial]
    if not partial:
        return []
    names = ", ".join(dict.fromkeys(str(run.called) for run in partial))
    return [f"every row is scored only on the utterances that {names} predicts"]


def extent(runs: Sequence[Run], fold: str) -> str:
    """The share of a fold that a table of partial imports is on, for its title; empty where it is the whole one."""
    for run in runs:
        if run.is_partial and fold == run.fold:
            return f"{run.imported.utterances[fold]:,} of {run.data.utterances[fold]:,} utterances"
    return ""


def _place(run: Run) -> tuple[object, ...]:
    return frozenset(run.configuration.items()), run.place


def _restricted(run: Run, names: frozenset[Name], stored: Stored) -> Run | None:
    """The run with its scores on some utterances, without baselines; None where it has not predicted them."""
    table = stored.predictions(run)
    if isinstance(table, str) or not names <= table.rows.keys():
        return None
    part = table.among(names)
    known = {name.removeprefix(f"{run.fold}/"): value for name, value in run.metrics.items()}
    scores = {
        f"{run.fold}/{name}": score
        for name in METRICS
        if name in known and (score := _score(table, part, name, known[name])) is not None
    }
    others = {name: value for name, value in run.metrics.items() if not name.startswith(f"{run.fold}/")}
    return run.model_copy(update={"among": names, "metrics": others | scores, "baselines": {}})


def _score(whole: Predictions, part: Predictions, metric: str, known: float) -> float | None:
    """A metric on a part; None where predictions do not give it, or another value of the whole than is known."""
    if not np.isfinite(whole.predicted).all():
        return math.nan
    of_whole = metric_sums(metric, whole.predicted, whole.truth)
    of_part = metric_sums(metric, part.predicted, part.truth)
    if of_whole is None or of_part is None:
        return None
    agrees = abs(of_whole.whole - known) <= AGREES or (math.isnan(of_whole.whole) and math.isnan(known))
    return of_part.whole if agrees else None
