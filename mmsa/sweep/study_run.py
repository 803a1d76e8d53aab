"""A study in MLflow: one flat run, kept up to date while trials end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmsa.run_folder import override_key
from mmsa.sweep.report import rerun_note, text
from mmsa.sweep.summary import Summary
from mmsa.tracking.mlflow import MLflowTracker
from mmsa.tracking.tracker import RunInfo


@dataclass
class StudyRun:
    """Shows a study in MLflow; the trials' own runs are tied to it by the tag `sweep`.

    The first failure prints one line and costs no trial; missed values are sent as soon as MLflow is back.

    Args:
        tracker: of the runs, not started; knows where they are shown.
    """

    tracker: MLflowTracker
    _step: int = -1

    def open(self, summary: Summary, run_id: str | None = None) -> str | None:
        """Make the study's run, or resume `run_id`, and return its id; None where MLflow cannot be reached."""
        fixed = {override_key(override): override.partition("=")[2] for override in summary.fixed}
        how = {"sampler": summary.sampler, "pruner": summary.pruner}
        about = {"trials": summary.total, "seeds": summary.seeds, **how}
        tags = {"kind": "study", "sweep": summary.study, "dataset": summary.dataset, "planted": summary.planted}
        run = RunInfo(
            name=f"study {summary.study}",
            folder=self.tracker.outputs / "sweeps" / summary.study,
            parameters={**fixed, **summary.space, **{f"sweep.{name}": value for name, value in about.items()}},
            tags={**tags, **how},
            fingerprint=summary.fingerprint or None,
            source=summary.source,
        )
        opened = self.tracker.start(run, run_id)
        self.update(summary)
        return opened

    def update(self, summary: Summary) -> None:
        """Show how far the study is and its best configuration; called after every trial that ends."""
        self._keep(summary)
        self.tracker.annotate(_tags(summary), description(summary))

    def add_figures(self, folder: Path) -> None:
        """Add the PNG files of a folder, over earlier ones of the same names."""
        self.tracker.annotate({}, files=sorted(folder.glob("*.png")))

    def finish(self, summary: Summary, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Show the study's end and close its run.

        Args:
            summary: the study.
            status: KILLED where it was interrupted and can go on, FAILED where it ended by too many failures.
        """
        self._keep(summary)
        self.tracker.annotate(_tags(summary), description(summary), status=status)

    def _keep(self, summary: Summary) -> None:
        """Hand on the metrics, whose step is the number of trials that ended."""
        counts = summary.counts
        step = summary.num_finished + counts["failed"]
        if step == self._step:
            return
        self._step = step
        metrics = {f"trials/{state}": float(counts[state]) for state in ("done", "pruned", "failed")}
        metrics |= {f"best/{name}": value for name, value in summary.best_values().items()}
        self.tracker.log_epoch(metrics, step)


def description(summary: Summary) -> str:
    """MLflow's description of a study, in Markdown: its progress, its best trials, and the next command."""
    return "\n\n".join(filter(None, [rerun_note(summary, "markdown"), text(summary, "markdown")]))


def _tags(summary: Summary) -> dict[str, str]:
    """The best configuration; of several objectives that of the Pareto front which is best in the first."""
    if not summary.best:
        return {}
    best = summary.best[0]
    return {"best trial": str(best.number)} | {f"best {key}": value for key, value in best.overrides.items()}
