"""A trained run, loaded from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from mmsa import build
from mmsa.data.batches import Data
from mmsa.data.store import Store
from mmsa.model import MultimodalModel
from mmsa.record import RunRecord
from mmsa.run_folder import closed_to_trials, read_config
from mmsa.stages import Task
from mmsa.training.checkpoints import load_checkpoint
from mmsa.training.trainer import evaluate


@dataclass(frozen=True)
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

    def evaluate(self, fold: str = "valid") -> tuple[dict[str, float], dict[str, Any]]:
        """Metrics of a fold, and the prediction of every utterance by its id."""
        utterances = self.data.fold(fold)
        batch_size = self.config.trainer.batch_size
        metrics, predictions = evaluate(self.model, self.task, utterances, batch_size, torch.device("cpu"))
        return metrics, utterances.by_id(predictions.tolist())


def load_run(folder: Path) -> TrainedRun:
    """Load a run from its folder; to the trial of a search the test fold is closed.

    Raises:
        DataError: the folder is not a run's, or its store is no longer there.
    """
    record = RunRecord.read(folder)
    cfg = read_config(folder)
    store = Store.open(Path(record.data.store))
    dataset = build.build_dataset(cfg, store)
    task, data = build.build_task(cfg, dataset), build.load_data(cfg, dataset, store)
    if record.trial is not None:
        data = data.closed("test", closed_to_trials(str(folder), str(record.sweep)))
    model = build.build_model(cfg, data.widths, task, torch.Generator(), data.aligned, data.tables, data.max_steps)
    model.load_state_dict(load_checkpoint(folder / "checkpoints" / "best.pt")["model"])
    return TrainedRun(cfg, model.eval(), task, data, folder)
