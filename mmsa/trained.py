"""A trained run, loaded from its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from mmsa import build
from mmsa.analysis.comparison import TrainedRun
from mmsa.earlier_run import check_parts, find_store
from mmsa.errors import DataError
from mmsa.parts import check_nodes
from mmsa.record import RunRecord
from mmsa.run_folder import closed_to_trials, read_config
from mmsa.training.checkpoints import restore_weights

__all__ = ["TrainedRun", "load_run"]


def load_run(folder: Path, stores: Path | None = None) -> TrainedRun:
    """Load a run from its folder; to the trial of a search the test fold is closed.

    Args:
        folder: the run's folder.
        stores: a folder of stores to look into first; None looks only where `find_store` does.

    Raises:
        DataError: the folder is not a run's or an import's, or its store is not found.
        ConfigError: its configuration has other than parts and values, or parts of a package that is not admitted.
    """
    record = RunRecord.read(folder)
    record.check_model(folder, "to load")
    cfg = read_config(folder)
    check_nodes(cfg)
    store = find_store(folder, record.data, cfg.paths.data, stores)
    dataset = build.build_dataset(cfg, store)
    task, data = build.build_task(cfg, dataset), build.load_data(cfg, dataset, store)
    check_parts(folder, record.data, data.store)
    task.begin({name: values[data.store.folds == "train"] for name, values in store.targets.items()})
    if record.trial is not None:
        data = data.closed("test", closed_to_trials(str(folder), str(record.sweep)))
    model = build.build_model(cfg, data.widths, task, torch.Generator(), data.aligned, data.tables, data.max_steps)
    path = folder / "checkpoints" / "best.pt"
    if restore_weights(path, model) != record.weights and record.weights is not None:
        raise DataError(
            f"{path} holds other weights than those the run ended with, whose metrics are in its result.json.\n"
            "  name another run, or copy the folder again from where it was made"
        )
    return TrainedRun(cfg, model.eval(), task, data, folder)
