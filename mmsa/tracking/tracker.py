"""A tracker shows a run; the run's folder stays the source of truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmsa.record import RunRecord


@dataclass(frozen=True)
class RunInfo:
    """A run when it starts.

    Args:
        name: the run's name, made of its overrides.
        folder: the run's folder.
        parameters: the resolved configuration, flat (see `run_folder.flat_parameters`).
        tags: shared by runs: sweep, trial, seed, experiment, dataset; None is left out.
        commit: git commit of the code, None outside a repository.
        fingerprint: fingerprint of the data.
        source: name of the file or folder that they come from.
        environment: versions of Python and of the libraries.
    """

    name: str
    folder: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None
    fingerprint: str | None = None
    source: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Tracker:
    """Shows one run; this one shows nothing. No method raises: a tracking failure must not cost a result.

    Its attribute `run_id` is None while the run is not shown, which may begin later than the run.
    """

    run_id: str | None = None

    def prepare(self) -> None:
        """Make what runs share; called by the parent before any worker starts, and harmless when repeated."""

    def start(self, run: RunInfo, run_id: str | None = None) -> str | None:
        """Open a run, or resume `run_id`, and return its id; None where nothing is tracked."""
        return None

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Add the metrics of one epoch, named `fold/metric`."""

    def finish(self, folder: Path, record: RunRecord, description: str = "") -> None:
        """Add the selected weights' metrics, the baselines, the folder's files and a Markdown description; close."""

    def fail(self, folder: Path, reason: str, pruned: bool = False) -> None:
        """Close the run as failed, or as ended early by its sweep, with the reason and the files that there are."""
