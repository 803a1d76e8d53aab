"""A study in MLflow: one flat run, kept up to date while trials end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from omegaconf import DictConfig

from mmsa import parts
from mmsa.errors import MmsaError
from mmsa.occupancy import is_under_way
from mmsa.run_folder import override_key
from mmsa.sweep.endings import num_failed
from mmsa.sweep.options import SPEC_FILE, SweepSpec
from mmsa.sweep.report import rerun_note, text
from mmsa.sweep.storage import open_study
from mmsa.sweep.summary import Summary, summarise
from mmsa.tracking.mlflow import MLflowTracker
from mmsa.tracking.tracker import RunInfo

Status = Literal["FINISHED", "FAILED", "KILLED"]
RUN_ID = "mlflow_run_id"
"""Attribute of a study: the id of its entry in MLflow."""


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
        """Make the study's run, or resume the earlier one, and return its id; None where MLflow cannot be reached.

        Args:
            summary: the study.
            run_id: of the earlier run, as far as is known.
        """
        opened = self.tracker.start(self.info(summary), run_id, again=True)
        self.update(summary)
        return opened

    def info(self, summary: Summary) -> RunInfo:
        """The study as a tracker shows it."""
        fixed = {override_key(override): override.partition("=")[2] for override in summary.fixed}
        how = {"sampler": summary.sampler, "pruner": summary.pruner}
        about = {"trials": summary.total, "seeds": summary.seeds, **how}
        tags = {"kind": "study", "sweep": summary.study, "dataset": summary.dataset, "planted": summary.planted}
        return RunInfo(
            name=f"study {summary.study}",
            folder=self.tracker.outputs / "sweeps" / summary.study,
            parameters={**fixed, **summary.space, **{f"sweep.{name}": value for name, value in about.items()}},
            tags={**tags, **how},
            fingerprint=summary.fingerprint or None,
            source=summary.source,
            id=summary.id,
        )

    def update(self, summary: Summary) -> None:
        """Show how far the study is and its best configuration; called after every trial that ends."""
        self._keep(summary)
        self.tracker.annotate(_tags(summary), description(summary))

    def add_figures(self, folder: Path) -> None:
        """Add the PNG files of a folder, over earlier ones of the same names."""
        self.tracker.annotate({}, files=sorted(folder.glob("*.png")))

    def finish(self, summary: Summary, status: Status = "FINISHED") -> None:
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
        self.tracker.log(metrics, step)


def ended_as(study: optuna.Study, summary: Summary, max_failures: int) -> Status:
    """How a study that nobody works on stands: done, ended by too many failures, or to be continued."""
    if summary.num_finished >= summary.total:
        return "FINISHED"
    return "FAILED" if num_failed(study, study.get_trials(deepcopy=False)) >= max_failures else "KILLED"


def renew_studies(outputs: Path, cfg: DictConfig, say: Callable[[str], None]) -> None:
    """Show the present state of every study under `outputs` that nobody works on; close entries without a folder.

    Args:
        outputs: the outputs folder.
        cfg: a configuration, with the tracker.
        say: takes a line for each study or entry that was shown otherwise.
    """
    for file in sorted((outputs / "sweeps").glob(f"*/{SPEC_FILE}")):
        tracker = parts.build_tracker(cfg, warn=say)
        if not isinstance(tracker, MLflowTracker) or is_under_way(file.parent):
            continue
        try:
            spec, study = SweepSpec.load(file.parent), open_study(file.parent)
            summary, run = summarise(study), StudyRun(tracker)
        except MmsaError as error:
            say(f"study {file.parent.name} cannot be read: {str(error).splitlines()[0]}")
            continue
        known = study.user_attrs.get(RUN_ID)
        if spec.options["final"] or tracker.entry(run.info(summary), known) not in ("missing", "unfinished"):
            continue
        run.open(summary, known)
        run.add_figures(file.parent / "figures")
        run.finish(summary, ended_as(study, summary, spec.options["max_failures"]))
        say(f"study {summary.study}: handed in")
    tracker = parts.build_tracker(cfg, warn=say)
    if isinstance(tracker, MLflowTracker):
        root = str(outputs.resolve())
        for name in tracker.close_lost(lambda tags: _is_lost(tags.get("folder", ""), root)):
            say(f"{name}: closed, its folder is gone")


def _is_lost(folder: str, outputs: str) -> bool:
    return folder.startswith(f"{outputs}/") and not Path(folder).exists()


def description(summary: Summary) -> str:
    """MLflow's description of a study, in Markdown: its progress, its best trials, and the next command."""
    return "\n\n".join(filter(None, [rerun_note(summary, "markdown"), text(summary, "markdown")]))


def _tags(summary: Summary) -> dict[str, str]:
    """The best configuration; of several objectives that of the Pareto front which is best in the first."""
    if not summary.best:
        return {}
    best = summary.best[0]
    return {"best trial": str(best.number)} | {f"best {key}": value for key, value in best.overrides.items()}
