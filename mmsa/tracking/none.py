"""Tracking switched off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mmsa.record import RunRecord
from mmsa.tracking.tracker import RunInfo, Tracker


class NullTracker(Tracker):
    """Shows nothing: the run's folder holds everything.

    Args:
        outputs: given to every tracker; not used.
        warn: given to every tracker; not used.
    """

    def __init__(self, outputs: Path | str = "outputs", warn: Callable[[str], None] | None = None) -> None:
        pass

    def prepare(self) -> None:
        pass

    def start(self, run: RunInfo, run_id: str | None = None) -> str | None:
        return None

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        pass

    def finish(self, folder: Path, record: RunRecord, description: str = "") -> None:
        pass

    def fail(self, folder: Path, reason: str, pruned: bool = False) -> None:
        pass
