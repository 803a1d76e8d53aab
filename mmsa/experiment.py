"""One run, from its configuration to its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from mmsa import build, learning
from mmsa.analysis.baselines import fit_baselines
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import run_of
from mmsa.analysis.tables import make_tables
from mmsa.data.batches import Data, Fold
from mmsa.data.naming import data_name
from mmsa.data.resident import near
from mmsa.data.store import FOLDS, Store
from mmsa.display import Display
from mmsa.errors import DataError
from mmsa.journal import Journal, TrialHooks, named_by_fold
from mmsa.lockstep import Member
from mmsa.model import Learner
from mmsa.overrides import without_secret
from mmsa.parts import check_node
from mmsa.provenance import source_of_multirun
from mmsa.record import RunRecord
from mmsa.repeating import repetition_of
from mmsa.resume import continued, overrides_of, own_store
from mmsa.run_folder import OF_THE_RUN, closed_to_trials, place_among_runs, read_rows
from mmsa.secrets import conceal
from mmsa.settling import track
from mmsa.stages import Task
from mmsa.training.graphs import MULTIPLE, graphs_for
from mmsa.training.ranks import other_ranks
from mmsa.training.schedules import Schedule
from mmsa.training.seeding import derived_seed, generator, initialisation
from mmsa.training.shares import Shares, check_shares
from mmsa.training.trainer import EpochCallback, Trainer, TrainingState


@dataclass(frozen=True)
class Original:
    """The run that a run repeats.

    Args:
        name: of its folder, or its absolute path where this run is not beside it.
        overrides: those that make its configuration.
        store: its data.
    """

    name: str
    overrides: Sequence[str]
    store: Store


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a run found.

    Args:
        metrics: of the selected weights, named fold/metric.
        predictions: per fold (valid, test), the prediction of every utterance by its id; a list for columns.
        score: the monitored value on the validation fold.
        run_id: MLflow's id, None where the run is not tracked.
        folder: the run's folder, which holds everything.
        same: of a run that repeats another, whether it has the same results, or some within the tolerance; None of
            any other, and where the repeated run is gone.
    """

    metrics: dict[str, float]
    predictions: dict[str, dict[str, Any]]
    score: float
    run_id: str | None
    folder: Path
    same: bool | None = None

    def __repr__(self) -> str:
        """Without the predictions, of which there are thousands."""
        held = " and ".join(f"{len(by_id):,} of {fold}" for fold, by_id in self.predictions.items())
        return (
            f"RunResult(score={self.score:.4f}, {len(self.metrics)} metrics, predictions: {held}, "
            f"folder={str(self.folder)!r})"
        )


def run(
    cfg: DictConfig,
    overrides: Sequence[str] = (),
    quiet: bool = False,
    trial: TrialHooks | None = None,
    repeats: Original | None = None,
    of_defaults: bool = False,
    member: Member | None = None,
) -> RunResult:
    """Prepare the data, train, select on the validation fold, evaluate once on the test fold, and keep everything.

    Args:
        cfg: the composed configuration.
        overrides: as typed, for the run's name.
        quiet: print nothing.
        trial: of a trial of a sweep, which reads the test fold only where it is final.
        repeats: the run that this one repeats, whose data and overrides it has; None of any other.
        of_defaults: the overrides make `cfg` of the defaults; False compares, and finds those that are lacking.
        member: its part among seeds that are asked for together; None of a run for itself.

    Raises:
        MmsaError: an error that the user can fix; the message says how.
        Pruned: the sweep ended the run.
    """
    cfg, overrides = conceal(cfg), list(map(without_secret, overrides))
    goes_on: list[str] = []
    own: Store | None = None
    if OmegaConf.select(cfg, "trainer.resume") is not None:
        cfg, goes_on = continued(cfg, overrides, of_trial=trial is not None)
        record = RunRecord.read(Path(cfg.trainer.resume))
        if record.status == "finished":
            return shown_again(cfg, record, Display(quiet))
        own = own_store(cfg, overrides)
    elif repeats is not None:
        overrides, own = list(repeats.overrides), repeats.store
    elif trial is None and not of_defaults:
        overrides = overrides_of(cfg, overrides)
    display = member.display if member else Display(quiet, place_among_runs())
    journal = Journal(cfg, overrides, display, trial, repeats.name if repeats else None, member)
    build.check(cfg)
    fabric = build.build_fabric(cfg)
    task = build.build_task(cfg)
    kept, of_data = member.kept if member else build.Kept(), [cfg.dataset, cfg.paths, cfg.encoder]
    if trial:
        store, data = trial.data(cfg)
    else:
        chosen = partial(source_of_multirun, Path(cfg.paths.outputs))
        store, data = kept("data", of_data, lambda: build.open_data(cfg, not quiet, chosen, own))
    for name in FOLDS:
        data.rows(name)  # refuses an empty test fold now, not after training
    if trial and not trial.final:
        data = data.closed("test", closed_to_trials(f"trial {trial.number}", trial.sweep))
    parts = prepared(cfg, task, data)
    train, valid, model = parts.train, parts.valid, parts.learner.model

    num_parameters = sum(p.numel() for p in model.parameters())
    with journal.kept(store, task, num_parameters, str(fabric.device)) as resumed:
        for line in goes_on:
            journal.display.say(line)
        repetition = repetition_of(journal.folder, journal.record, journal.display.say)
        say_what_is_read(journal, data, task, train, valid)
        hooks: dict[str, Any] = {"on_batch": journal.batch, "before_save": journal.check}
        if OmegaConf.select(cfg, "device.graphs") == "auto" and (  # older runs have no such option
            graphs := graphs_for(fabric, parts.learner, cfg.trainer.accumulate, journal.display.say)
        ):
            hooks["gradients"], train.multiple = graphs, MULTIPLE
        if member and member.together:
            hooks |= {"steps": member.steps, "outputs": member.outputs}
        with other_ranks(fabric, journal.folder, store.path):
            folds_near = kept("near", [*of_data, cfg.device], lambda: near(fabric.device, train, valid))
            trainer, fit, state = fitting(cfg, fabric, parts, folds_near, journal.folder, resumed, **hooks)
            with journal.training(state):
                fit(journal.epoch)
        journal.trained(trainer.ended(state))

        weights = trainer.restore_best(model)
        folds, baselines = [valid], {}
        if not trial or trial.final:
            folds.append(data.fold("test"))  # here and only here
            of_task, each = [*of_data, cfg.task], [train, *folds]
            baselines = kept("baselines", of_task, lambda: fit_beside(task, journal.record.task, each))
        scored = [(fold, *trainer.evaluate(model, fold)) for fold in folds]
        journal.finish(state, weights, task, scored, baselines)
    return RunResult(
        metrics=named_by_fold(scored),
        predictions={fold.name: fold.by_id(predictions.tolist()) for fold, _, predictions in scored},
        score=state.best_score,
        run_id=journal.record.mlflow_run_id,
        folder=journal.folder,
        same=repetition.compare() if repetition else None,
    )


@dataclass(frozen=True)
class Parts:
    """What a run trains, and what it trains it with."""

    task: Task
    generators: Mapping[str, torch.Generator]
    learner: Any
    optimizers: Mapping[str, Optimizer]
    schedule: Schedule | None
    train: Fold
    valid: Fold


def prepared(cfg: DictConfig, task: Task, data: Data) -> Parts:
    """The parts of a run, as they are before its first step.

    Raises:
        MmsaError: they do not suit each other, the data or the devices.
    """
    targets = data.targets("train")
    task.begin(targets)
    generators = {purpose: generator(cfg.seed, purpose) for purpose in ("order", "masks", "objective")}
    generators["places"] = generator(0, "places")  # of the lengths of an epoch's batches, the same for every seed
    with initialisation(cfg.seed):
        model = build.build_model(
            cfg, data.widths, task, generators["masks"], data.aligned, data.tables, data.max_steps
        )
        objective = learning.build_objective(cfg, model, task, generators["objective"])
    learning.check_needs(objective, [name for name in objective.needs if name not in targets])
    learner = Learner(model, objective)
    check_shares(cfg.device.devices, cfg.trainer.batch_size, learner, task)
    train, valid = data.fold("train"), data.fold("valid")  # not before what does not suit the data is refused
    objective.begin(len(train), {name: torch.from_numpy(values) for name, values in targets.items()})
    torch.manual_seed(derived_seed(cfg.seed, "dropout"))
    optimizers = learning.build_optimizers(cfg, learner)
    schedule = learning.build_schedule(cfg, optimizers["main"], task.mode, objective.phases, len(train))
    return Parts(task, generators, learner, optimizers, schedule, train, valid)


def fitting(
    cfg: DictConfig, fabric: Fabric, parts: Parts, folds: Sequence[Fold], folder: Path, resumed: bool, **hooks: Any
) -> tuple[Trainer, Callable[[EpochCallback], TrainingState], TrainingState]:
    """The trainer of a run in this process, its `fit` of these parts, and the progress from which that goes on.

    Args:
        cfg: the composed configuration.
        fabric: launched.
        parts: of the run.
        folds: to train on and to validate on, near the device.
        folder: of the run.
        resumed: from its last checkpoint.
        hooks: the trainer's, by name.
    """
    options = {key: value for key, value in cfg.trainer.items() if key not in OF_THE_RUN}
    if fabric.world_size > 1:
        hooks["gradients"] = Shares(cfg.seed).gradients
    trainer = Trainer(fabric, parts.task, folder / "checkpoints", parts.generators, **hooks, **options)
    learner, *ready = fabric.setup(parts.learner, *parts.optimizers.values())
    optimizers = dict(zip(parts.optimizers, ready, strict=True))
    state = trainer.restored(learner, optimizers, parts.schedule) if resumed else TrainingState()
    train, valid = folds
    fit = partial(trainer.fit, learner, optimizers, parts.schedule, train, valid, progress=state)
    return trainer, fit, state


def shown_again(cfg: DictConfig, record: RunRecord, display: Display) -> RunResult:
    """The result of a finished run, which its tracker gets where it lacks it."""
    check_node(cfg, "tracking")
    folder = Path(cfg.trainer.resume)
    display.say(f"{folder} is finished: nothing is left to train")
    display.say(rendered(make_tables([run_of(folder, record)]), "table"))
    track([folder], cfg, display.say, even_deleted=False)
    record = RunRecord.read(folder)
    repetition = repetition_of(folder, record, display.say)
    predictions: dict[str, dict[str, Any]] = {}
    try:
        for row in read_rows(folder / "predictions.csv"):
            columns = [float(value) for name, value in row.items() if name.startswith("prediction")]
            predictions.setdefault(row["fold"], {})[row["id"]] = columns[0] if len(columns) == 1 else columns
        score = record.metrics[record.monitor]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{folder} is not the folder of a finished run: it lacks {error}.\n  name another run"
        ) from error
    same = repetition.compare() if repetition else None
    return RunResult(dict(record.metrics), predictions, score, record.mlflow_run_id, folder, same)


def say_what_is_read(journal: Journal, data: Data, task: Task, train: Fold, valid: Fold) -> None:
    """The first line of a run, remarks on its data, the utterances that are cut, and the classes without an example."""
    record, say = journal.record, journal.display.say
    devices = journal.cfg.device.devices
    name = data_name(record.dataset, record.data.source)
    say(
        f"{journal.named}: {name}, {len(train)} train and {len(valid)} valid utterances, "
        f"{record.num_parameters:,} parameters, {record.environment['device']}"
        + (f", {devices} processes" if devices > 1 else "")
    )
    for remark in data.remarks:
        say(remark)
    if data.num_cut:
        say(f"dataset.max_length cuts {data.num_cut:,} of {len(data.store.ids):,} utterances")
    for modality in train.num_cut:
        if beyond := train.num_cut[modality] + valid.num_cut[modality]:
            say(f"encoder.{modality} cuts {beyond:,} utterances, which are longer than its transformer")
    if unlearnt := task.unlearnt(train.targets):
        say(f"no train utterance is of {', '.join(unlearnt)}: the model cannot learn to predict it")


def fit_beside(
    task: Task, kind: str, folds: Sequence[Fold], of_test: np.ndarray | slice = slice(None)
) -> dict[str, dict[str, float]]:
    """The baselines, fitted on the train fold, and their metrics on the others; `of_test` are its positions scored."""
    rows = {fold.name: of_test if fold.name == "test" else slice(None) for fold in folds}
    pooled = {fold.name: {m: means[rows[fold.name]] for m, means in fold.pooled().items()} for fold in folds}
    truths = {fold.name: task.truths(fold.targets)[rows[fold.name]] for fold in folds}
    return fit_baselines(pooled, truths, task.metrics, kind, task.levels, task.finest)
