"""The records of a run: in its folder, in the tracker, and on the screen."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from mmsa import build, parts, provenance, repairs
from mmsa.analysis.layout import Table
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import run_of
from mmsa.analysis.tables import make_tables
from mmsa.commands import browse_command, report_command
from mmsa.data.batches import Data, Fold
from mmsa.data.store import Store
from mmsa.display import Display, duration
from mmsa.errors import Disowned, MmsaError, Pruned, TrainingError
from mmsa.files import give_room
from mmsa.lockstep import Member
from mmsa.occupancy import give_back, named
from mmsa.record import Packing, RunRecord
from mmsa.reporting import in_few_lines
from mmsa.resume import open_folder, resume_line
from mmsa.run_folder import SWEEP_VARIABLE, run_name, write_history, write_predictions
from mmsa.secrets import as_stored, hidden
from mmsa.settling import description, info_of, settle, unused_weights
from mmsa.stages import Task
from mmsa.tracking.figures import write_figures
from mmsa.tracking.tracker import Tracker
from mmsa.training.trainer import TrainingState

Scored = tuple[Fold, Mapping[str, float], np.ndarray]
"""A fold, its metrics, and the predictions in the order of the fold."""


@dataclass(frozen=True)
class TrialHooks:
    """A sweep's requests of a run, and the reports that it gets.

    Args:
        sweep: the sweep's name.
        number: the trial's number.
        final: the run scores the test fold; otherwise it does not read it.
        started: takes the run's folder as soon as there is one.
        epoch: takes the metrics of every epoch so far, after each; may raise Pruned to end the run.
        data: opens the data of a configuration, which a worker keeps from one trial to the next.
        check: raises Disowned where another worker has taken the run over; called before anything is written.
    """

    sweep: str
    number: int
    final: bool
    started: Callable[[Path], None]
    epoch: Callable[[Sequence[Mapping[str, float]]], None]
    data: Callable[[DictConfig], tuple[Store, Data]] = build.open_data
    check: Callable[[], None] = lambda: None


class Journal:
    """Keeps the records of one run; its files are whole at every moment.

    Args:
        cfg: the composed configuration.
        overrides: as typed.
        display: the screen.
        trial: of a trial of a sweep.
        repeats: name of the folder of the run that it repeats.
        member: its part among seeds that are asked for together.
    """

    folder: Path
    record: RunRecord

    def __init__(
        self,
        cfg: DictConfig,
        overrides: Sequence[str],
        display: Display,
        trial: TrialHooks | None = None,
        repeats: str | None = None,
        member: Member | None = None,
    ) -> None:
        self.cfg, self.overrides, self.display, self.trial = cfg, list(overrides), display, trial
        self._repeats, self._member = repeats, member
        self._of_many = trial is not None or SWEEP_VARIABLE in os.environ
        self.tracker = Tracker()  # shows nothing before the run is opened
        self._began = time.monotonic()
        self._trained = 0.0
        self._state, self._resumed = TrainingState(), False
        self._tracked, self._again = False, False

    @property
    def named(self) -> str:
        """The run's name, with its place among those of a multirun."""
        return f"{self.display.place}  {self.record.name}".strip()

    @contextmanager
    def kept(self, store: Store, task: Task, num_parameters: int, device: str) -> Iterator[bool]:
        """Around the work of a run: opens its folder and its record, keeps the reason of an early end, and says how to
        resume. Gives whether it resumes an earlier run."""
        former = self._open(store, task, num_parameters, device)
        self._again = former is not None
        self._training = time.monotonic()
        ours = True
        try:
            self.tracker = parts.build_tracker(self.cfg, warn=self.display.say)
            yield self._again
        except BaseException as error:
            ours = self.record.status != "running" or self._is_ours()
            if ours and self.record.status == "running":
                self._stopped(error)
            raise
        finally:
            if ours:
                give_room(self.folder)
            give_back(self.folder, self._lock, self.record.status != "running" and self.tracker.settled)

    def check(self) -> None:
        """See that the run is still this process's, before anything of it is written.

        Raises:
            Disowned: another worker of its sweep has taken it over.
            MmsaError: nobody can say.
        """
        if self.trial:
            self.trial.check()

    def _is_ours(self) -> bool:
        try:
            self.check()
        except (Disowned, MmsaError):
            return False
        return True

    def _open(self, store: Store, task: Task, num_parameters: int, device: str) -> RunRecord | None:
        cfg, trial = self.cfg, self.trial
        self.check()
        folder, self._lock, former = open_folder(cfg, self.overrides, store, of_trial=trial is not None)
        devices = provenance.devices(cfg.device.devices, former)
        self.record = RunRecord(
            id=former.id if former else uuid.uuid4().hex,
            name=former.name if former else cfg.name or run_name(self.overrides),
            status="running",
            seed=cfg.seed,
            dataset=store.dataset,
            task=type(task).__name__.lower(),
            data=provenance.data_record(store, former.data.source if former else None),
            monitor=f"valid/{task.monitor}",
            mode=task.mode,
            primary=task.shown,
            num_parameters=num_parameters,
            planted=bool(store.report.get("planted")),
            overrides=former.overrides if former else tuple(self.overrides),
            started=datetime.now().astimezone().isoformat(timespec="milliseconds"),
            git=provenance.git_state(),
            repairs=former.repairs if former else repairs.latest(),
            environment=provenance.environment(device, cfg.device.threads, devices),
            sweep=trial.sweep if trial else former.sweep if former else os.environ.get(SWEEP_VARIABLE),
            trial=trial.number if trial and not trial.final else None,
            repeats=former.repeats if former else self._repeats,
            packed=former.packed if former else Packing(),
            mlflow_run_id=former.mlflow_run_id if former else None,
        )
        self.record.write(folder)
        self.folder = folder if former else named(folder, self.record.name)
        self.display.log = self.folder / "run.log"
        if trial:
            trial.started(self.folder)
        return former

    def _track(self) -> None:
        """Open the tracker's run where it is not open yet."""
        if not self._tracked:
            self._tracked = True
            info = info_of(self.folder, self.record, as_stored(self.cfg))
            self.tracker.start(info, self.record.mlflow_run_id, again=self._again)
            self._keep(self.record)

    def _stopped(self, error: BaseException) -> None:
        """Keep and say why a run ends early."""
        _each(lambda: give_room(self.folder))
        pruned = isinstance(error, Pruned)
        told = in_few_lines(error) if isinstance(error, Exception) and not pruned else hidden(str(error))
        reason = next(iter(told.splitlines()), type(error).__name__)
        found = {"status": "pruned" if pruned else "failed", "reason": reason}
        resumable = (self.folder / "checkpoints" / "last.pt").exists() and not isinstance(error, TrainingError)
        go_on = resumable and self.trial is None
        how = "pruned" if pruned else "failed" if isinstance(error, Exception) else "stopped"
        if isinstance(error, KeyboardInterrupt):
            how += f" by {str(error) or 'Ctrl-C'}"
        ended = f"{self.display.place}  {how} after {duration(time.monotonic() - self._began)} and {self._so_far()}"
        ended += "" if go_on else f"; run folder: {self.folder}"
        trouble = _each(
            lambda: self._keep(self.record.model_copy(update=found)),
            self._track,
            lambda: self.tracker.fail(self.folder, reason, pruned),
            lambda: self._keep(self.record),
            self._drop_unused,
            lambda: self.display.say(ended.strip()),
            lambda: self.display.keep(f"  {reason}") if isinstance(error, Exception) else None,
            lambda: self.display.say(resume_line(self.folder)) if go_on else None,
        )
        if trouble is not None:
            _each(lambda: self.display.say(f"its end could not be kept: {trouble}"))

    @contextmanager
    def training(self, state: TrainingState) -> Iterator[None]:
        """Around the epochs: prints the point where a resumed run continues, and shows the epochs.

        Args:
            state: of the training, which it changes; that of a resumed run at its last checkpoint.
        """
        self._state, self._resumed = state, state.epoch > 0
        if self._resumed:
            self.display.note(f"resumes after {self._so_far()}")
            if (packed := self.record.packed).seeds and packed.epochs is None:  # from here on it trains alone
                self.record = self.record.model_copy(
                    update={"packed": packed.model_copy(update={"epochs": state.epoch})}
                )
            write_history(self.folder / "history.csv", state.history)
            for number, metrics in enumerate(state.history, start=1):  # what the tracker has is not sent again
                self.tracker.log_epoch(metrics, number)
        with self.display.training(state.epoch, self.cfg.trainer.max_epochs, self.record.monitor):
            yield

    def trained(self, why: str | None) -> None:
        """Print the selected epoch, why training ended, and the time."""
        since = " since it went on" if self._resumed else ""
        self.display.note(f"selected {self._best()}; stopped: {why}; {duration(self._trained)}{since}")

    def _best(self) -> str:
        return f"epoch {self._state.best_epoch}, {self.record.monitor} {self._state.best_score:.4f}"

    def _so_far(self) -> str:
        """How many epochs are done, and the best of them."""
        done = len(self._state.history)
        best = f"; best so far: {self._best()}" if self._state.best_epoch else ""
        return f"{done} epoch{'' if done == 1 else 's'}{best}"

    def batch(self, epoch: int, share: float) -> None:
        """Show how far an epoch is; its first step has not waited for the seconds of the tracker's imports."""
        self.display.batch(epoch, share)
        if not self._tracked:
            self._track()
            if self.trial is None:
                settle(self.cfg, self.display.say)

    def epoch(self, state: TrainingState, metrics: Mapping[str, float]) -> None:
        """Report an epoch to the tracker, the display and the sweep."""
        self._trained = time.monotonic() - self._training
        self.tracker.log_epoch(metrics, state.epoch)
        write_history(self.folder / "history.csv", state.history)
        self.display.epoch(state.epoch, metrics, state.best_epoch)
        if self.trial:
            self.trial.epoch(state.history)

    def finish(
        self,
        state: TrainingState,
        weights: str,
        task: Task,
        scored: Sequence[Scored],
        baselines: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Keep the result, then show it: figures, tracker, table, and the line to type next.

        Args:
            state: of training.
            weights: hash of the selected weights' checkpoint.
            task: whose truths stand beside the predictions.
            scored: the folds, with the selected weights.
            baselines: baseline -> its metrics on them.
        """
        found = {
            "status": "finished",
            "best_epoch": state.best_epoch,
            "epochs": state.epoch,
            "training_seconds": self._trained,  # of this process; a resumed run has trained before
            "weights": weights,
            "metrics": named_by_fold(scored),
            "baselines": baselines,
            "seconds": time.monotonic() - self._began,
        }
        self.check()
        record = self.record.model_copy(update=found)
        shown = record.trial is None  # a search makes hundreds of them, and looks at the study
        result = make_tables([run_of(self.folder, record)]) if shown else []
        if shown:
            self._say_result(record, result)  # whatever becomes of the files
        rows = [(fold, task.truths(fold.targets), predictions) for fold, _, predictions in scored]
        write_predictions(self.folder / "predictions.csv", rows, task.columns)
        self._keep(record)
        trouble = _each(
            lambda: give_room(self.folder),
            lambda: self._draw(record) if shown else None,
            self._track,
            lambda: self.tracker.finish(self.folder, record, description=description(self.folder, record)),
            lambda: self._keep(record),
            self._drop_unused,
            lambda: self._say_next(self.record),
        )
        if trouble is not None:
            raise trouble

    def _drop_unused(self) -> None:
        for path in unused_weights(self.folder, self.record, self.cfg):
            path.unlink()

    def _draw(self, record: RunRecord) -> None:
        try:
            write_figures(self.folder, record)
        except Exception as error:  # noqa: BLE001  (a full disk or an odd name must not cost the result)
            self.display.say(f"the figures could not be written: {error}")

    def _say_result(self, record: RunRecord, result: Sequence[Table]) -> None:
        if not self._of_many:
            self.display.say(rendered(result, "table"))
            return
        metric = record.monitor.partition("/")[2]
        shown = ", ".join(f"{fold}/{metric} {record.metrics[f'{fold}/{metric}']:.3f}" for fold in ("valid", "test"))
        self.display.say(
            f"  {self.display.place or record.name}: {shown}  ({duration(record.seconds or 0)}, {self.folder})"
        )

    def _say_next(self, record: RunRecord) -> None:
        if self._of_many:  # the multirun ends in one table of all
            return
        outputs = self.cfg.paths.outputs
        self.display.say(f"run folder: {self.folder}  ({duration(record.seconds or 0)})")
        if record.mlflow_run_id is None:
            self.display.say(f"all runs in one table: {report_command(outputs, debug=record.debug)}")
        else:
            uri, entry = as_stored(self.cfg)["tracking"].get("uri"), (self.tracker.experiment_id, record.mlflow_run_id)
            known = [part for part in entry if part]
            shown = browse_command(outputs, uri, self.folder, known if len(known) == 2 else ())
            self.display.say(f"browse it: {shown}")

    def _keep(self, record: RunRecord) -> None:
        """Write the record, with the run's id in MLflow and the form of its training, which it may have late."""
        late: dict[str, Any] = {"mlflow_run_id": self.tracker.run_id or record.mlflow_run_id}
        if self._member is not None:
            late["packed"] = self._member.packing
        record = record.model_copy(update=late)
        record.write(self.folder)
        self.record = record


def _each(*steps: Callable[[], object]) -> BaseException | None:
    """Try every step of closing, so that one which fails or is interrupted costs no other; returns the first error."""
    first: BaseException | None = None
    for step in steps:
        try:
            step()
        except BaseException as error:  # noqa: BLE001  (a second Ctrl-C, say, ends the step that hangs)
            first = first or error
    return first


def named_by_fold(scored: Sequence[Scored]) -> dict[str, float]:
    """The metrics of several folds, named fold/metric."""
    return {f"{fold.name}/{metric}": value for fold, metrics, _ in scored for metric, value in metrics.items()}
