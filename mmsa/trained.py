"""A trained run, loaded from its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from mmsa import build
from mmsa.analysis.comparison import TrainedRun
from mmsa.data.store import Store
from mmsa.record import RunRecord
from mmsa.run_folder import closed_to_trials, read_config
from mmsa.training.checkpoints import load_checkpoint

__all__ = ["TrainedRun", "load_run"]


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
    task.begin({name: values[store.folds == "train"] for name, values in store.targets.items()})
    if record.trial is not None:
        data = data.closed("test", closed_to_trials(str(folder), str(record.sweep)))
    model = build.build_model(cfg, data.widths, task, torch.Generator(), data.aligned, data.tables, data.max_steps)
    model.load_state_dict(load_checkpoint(folder / "checkpoints" / "best.pt")["model"])
    return TrainedRun(cfg, model.eval(), task, data, folder)
