"""`mmsa rerun`: a run again from its folder, and whether it comes to the same results."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from mmsa import build, experiment
from mmsa.analysis.repetition import Results
from mmsa.commands import quoted, train_command
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.data.own_folds import own_folds
from mmsa.data.store import Store
from mmsa.dataset.choice import from_here
from mmsa.earlier_run import check_finished, check_parts, find_store
from mmsa.errors import ConfigError, DataError
from mmsa.parts import check_nodes, target_of
from mmsa.process import left_as_it_was
from mmsa.program import program
from mmsa.record import RunRecord
from mmsa.run_folder import override_key, read_config


@left_as_it_was()
def rerun(folder: Path, stores: Path | None = None) -> bool:
    """Train a finished run again, in a folder of its own, and compare the results.

    Args:
        folder: of the run, which anybody may have made; it stays as it is.
        stores: a folder of stores to look into first.

    Returns:
        Whether the results are equal, or within the tolerance that docs/metrics.md states.

    Raises:
        MmsaError: the run cannot be repeated, or not here; the message says how.
    """
    record = RunRecord.read(folder)
    check_finished(folder, record, "to train again")
    cfg = read_config(folder)
    check_nodes(cfg)
    _check_device(cfg, folder, record)
    store = _store(folder, record, cfg, stores)
    Results.read(folder)  # refuses a damaged folder now, not after training
    former = os.path.abspath(folder)
    name = os.path.basename(former) if _place(cfg, folder, store) else former
    original = experiment.Original(name, record.overrides, store)
    return bool(experiment.run(cfg, repeats=original).same)


def _check_device(cfg: DictConfig, folder: Path, record: RunRecord) -> None:
    """Refuse a run of a device that is not here."""
    try:
        build.build_fabric(cfg)
    except ConfigError as error:
        fewer = str(error).startswith("device.devices=")
        here = train_command([*record.overrides, "device.devices=1" if fewer else "device=cpu"])
        raise ConfigError(
            f"{folder}: {str(error).splitlines()[0]}\n"
            f"  run it again on a machine that has one, or type {here} for a new run on this one"
        ) from None


def _store(folder: Path, record: RunRecord, cfg: DictConfig, stores: Path | None) -> Store:
    """Its data, which have to be those of then."""
    try:
        store = find_store(folder, record.data, cfg.paths.data, stores)
    except DataError as error:
        again = _prepare_line(record, cfg)
        raise DataError(f"{error}\n  or type {again} to make it again" if again else str(error)) from None
    loading = build.build_dataset(cfg, store).loading
    check_parts(folder, record.data, own_folds(store, loading.num_folds, loading.held_out))
    return store


def _prepare_line(record: RunRecord, cfg: DictConfig) -> str | None:
    """The command that makes a run's store again, of a source that the user has; None of a data set of another's."""
    name = target_of(cfg, "dataset").name
    if not (conf_folder() / "dataset" / f"{name}.yaml").is_file():
        return None
    words = [program("mmsa"), "prepare", name, *(["--source", "FILE_OR_FOLDER"] if record.data.source else [])]
    words += ["--glove", "FILE"] if cfg.dataset.get("glove") else []
    left_out = ("dataset.source", "dataset.glove", "dataset.doctor")
    typed = [one for one in record.overrides if one.startswith("dataset.") and override_key(one) not in left_out]
    return " ".join([*words, *map(quoted, typed)])


def _place(cfg: DictConfig, folder: Path, store: Store) -> bool:
    """Let a configuration make a new run beside the former one, or in today's outputs where that cannot be written to.

    It reads that store, and is tracked where the outputs are: nothing is sent to an address that a folder names.

    Returns:
        Whether it is beside the former one.
    """
    beside = folder.absolute().parent
    writable = beside.name == "runs" and os.access(beside, os.W_OK)
    cfg.paths.outputs = from_here(str(beside.parent)) if writable else compose().paths.outputs
    cfg.paths.data = str(store.path.parent)
    cfg.trainer.resume = None
    if cfg.dataset.get("source"):  # whose file may have changed
        cfg.dataset.source = str(store.path)
    if cfg.tracking.get("uri"):
        cfg.tracking.uri = None
    return writable
