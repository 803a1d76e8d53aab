"""What a run leaves behind: its record in the folder, the tracker's run, and the lines on the screen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from mmsa import build, provenance
from mmsa.analysis.tables import run_table
from mmsa.commands import browse_command, report_command
from mmsa.data.batches import Data, Fold
from mmsa.data.store import FOLDS, Store
from mmsa.display import Display
from mmsa.errors import Pruned, TrainingError
from mmsa.record import DataRecord, RunRecord
from mmsa.resume import open_folder, resume_line
from mmsa.run_folder import flat_parameters, run_name, write_history, write_predictions
from mmsa.stages import Task
from mmsa.tracking.figures import write_figures
from mmsa.tracking.tracker import RunInfo, Tracker
from mmsa.training.trainer import TrainingState

SWEEP_VARIABLE = "MMSA_SWEEP"
"""Environment variable: the id that ties the runs of one multirun together."""
Scored = tuple[Fold, Mapping[str, float], np.ndarray]
"""A fold, its metrics, and the predictions in the order of the fold."""


@dataclass(frozen=True)
class TrialHooks:
    """What a sweep asks of a run, and hears from it.

    Args:
        sweep: the sweep's name.
        number: the trial's number.
        final: the run scores the test fold; otherwise it does not read it.
        started: takes the run's folder as soon as there is one.
        epoch: takes the metrics of every epoch so far, after each; may raise Pruned to end the run.
        data: opens the data of a configuration, which a worker keeps from one trial to the next.
    """

    sweep: str
    number: int
    final: bool
    started: Callable[[Path], None]
    epoch: Callable[[Sequence[Mapping[str, float]]], None]
    data: Callable[[DictConfig], tuple[Store, Data]] = build.open_data


class Journal:
    """Keeps what is known of one run; what it writes is whole at every moment.

    Args:
        cfg: the composed configuration.
        overrides: what was typed.
        display: the screen.
        trial: of a trial of a sweep.
    """

    folder: Path
    record: RunRecord
    tracker: Tracker

    def __init__(
        self, cfg: DictConfig, overrides: Sequence[str], display: Display, trial: TrialHooks | None = None
    ) -> None:
        self.cfg, self.overrides, self.display, self.trial = cfg, list(overrides), display, trial
        self._began = time.monotonic()
        self._trained = 0.0

    def open(self, store: Store, task: Task, num_parameters: int, device: str) -> bool:
        """Open the run's folder, its record and the tracker's run; whether it goes on with an earlier one."""
        cfg, trial = self.cfg, self.trial
        self.folder, former = open_folder(cfg, self.overrides, store.fingerprint, of_trial=trial is not None)
        self.display.log = self.folder / "run.log"
        if trial:
            trial.started(self.folder)
        held = np.asarray(store.folds)
        record = RunRecord(
            name=former.name if former else cfg.name or run_name(self.overrides),
            status="running",
            seed=cfg.seed,
            dataset=store.dataset,
            task=type(task).__name__.lower(),
            data=DataRecord(
                fingerprint=store.fingerprint,
                store=str(store.path.resolve()),
                utterances={name: int(np.sum(held == name)) for name in FOLDS},
            ),
            monitor=f"valid/{task.monitor}",
            mode=task.mode,
            primary=task.shown,
            num_parameters=num_parameters,
            planted=bool(store.report.get("planted")),
            overrides=former.overrides if former else tuple(self.overrides),
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
            git=provenance.git_state(),
            environment=provenance.environment(device, cfg.device.threads),
            sweep=trial.sweep if trial else os.environ.get(SWEEP_VARIABLE),
            trial=trial.number if trial and not trial.final else None,
        )
        self.tracker = build.build_tracker(cfg, warn=self.display.say)
        self.tracker.start(self._shown(record), run_id=former.mlflow_run_id if former else None)
        self._keep(record)
        return former is not None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Around what a run does: keeps why it ends before its end, and says how to go on."""
        self._training = time.monotonic()
        try:
            with self.display.training(self.cfg.trainer.max_epochs, self.record.monitor):
                yield
        except BaseException as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            pruned = isinstance(error, Pruned)
            self._keep(self.record.model_copy(update={"status": "pruned" if pruned else "failed", "reason": reason}))
            self.tracker.fail(self.folder, reason, pruned)
            self._keep(self.record)
            self.display.say(f"stopped after {time.monotonic() - self._began:.0f} s; run folder: {self.folder}")
            resumable = (self.folder / "checkpoints" / "last.pt").exists() and not isinstance(error, TrainingError)
            if self.trial is None and resumable:
                self.display.say(resume_line(self.overrides, self.folder))
            raise

    def epoch(self, state: TrainingState, metrics: Mapping[str, float]) -> None:
        """Tell the tracker, the display and the sweep of an epoch."""
        self._trained = time.monotonic() - self._training
        self.tracker.log_epoch(metrics, state.epoch)
        write_history(self.folder / "history.csv", state.history)
        self.display.epoch(state.epoch, metrics, state.best_epoch)
        if self.trial:
            self.trial.epoch(state.history)

    def finish(
        self, state: TrainingState, task: Task, scored: Sequence[Scored], baselines: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Keep the result, then show it: figures, tracker, table, and the line to type next.

        Args:
            state: of training.
            task: whose truths stand beside the predictions.
            scored: the folds, with the selected weights.
            baselines: baseline -> its metrics on them.
        """
        rows = [(fold, task.truths(fold.targets), predictions) for fold, _, predictions in scored]
        write_predictions(self.folder / "predictions.csv", rows, task.columns)
        found = {
            "status": "finished",
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "training_seconds": self._trained,  # of this process; a resumed run has trained before
            "metrics": named_by_fold(scored),
            "baselines": baselines,
            "seconds": time.monotonic() - self._began,
        }
        record = self.record.model_copy(update=found)
        self._keep(record)
        if record.trial is not None:  # a search makes hundreds of them, and looks at the study
            self.tracker.finish(self.folder, record, description=f"trial {record.trial} of {record.sweep}")
            self._keep(record)
            return
        try:
            write_figures(self.folder, record)
        except Exception as error:  # noqa: BLE001  (a full disk or an odd name must not cost the result)
            self.display.say(f"the figures could not be written: {error}")
        self.tracker.finish(self.folder, record, description=run_table(self.folder, style="markdown"))
        self._keep(record)
        self._show(self.record)

    def _show(self, record: RunRecord) -> None:
        if record.sweep:  # the multirun ends in one table of all
            metric = record.monitor.partition("/")[2]
            shown = ", ".join(f"{fold}/{metric} {record.metrics[f'{fold}/{metric}']:.3f}" for fold in ("valid", "test"))
            self.display.say(f"  {record.name}: {shown}  ({record.seconds:.0f} s, {self.folder})")
            return
        outputs = self.cfg.paths.outputs
        self.display.say(run_table(self.folder, style="table"))
        self.display.say(f"run folder: {self.folder}  ({record.seconds:.0f} s)")
        if record.mlflow_run_id is None:
            self.display.say(f"all runs in one table: {report_command(outputs)}")
        else:
            self.display.say(f"browse it: {browse_command(outputs, self.cfg.tracking.uri)}")

    def _keep(self, record: RunRecord) -> None:
        """Write the record, with the run's id in MLflow, which may have one late."""
        self.record = record.model_copy(update={"mlflow_run_id": self.tracker.run_id})
        self.record.write(self.folder)

    def _shown(self, record: RunRecord) -> RunInfo:
        """What the tracker shows of a run when it starts."""
        return RunInfo(
            name=record.name,
            folder=self.folder,
            parameters=flat_parameters(OmegaConf.to_container(self.cfg, resolve=True)),  # type: ignore[arg-type]
            tags=record.model_dump(include={"sweep", "trial", "seed", "dataset", "task", "planted"}),
            commit=record.git.commit,
            fingerprint=record.data.fingerprint,
            environment=record.environment,
        )


def named_by_fold(scored: Sequence[Scored]) -> dict[str, float]:
    """The metrics of several folds, named fold/metric."""
    return {f"{fold.name}/{metric}": value for fold, metrics, _ in scored for metric, value in metrics.items()}
