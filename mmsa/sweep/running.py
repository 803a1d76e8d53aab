"""Running one trial: its configuration, its seeds, and its early end."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner, WilcoxonPruner
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from mmsa import build, experiment
from mmsa.compose import Composer
from mmsa.data.batches import Data
from mmsa.data.store import Store
from mmsa.display import Display
from mmsa.errors import DataError, MmsaError, Pruned, TrainingError
from mmsa.journal import TrialHooks
from mmsa.lockstep import Lockstep, Member
from mmsa.overrides import text_override, typed_overrides
from mmsa.record import Packing, RunRecord
from mmsa.seeds import why_apart
from mmsa.settling import replace
from mmsa.sweep.lasting import StorageAway, at_once
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.space import Space, overrides_of
from mmsa.sweep.summary import seed_scores

WILCOXON_P = 0.13
"""Below it a trial's seeds are behind those of the best: three worse ones of three have 0.125."""
REPORT_PAUSE = 30.0
"""Seconds for which a trial reports no epoch to a storage that did not answer; it reports the missed ones later."""
APART = "seeds apart"
"""Attribute of a study: why seeds that were to train together did not, as their first joint step showed."""


def make_pruner(name: str, min_epochs: int) -> BasePruner:
    """Optuna's pruner of epochs.

    Args:
        name: none, median or halving.
        min_epochs: epochs that every trial gets, >= 1.
    """
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=min_epochs)
    if name == "halving":
        return SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=3)
    return NopPruner()


@dataclass
class TrialRunner:
    """Runs the trials of a worker.

    Args:
        spec: the sweep.
        space: its dimensions.
        study: the study, with its pruner.
        check: raises Disowned where a trial is no longer this worker's; called before anything of it is written.
    """

    spec: SweepSpec
    space: Space
    study: optuna.Study
    check: Callable[[Trial], None]

    def __post_init__(self) -> None:
        self._compose = Composer(self.spec.config_folders)
        self._kept = build.Kept()
        self._runs = Path(self.spec.folder).parent.parent / "runs"

    def run(self, trial: Trial, member: Member | None = None) -> list[float]:
        """Run every seed of a trial and return its objectives.

        Args:
            trial: the trial.
            member: its part among trials of a grid that train together; None of a trial for itself.

        Raises:
            Pruned: the trial has fallen behind.
            TrainingError: an objective is not finite.
        """
        varying = overrides_of(self.space, trial.params)
        trial.set_user_attr("overrides", typed_overrides(varying))
        members: dict[int | None, Member | None] = {None: member}
        if not self.spec.options["final"]:
            members = self._members(trial, varying)
        values: list[list[float]] = []
        found: dict[int | None, list[float]] = {}
        for seed, part in members.items():
            if seed is not None and seed not in found and part is not None and part.together:
                found = self._together(trial, varying, members)
            values.append(found.get(seed) or self._seed(trial, varying, seed, watched=not values, member=part))
            if len(values) < len(members) and len(self.spec.objectives) == 1:
                self._compare_seeds(trial, [value[0] for value in values])
        by_objective = zip(*values, strict=True)
        return [self._objective(list(found), mode) for found, mode in zip(by_objective, self.spec.modes, strict=True)]

    def train_together(self, trial: Trial, number: int) -> bool:
        """Whether this number of points of a grid train together, which differ from a trial's in their seed alone."""
        if "seed" not in self.space.distributions:
            return False
        try:
            cfg = self._compose(self._overrides(overrides_of(self.space, trial.params), None))
            return cfg.device.pack_seeds == "auto" and not why_apart_in_trials(self.spec, cfg, number)
        except MmsaError:  # its own run says why
            return False

    def epochs_of(self, trial: FrozenTrial) -> int:
        """How many epochs the runs of a trial have behind them, those of all seeds together."""
        histories = [
            self._runs / Path(run["folder"]).name / "history.csv" for run in trial.user_attrs.get("seeds", {}).values()
        ]
        return sum(len(history.read_text().splitlines()) - 1 for history in histories if history.is_file())

    def _members(self, trial: Trial, varying: Sequence[str]) -> dict[int | None, Member | None]:
        """The seeds of a trial, each with its part in joint steps; None of one that a dead worker has begun.

        The first seed trains alone where a pruner watches it: most trials that end early end there.
        """
        first, pruner = self.spec.seed, self.spec.options["pruner"]
        seeds = range(first, first + self.spec.options["seeds"])
        cfg = self._compose(self._overrides(varying, first)) if len(seeds) > 1 else None
        if cfg is None or cfg.device.pack_seeds == "off":
            return dict.fromkeys(seeds)
        fresh = [seed for seed in seeds if self._left(trial, str(seed))[1] is None]
        joint = [seed for seed in fresh if seed != first or pruner == "none"]
        reason = why_apart_in_trials(self.spec, cfg, len(joint))
        alone = Packing(reason=reason or f"sweep.pruner={pruner} watches the first seed")
        forms = dict.fromkeys(fresh, alone) | dict.fromkeys(joint, alone if reason else Packing(seeds=tuple(joint)))
        return {seed: Member(Display(quiet=True), forms[seed]) if seed in forms else None for seed in seeds}

    def _together(
        self, trial: Trial, varying: Sequence[str], members: Mapping[int | None, Member | None]
    ) -> dict[int | None, list[float]]:
        """The objectives of the seeds that train together."""
        joint = {seed: member for seed, member in members.items() if member is not None and member.together}
        bodies = [partial(self._seed, trial, varying, seed, False, member) for seed, member in joint.items()]
        return dict(zip(joint, Lockstep([*joint.values()], bodies, self.note_apart).run(), strict=True))

    def note_apart(self, line: str) -> None:
        """Keep for the sweep's display why seeds train one after the other."""
        with suppress(StorageAway), at_once():  # the next trial finds it too
            self.study.set_user_attr(APART, line)

    def _overrides(self, varying: Sequence[str], seed: int | None) -> list[str]:
        return [*self.space.fixed, *varying, *([f"seed={seed}"] if seed is not None else [])]

    def _left(self, trial: Trial, key: str) -> tuple[Path | None, RunRecord | None]:
        """The folder of the run that a dead worker left of a seed, and its record where it need not begin anew."""
        run = trial.user_attrs.get("seeds", {}).get(key)
        former = self._runs / Path(run["folder"]).name if run else None  # absolute in older studies
        record = former_record(former) if former else None
        if former is not None and record is not None and record.status not in ("finished", "pruned"):
            whole = "seconds" in self.spec.objectives  # what a dead worker took is not known
            record = None if whole or not (former / "checkpoints" / "last.pt").is_file() else record
        return former, record

    def _seed(
        self, trial: Trial, varying: Sequence[str], seed: int | None, watched: bool, member: Member | None
    ) -> list[float]:
        """The objectives of one run, which resumes where a dead worker left it."""
        key = str(seed) if seed is not None else "run"
        former, record = self._left(trial, key)
        if record is not None and record.status == "pruned":  # its worker died before it could tell
            raise Pruned(record.reason)
        if record is None or record.status != "finished":
            resumed = [text_override("trainer.resume", str(former))] if record is not None else []
            if former is not None and record is None:
                replace(former)
            self._run(trial, self._overrides(varying, seed), resumed, key, watched, member)
            record = RunRecord.read(self._runs / trial.user_attrs["seeds"][key]["folder"])
        known = {**record.metrics, "num_parameters": record.num_parameters, "seconds": record.seconds}
        found = [known.get(name) for name in self.spec.objectives]
        if any(value is None or not math.isfinite(value) for value in found):
            shown = ", ".join(f"{n} is {v}" for n, v in zip(self.spec.objectives, found, strict=True))
            raise TrainingError(f"an objective is not finite: {shown}.")
        runs: dict[str, Any] = dict(trial.user_attrs.get("seeds", {}))
        self.check(trial)
        known_of = {"score": found[0], "epochs": record.epochs, "seconds": record.seconds}
        runs[key] = {**runs[key], **known_of, "run_id": record.mlflow_run_id}
        trial.set_user_attr("seeds", runs)
        return [float(value) for value in found if value is not None]

    def _run(
        self,
        trial: Trial,
        overrides: list[str],
        resumed: list[str],
        key: str,
        watched: bool,
        member: Member | None,
    ) -> None:
        cfg = self._compose([*overrides, *resumed])

        def started(folder: Path) -> None:
            trial.set_user_attr("seeds", {**trial.user_attrs.get("seeds", {}), key: {"folder": folder.name}})

        reported = trial._get_latest_trial().intermediate_values  # to which `report` adds
        objective = self.spec.objectives[0]

        not_before = 0.0

        def epoch(history: Sequence[Mapping[str, float]]) -> None:
            nonlocal not_before
            if not watched or isinstance(self.study.pruner, NopPruner) or time.monotonic() < not_before:
                return
            for number, metrics in enumerate(history, start=1):  # those too that a dead worker did not report
                if number in reported or objective not in metrics:
                    continue
                try:
                    with at_once():
                        trial.report(metrics[objective], number)
                        behind = trial.should_prune()
                except StorageAway:  # training continues meanwhile
                    not_before = time.monotonic() + REPORT_PAUSE
                    return
                if behind:
                    raise Pruned(f"epoch {number} with {objective} {metrics[objective]:.4g}: behind the other trials")

        final = self.spec.options["final"]
        check = partial(self.check, trial)
        hooks = TrialHooks(self.spec.study, trial.number, final, started, epoch, self._data, check)
        experiment.run(cfg, typed_overrides(overrides), quiet=True, trial=hooks, member=member)

    def _data(self, cfg: DictConfig) -> tuple[Store, Data]:
        """The data of a configuration; those of the last one are kept, as the trials of a sweep mostly share them."""
        nodes = [cfg.dataset, cfg.paths, *([cfg.encoder] if build.tokenizers(cfg, build.build_dataset(cfg)) else [])]
        found: tuple[Store, Data] = self._kept(
            "data", nodes, lambda: build.open_data(cfg, chosen=lambda name: self.spec.sources.get(name, {}))
        )
        return found

    def _compare_seeds(self, trial: Trial, scores: list[float]) -> None:
        """End a trial whose seeds are behind the same seeds of the best trial, by Optuna's Wilcoxon pruner.

        The pruner sees a study of its own, in which seeds stand where epochs stand in the true one, so that it and the
        pruner of epochs, which watches the first seed only, do not take one for the other.
        """
        if isinstance(self.study.pruner, NopPruner):
            return
        if not self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return
        best = self.study.best_trial
        former = seed_scores(best)
        pruner = WilcoxonPruner(p_threshold=WILCOXON_P)
        seeds = optuna.create_study(direction=self.study.direction, pruner=pruner)
        seeds.add_trial(create_trial(value=statistics.fmean(former), intermediate_values=dict(enumerate(former))))
        running = seeds.ask()
        for number, score in enumerate(scores):
            running.report(score, number)
        if running.should_prune():
            raise Pruned(f"after {len(scores)} seeds: behind the same seeds of trial {best.number}")

    def _objective(self, values: list[float], mode: str) -> float:
        """The mean over seeds, or the bound that it keeps."""
        mean = statistics.fmean(values)
        confidence = self.spec.options["confidence"]
        if confidence is None:
            return mean
        from scipy.stats import t

        margin = float(t.ppf(confidence, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        return mean + margin if mode == "min" else mean - margin


def why_apart_in_trials(spec: SweepSpec, cfg: DictConfig, num_seeds: int) -> str | None:
    """Why seeds of a sweep train one after the other, as far as it shows; None: in joint steps.

    Args:
        spec: the sweep.
        cfg: the configuration of a trial.
        num_seeds: those that nothing else keeps apart.
    """
    if spec.options["final"] and spec.options["trial_minutes"] is not None:
        return "sweep.trial_minutes is of one trial at a time"
    if spec.options["final"] and spec.options["retries"] == 0:
        return "with sweep.retries=0 the death of one would fail all"
    if "seconds" in spec.objectives:
        return "sweep.objectives has seconds, and joint steps take those of all"
    return why_apart(cfg, num_seeds)


def former_record(folder: Path) -> RunRecord | None:
    """The record of an earlier run; None where it has no result."""
    try:
        return RunRecord.read(folder)
    except DataError:
        return None
