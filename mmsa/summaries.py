"""Mean and standard deviation over seeds in MLflow: one entry per configuration that has two seeds or more."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from mmsa import parts
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import Group, by_configuration
from mmsa.analysis.scores import Estimate
from mmsa.analysis.selection import read_runs
from mmsa.analysis.tables import comparable, make_tables
from mmsa.run_folder import override_key, short_name
from mmsa.tracking.mlflow import MLflowTracker
from mmsa.tracking.tracker import RunInfo
from mmsa.tracking.view import std_of


def renew_summaries(outputs: Path, cfg: DictConfig, say: Callable[[str], None]) -> None:
    """Show each configuration over its seeds, as far as the tracker lacks it; one that a user has deleted stays so.

    Args:
        outputs: the outputs folder, of which every finished run is read.
        cfg: a configuration, with the tracker.
        say: takes a line about a failure.
    """
    tables = comparable(run for run in read_runs(outputs).runs if not run.is_partial)
    groups = [group for runs in tables for group in by_configuration(runs) if len(group.runs) > 1]
    for group in groups:
        tracker = parts.build_tracker(cfg, warn=say)
        if not isinstance(tracker, MLflowTracker) or not _shown(group, outputs, tracker):
            return


def _shown(group: Group, outputs: Path, tracker: MLflowTracker) -> bool:
    """Show a configuration; False where the tracker does not answer."""
    info = _info(group, outputs)
    entry = tracker.entry(info, None)
    if entry in ("missing", "unfinished"):
        tracker.start(info, again=True)
        tracker.show(_estimates(group))
        table = rendered(make_tables(group.runs), "markdown")
        seeds = {"derived": info.tags["derived"], "seeds": [run.seed for run in group.runs]}
        tracker.annotate(seeds, table, status="FINISHED")
        return tracker.settled
    return entry is not None


def _info(group: Group, outputs: Path) -> RunInfo:
    """A configuration as a tracker shows it: without parameters, so that it is in no group of its runs."""
    first = group.runs[0]
    of_name = [override for override in first.overrides if override_key(override) == "dataset"]
    titled = group.label not in (" ".join(group.parts), "defaults")
    name = group.label if titled else short_name([*of_name, *group.parts])
    data = [first.dataset, first.data.fingerprint, first.data.parts]
    key = [*data, first.task, first.fold, first.primary, dict(first.configuration)]
    values = [[run.folder.name, run.started, dict(run.metrics)] for run in group.runs]
    return RunInfo(
        name=f"{name} ({group.extent})",
        folder=outputs / "runs",
        tags={
            "kind": "summary",
            "derived": f"mean of {len(group.runs)}",
            **first.model_dump(include={"dataset", "task", "planted"}),
        },
        fingerprint=first.data.fingerprint,
        source=first.data.source,
        id=_digest(key),
        derived_from=_digest([name, values]),
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _estimates(group: Group) -> dict[str, float]:
    """The mean of each metric under its name, and its standard deviation; of one that a seed lacks neither."""
    found: dict[str, float] = {}
    for name in group.runs[0].metrics:
        estimate = Estimate.of([run.metrics.get(name, math.nan) for run in group.runs])
        found |= {name: estimate.mean} if estimate.std is None else {name: estimate.mean, std_of(name): estimate.std}
    return found
