"""A tracker shows a run; the run's folder stays the source of truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmsa.record import RunRecord

Entry = Literal["missing", "unfinished", "whole", "deleted"]
"""What a tracker shows of a run: nothing, a part, everything, or what its user has deleted."""


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
        began: Unix time; None is now.
        id: the run's own, by which its entry is found again.
        derived_from: digest of what a summary was made of.
    """

    name: str
    folder: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    commit: str | None = None
    fingerprint: str | None = None
    source: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    began: float | None = None
    id: str | None = None
    derived_from: str | None = None


class Tracker:
    """Shows one run; this one shows nothing. No method raises: a tracking failure must not cost a result.

    Attributes:
        run_id: None while the run is not shown, which may begin later than the run.
        experiment_id: of the experiment that shows it.
        settled: everything is shown, and the run is closed.
    """

    run_id: str | None = None
    experiment_id: str | None = None
    settled: bool = True

    def prepare(self) -> None:
        """Make what runs share; called by the parent before any worker starts, and harmless when repeated."""

    def start(self, run: RunInfo, run_id: str | None = None, again: bool = False) -> str | None:
        """Open a run and return its id; None where nothing is tracked.

        Args:
            run: the run.
            run_id: of its entry, as far as is known.
            again: it may have an entry, which is opened and completed; nothing that is there is sent twice.
        """
        return None

    def entry(self, run: RunInfo, run_id: str | None) -> Entry | None:
        """What the tracker shows of a run; None where it does not answer."""
        return "whole"

    def discard(self, run: RunInfo, run_id: str | None) -> bool:
        """Delete the entry of a run that came to nothing; False where the tracker does not answer."""
        return True

    def log_epoch(self, metrics: Mapping[str, float], epoch: int, at: float | None = None) -> None:
        """Add the metrics of one epoch, named `fold/metric`; of a past one with its Unix time."""

    def finish(self, folder: Path, record: RunRecord, description: str = "") -> None:
        """Add the selected weights' metrics, the baselines, the folder's files and a Markdown description; close."""

    def fail(self, folder: Path, reason: str, pruned: bool = False) -> None:
        """Close the run as failed, or as ended early by its sweep, with the reason and the files that there are."""
