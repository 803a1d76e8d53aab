"""A trained run, loaded from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from mmsa import build
from mmsa.analysis.comparison import TrainedRun
from mmsa.compose import compose
from mmsa.data.store import Store
from mmsa.errors import DataError
from mmsa.parts import check_nodes
from mmsa.record import DataRecord, RunRecord
from mmsa.run_folder import closed_to_trials, read_config
from mmsa.training.checkpoints import restore_weights

__all__ = ["TrainedRun", "load_run"]


def load_run(folder: Path, stores: Path | None = None) -> TrainedRun:
    """Load a run from its folder; to the trial of a search the test fold is closed.

    Args:
        folder: the run's folder.
        stores: a folder of stores to look into first; None looks only where `find_store` does.

    Raises:
        DataError: the folder is not a run's, or its store is not found.
        ConfigError: its configuration has other than parts and values, or parts of a package that is not admitted.
    """
    record = RunRecord.read(folder)
    cfg = read_config(folder)
    check_nodes(cfg)
    store = find_store(record.data, _places(folder, record.data, cfg.paths.data, stores))
    dataset = build.build_dataset(cfg, store)
    task, data = build.build_task(cfg, dataset), build.load_data(cfg, dataset, store)
    task.begin({name: values[store.folds == "train"] for name, values in store.targets.items()})
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


def find_store(record: DataRecord, places: Iterator[Path]) -> Store:
    """The store that a run read, known by its fingerprint: people move folders, and a path tells only where it was.

    Args:
        record: what the run says of its store.
        places: folders of stores.

    Raises:
        DataError: it is in none of them nor where it was, or it is damaged.
    """
    refusals, asked = [], []
    for place in places:
        asked.append(str(place))
        for path in sorted(place.glob(f"*-{record.fingerprint}.h5")):
            try:
                store = Store.open(path)
            except DataError as error:  # a whole copy may lie elsewhere
                refusals.append(error)
                continue
            if store.fingerprint == record.fingerprint:
                return store
    if refusals:
        raise refusals[0]
    raise DataError(
        f"No store {record.fingerprint}, which the run was trained on, in {', '.join(dict.fromkeys(asked))}.\n"
        "  type the same with --data FOLDER, where the store lies (in Python: mmsa.load(RUN, data=FOLDER))"
    )


def _places(folder: Path, record: DataRecord, of_run: str, named: Path | None) -> Iterator[Path]:
    """Where a run's store may lie: where it is said to, beside the run, where it was, and where stores are today."""
    if named is not None:
        yield named
    yield folder.resolve().parent.parent / "data"
    yield Path(record.store).parent
    yield Path(of_run)
    yield Path(compose().paths.data)
