"""Trained runs side by side on one fold: which may be compared, and what they predict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from mmsa.analysis.fold_lines import folds_text
from mmsa.analysis.runs import Group, Run, by_configuration, read_run, source_of, without_shared
from mmsa.data.batches import Data, Fold
from mmsa.data.naming import data_name
from mmsa.errors import DataError
from mmsa.model import MultimodalModel
from mmsa.stages import Task
from mmsa.training.trainer import evaluate

_DATA = "the data set (with its fingerprint and its folds)"
ROUNDING = 1e-6
"""Differences that another order of the same sums makes, such as on another device."""


@dataclass(frozen=True, repr=False)
class TrainedRun:
    """A model with its selected weights, on the CPU, and what it was trained on.

    Args:
        config: the run's resolved configuration.
        model: with the selected weights, in evaluation mode.
        task: the run's task.
        data: the run's data.
        folder: the run's folder.
    """

    config: DictConfig
    model: MultimodalModel
    task: Task
    data: Data
    folder: Path

    def __repr__(self) -> str:
        """Without the configuration and the modules."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"TrainedRun({self.data.store.title}, {parameters:,} parameters, folder={str(self.folder)!r})"

    def evaluate(self, fold: str = "valid") -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics of a fold, and the prediction of every utterance by its id."""
        utterances = self.data.fold(fold)
        batch_size = self.config.trainer.batch_size
        metrics, predictions = evaluate(self.model, self.task, utterances, batch_size, torch.device("cpu"))
        return metrics, utterances.by_id(predictions.tolist())


def comparable_groups(folders: Iterable[Path]) -> list[Group]:
    """The runs of these folders, grouped as in result tables, in the order in which the folders are named.

    Runs that differ in nothing but the seed are a group; of two with the same seed the newest counts. Labels lack the
    overrides that all groups share; one without others is `defaults`.

    Args:
        folders: of finished runs.

    Raises:
        DataError: a folder does not hold a finished run, or two runs predict different things: other data, task,
            target or classes.
    """
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        ours, theirs = _predicted(runs[0]), _predicted(run)
        if differ := [name for name in ours if ours[name] != theirs[name]]:
            of_one_part = f"type dataset.held_out={runs[0].data.held_out} beside them"
            others = runs[0].data.parts == run.data.parts and runs[0].data.held_out != run.data.held_out
            raise DataError(
                f"runs that are evaluated side by side need the same data and task, but {differ[0]} is\n"
                f"  {_said(runs[0], differ[0])} in {runs[0].folder}\n  {_said(run, differ[0])} in {run.folder}\n"
                f"  {of_one_part if others else 'name runs of one kind only'}"
            )
    place = {run.folder: position for position, run in reversed(list(enumerate(runs)))}
    groups = sorted(by_configuration(runs), key=lambda group: min(place[run.folder] for run in group.runs))
    return without_shared(groups)[1]


def about(groups: Sequence[Group], fold: str) -> dict[str, Any]:
    """What a file of findings says first: the data of these groups, and the fold."""
    first = groups[0].runs[0]
    source = source_of(run for group in groups for run in group.runs)
    data = {"dataset": first.dataset, "source": source, "fingerprint": first.data.fingerprint}
    return {**data, "planted": first.planted, "fold": fold}


def evaluated(run: TrainedRun, model: nn.Module, fold: Fold) -> dict[str, float]:
    """Metrics of a fold, as the run itself computes them, of its model or of one that wraps it."""
    return evaluate(model, run.task, fold, int(run.config.trainer.batch_size), torch.device("cpu"))[0]


def agreement(recorded: Run, fold: str, metrics: Mapping[str, float]) -> str:
    """Whether metrics of a fold are those that the run's result.json holds, in words; "equal" means to the last bit."""
    known = {name: recorded.metrics[f"{fold}/{name}"] for name in metrics if f"{fold}/{name}" in recorded.metrics}
    if not known:
        return f"result.json has no metric of the {fold} fold"
    found = {name: metrics[name] for name in known}
    if all(found[name] == known[name] or (math.isnan(found[name]) and math.isnan(known[name])) for name in known):
        return "equal to result.json"
    far = {name: abs(found[name] - known[name]) for name in known}
    worst = max(far, key=lambda name: math.inf if math.isnan(far[name]) else far[name])
    if far[worst] <= ROUNDING:
        return f"equal to result.json up to rounding ({far[worst]:.0e} in {worst})"
    return f"differs from result.json, most in {worst}: {found[worst]:.6g} here, {known[worst]:.6g} there"


def _said(run: Run, what: str) -> str:
    """The property of a run in which it differs from another, in words."""
    if what == _DATA:
        own = f", {folds_text([run], run.fold)}" if run.data.parts else ""
        return f"{data_name(run.dataset, run.data.source)}{own}, data {run.data.fingerprint}"
    return _predicted(run)[what]


def _predicted(run: Run) -> dict[str, str]:
    """What two runs must share."""
    options = {key: run.configuration.get(key, "none") for key in ("task.target", "task.kind", "task.thresholds")}
    data = f"{run.dataset} {run.data.fingerprint} {run.data.parts} {run.data.held_out}"
    return {_DATA: data, "the task": run.task, **options}
