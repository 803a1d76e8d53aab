"""One run, from its configuration to its folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf

from mmsa import build, provenance
from mmsa.analysis.baselines import fit_baselines
from mmsa.analysis.tables import run_table
from mmsa.commands import browse_command, report_command
from mmsa.data.batches import Data, Fold
from mmsa.data.store import FOLDS, Store
from mmsa.display import Display
from mmsa.errors import Pruned, TrainingError
from mmsa.resume import open_folder, resume_line
from mmsa.run_folder import closed_to_trials, flat_parameters, run_name, write_history, write_json, write_predictions
from mmsa.tracking.figures import write_figures
from mmsa.tracking.tracker import RunInfo, Tracker
from mmsa.training.device import make_fabric
from mmsa.training.seeding import derived_seed, generator, initialisation
from mmsa.training.task import Task
from mmsa.training.trainer import Trainer, TrainingState

SWEEP_VARIABLE = "MMSA_SWEEP"
"""Environment variable: the id that ties the runs of one multirun together."""


@dataclass(frozen=True)
class RunResult:
    """What a run found.

    Args:
        metrics: of the selected weights, named fold/metric.
        predictions: per fold (valid, test), the prediction of every utterance by its id; a list for columns.
        score: the monitored value on the validation fold.
        run_id: MLflow's id, None where the run is not tracked.
        folder: the run's folder, which holds everything.
    """

    metrics: dict[str, float]
    predictions: dict[str, dict[str, Any]]
    score: float
    run_id: str | None
    folder: Path


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


def run(
    cfg: DictConfig, overrides: Sequence[str] = (), quiet: bool = False, trial: TrialHooks | None = None
) -> RunResult:
    """Prepare the data, train, select on the validation fold, evaluate once on the test fold, and keep everything.

    Args:
        cfg: the composed configuration.
        overrides: what was typed, for the run's name.
        quiet: print nothing.
        trial: of a trial of a sweep, which reads the test fold only where it is final.

    Raises:
        MmsaError: what the user can mend; the message says how.
        Pruned: the sweep ended the run.
    """
    began = time.monotonic()
    display = Display(quiet)
    build.check(cfg)
    fabric = make_fabric(**cfg.device)
    task = build.build_task(cfg)
    store, data = trial.data(cfg) if trial else build.open_data(cfg, progress=not quiet)
    if trial and not trial.final:
        data = data.closed("test", closed_to_trials(f"trial {trial.number}", trial.sweep))
    train, valid = data.fold("train"), data.fold("valid")
    task.truths(train.targets)

    generators = {purpose: generator(cfg.seed, purpose) for purpose in ("order", "masks")}
    with initialisation(cfg.seed):
        model = build.build_model(cfg, data.widths, task, generators["masks"], data.aligned, data.tables)
    torch.manual_seed(derived_seed(cfg.seed, "dropout"))
    optimizer = build.part(cfg, "optimizer")(parameters=build.parameter_groups(model))
    scheduler = build.part(cfg, "scheduler")(optimizer=optimizer, mode=task.mode)

    folder, resumed = open_folder(cfg, overrides, store.fingerprint, of_trial=trial is not None)
    display.log_to(folder / "run.log")
    if trial:
        trial.started(folder)
    record = new_record(cfg, overrides, resumed, trial) | {
        "dataset": store.dataset,
        "planted": bool(store.report.get("planted")),
        "task": type(task).__name__.lower(),
        "monitor": f"valid/{task.monitor}",
        "mode": task.mode,
        "primary": list(task.shown),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "data": describe_data(store),
        "environment": provenance.environment(str(fabric.device), cfg.device.threads),
    }
    tracker = build.build_tracker(cfg, warn=display.say)
    tracker.prepare()
    record["mlflow_run_id"] = tracker.start(run_info(cfg, record, folder), run_id=resumed.get("mlflow_run_id"))
    write_json(folder / "result.json", record)
    display.say(
        f"{record['name']}: {store.dataset}, {len(train)} train and {len(valid)} valid utterances, "
        f"{record['num_parameters']:,} parameters, {fabric.device}"
    )
    if data.num_cut:
        display.say(f"dataset.max_length cuts {data.num_cut:,} of {len(store.ids):,} utterances")
    for modality in train.num_cut:
        if beyond := train.num_cut[modality] + valid.num_cut[modality]:
            display.say(f"encoder.{modality} cuts {beyond:,} utterances, which are longer than its transformer")
    try:
        trainer = make_trainer(cfg, fabric, task, folder, generators)
        model, optimizer = fabric.setup(model, optimizer)
        watch = trial.epoch if trial else None
        training = time.monotonic()
        progress = fit(trainer, model, optimizer, scheduler, train, valid, tracker, display, bool(resumed), watch)
        record["training_seconds"] = time.monotonic() - training  # of this process; a resumed run has trained before
        folds = {"train": train, "valid": valid}
        if not trial or trial.final:
            folds["test"] = data.fold("test")  # here and only here
        result = conclude(trainer, model, folds, progress, record, folder)
    except BaseException as error:
        stop(error, record, folder, tracker)
        display.say(f"stopped after {time.monotonic() - began:.0f} s; run folder: {folder}")
        if trial is None and (folder / "checkpoints" / "last.pt").exists() and not isinstance(error, TrainingError):
            display.say(resume_line(overrides, folder))
        raise
    finish(cfg, record | {"seconds": time.monotonic() - began}, folder, tracker, display)
    return result


def new_record(
    cfg: DictConfig, overrides: Sequence[str], resumed: Mapping[str, Any], trial: TrialHooks | None
) -> dict[str, Any]:
    """What result.json says of a run when it starts; a resumed run keeps its name, overrides and tracking."""
    return {
        "name": resumed.get("name") or cfg.name or run_name(overrides),
        "status": "running",
        "seed": cfg.seed,
        "sweep": trial.sweep if trial else os.environ.get(SWEEP_VARIABLE),
        "trial": trial.number if trial and not trial.final else None,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "overrides": resumed.get("overrides") or list(overrides),
        "git": provenance.git_state(),
        "mlflow_run_id": resumed.get("mlflow_run_id"),
    }


def describe_data(store: Store) -> dict[str, Any]:
    """What result.json says of the data."""
    return {
        "fingerprint": store.fingerprint,
        "store": str(store.path.resolve()),
        "utterances": {name: int(np.sum(np.asarray(store.folds) == name)) for name in FOLDS},
    }


def stop(error: BaseException, record: Mapping[str, Any], folder: Path, tracker: Tracker) -> None:
    """Keep why a run ended before its end."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    pruned = isinstance(error, Pruned)
    write_json(folder / "result.json", {**record, "status": "pruned" if pruned else "failed", "reason": reason})
    tracker.fail(folder, reason, pruned)


def finish(cfg: DictConfig, record: dict[str, Any], folder: Path, tracker: Tracker, display: Display) -> None:
    """Keep the result, then show it: figures, tracker, table, and the line to type next."""
    write_json(folder / "result.json", record)
    if record["trial"] is not None:  # a search makes hundreds of them, and looks at the study
        tracker.finish(folder, record, description=f"trial {record['trial']} of {record['sweep']}")
        return
    try:
        write_figures(folder, record)
    except Exception as error:  # noqa: BLE001  (a full disk or an odd name must not cost the result)
        display.say(f"the figures could not be written: {error}")
    tracker.finish(folder, record, description=run_table(folder, style="markdown"))
    if record["sweep"]:  # the multirun ends in one table of all
        shown = [f"{name} {value:.3f}" for name, value in selected(record).items()]
        display.say(f"  {record['name']}: {', '.join(shown)}  ({record['seconds']:.0f} s, {folder})")
    else:
        display.say(run_table(folder, style="table"))
        display.say(f"run folder: {folder}  ({record['seconds']:.0f} s)")
        display.say(next_line(cfg, tracked=record["mlflow_run_id"] is not None))


def fit(
    trainer: Trainer,
    model: Any,
    optimizer: Any,
    scheduler: Any,
    train: Fold,
    valid: Fold,
    tracker: Tracker,
    display: Display,
    resume: bool,
    watch: Callable[[Sequence[Mapping[str, float]]], None] | None,
) -> TrainingState:
    """Train, telling the tracker, the display and the sweep of each epoch."""
    with display.training(trainer.max_epochs, trainer.task.monitor):

        def on_epoch(progress: TrainingState, metrics: Mapping[str, float]) -> None:
            tracker.log_epoch(metrics, progress.epoch)
            write_history(trainer.folder.parent / "history.csv", progress.history)
            display.epoch(progress.epoch, metrics, progress.best_epoch)
            if watch:
                watch(progress.history)

        return trainer.fit(model, optimizer, scheduler, train, valid, on_epoch, resume)


def conclude(
    trainer: Trainer,
    model: Any,
    folds: Mapping[str, Fold],
    progress: TrainingState,
    record: dict[str, Any],
    folder: Path,
) -> RunResult:
    """Evaluate the selected weights on the folds but the train fold, beside the baselines.

    A trial, which has no test fold, has no baselines: they would be the same in all of them.
    """
    task = trainer.task
    trainer.restore_best(model)
    metrics: dict[str, float] = {}
    predicted = {}
    for name, fold in folds.items():
        if name == "train":
            continue
        values, predictions = trainer.evaluate(model, fold)
        metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
        predicted[name] = (fold, task.truths(fold.targets), predictions)
    write_predictions(folder / "predictions.csv", list(predicted.values()), task.columns)
    record |= {
        "status": "finished",
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "metrics": metrics,
        "baselines": baselines(task, folds, record) if "test" in folds else {},
    }
    return RunResult(
        metrics=metrics,
        predictions={name: fold.by_id(values.tolist()) for name, (fold, _, values) in predicted.items()},
        score=progress.best_score,
        run_id=record["mlflow_run_id"],
        folder=folder,
    )


def baselines(task: Task, folds: Mapping[str, Fold], record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The baselines' metrics on the validation and the test fold."""
    pooled = {name: fold.pooled() for name, fold in folds.items()}
    truths = {name: task.truths(fold.targets) for name, fold in folds.items()}
    return fit_baselines(pooled, truths, task.metrics, record["task"], task.levels, task.finest)


def selected(record: Mapping[str, Any]) -> dict[str, float]:
    """The monitored metric of the selected weights on both folds."""
    metric = record["monitor"].partition("/")[2]
    return {f"{fold}/{metric}": record["metrics"][f"{fold}/{metric}"] for fold in ("valid", "test")}


def next_line(cfg: DictConfig, tracked: bool) -> str:
    """What to type after a run."""
    if not tracked:
        return f"all runs in one table: {report_command(cfg.paths.outputs)}"
    return f"browse it: {browse_command(cfg.paths.outputs, cfg.tracking.uri)}"


def make_trainer(
    cfg: DictConfig, fabric: Fabric, task: Task, folder: Path, generators: Mapping[str, torch.Generator]
) -> Trainer:
    """The trainer of a run."""
    options = {key: value for key, value in cfg.trainer.items() if key != "resume"}
    return Trainer(fabric, task, folder / "checkpoints", generators, **options)


def run_info(cfg: DictConfig, record: Mapping[str, Any], folder: Path) -> RunInfo:
    """What the tracker shows of a run."""
    tags = {key: record[key] for key in ("sweep", "trial", "seed", "dataset", "task", "planted")}
    return RunInfo(
        name=record["name"],
        folder=folder,
        parameters=flat_parameters(OmegaConf.to_container(cfg, resolve=True)),  # type: ignore[arg-type]
        tags=tags,
        commit=record["git"]["commit"],
        fingerprint=record["data"]["fingerprint"],
        environment=record["environment"],
    )
