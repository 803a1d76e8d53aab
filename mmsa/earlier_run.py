"""An earlier run: whether it has finished, and the store that it was trained on, wherever that lies today."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from omegaconf import OmegaConf

from mmsa.analysis.runs import Run
from mmsa.commands import report_command, train_command
from mmsa.compose import compose, typed_config_folders
from mmsa.data.store import Store
from mmsa.dataset.choice import from_here
from mmsa.errors import ConfigError, DataError
from mmsa.record import DataRecord, RunRecord
from mmsa.run_folder import read_config


def check_finished(folder: Path, record: RunRecord, purpose: str) -> None:
    """Refuse a run without a model, or without a result on the test fold.

    Args:
        folder: of the run.
        record: its.
        purpose: of the model, such as "to pack".

    Raises:
        MmsaError: it is an import, a trial of a search, or has not finished; the message says what to type.
    """
    record.check_model(folder, purpose)
    if record.trial is not None:
        outputs = from_here(str(folder.absolute().parent.parent))
        raise ConfigError(
            f"{folder} is a trial of the search {record.sweep}, which never reads the test fold.\n"
            f"  type {report_command(outputs, record.sweep)}, which prints the command that trains its best one"
        )
    if record.status == "running":
        raise ConfigError(f"{folder} is under way: a finished run is needed.\n  wait until it has ended")
    if record.status != "finished":
        way = f"{train_command([f'trainer.resume={folder}'])} to finish it, and then the same command"
        if not (folder / "checkpoints" / "last.pt").is_file():
            way = f"{train_command(record.overrides)} to train it anew"
        raise ConfigError(f"{folder} is {record.status}: a finished run is needed.\n  type {way}")


def check_parts(folder: Path, record: DataRecord, store: Store) -> None:
    """Refuse to read a run's data in other folds than its own.

    Raises:
        DataError: its configuration or its videos were changed, or another version of mmsa makes other parts.
    """
    theirs = (record.num_folds, record.held_out, record.parts)
    parts = store.parts
    if theirs != ((parts.num_folds, parts.held_out, parts.hash) if parts else (None, None, None)):
        own, ours = (f"{hashed or 'the folds of the source'}" for hashed in (record.parts, parts and parts.hash))
        raise DataError(
            f"{folder}: the run was trained with dataset.held_out={record.held_out} of parts {own}, and now the same "
            f"data have dataset.held_out={parts and parts.held_out} of parts {ours}.\n"
            "  restore its config.yaml, or use the version of mmsa that trained it"
        )


def store_of(run: Run, stores: Path | None = None) -> Store:
    """The store that a finished run was trained on.

    Args:
        run: the run.
        stores: a folder of stores to look into first.

    Raises:
        DataError: it is not found.
    """
    of_run = OmegaConf.select(read_config(run.folder), "paths.data", default=".")
    return find_store(run.folder, run.data, of_run, stores)


def find_store(folder: Path, record: DataRecord, of_run: str, named: Path | None = None) -> Store:
    """The store that a run read, known by its fingerprint: people move folders, and a path names only the former place.

    Args:
        folder: of the run.
        record: of the run's store.
        of_run: the run's paths.data.
        named: a folder of stores to look into first.

    Raises:
        DataError: it is in none of them nor where it was, or it is damaged.
    """
    refusals, asked = [], []
    for place in _places(folder, record, of_run, named):
        asked.append(str(place))
        for path in _stores(place, record.fingerprint):
            try:
                store = Store.open(path)
            except DataError as error:  # a whole copy may lie elsewhere
                refusals.append(error)
                continue
            if store.fingerprint == record.fingerprint:
                return store
    if refusals:
        raise refusals[0]
    of = f" of {record.source}" if record.source else ""
    raise DataError(
        f"No store {record.fingerprint}{of}, which the run was trained on, in {', '.join(dict.fromkeys(asked))}.\n"
        "  type --data FOLDER with the folder of the store (in Python: mmsa.load(RUN, data=FOLDER))"
    )


def _stores(place: Path, fingerprint: str) -> list[Path]:
    """The files in a folder that are named as a store of this fingerprint; none where there is no such folder."""
    with suppress(OSError, ValueError):
        return sorted(place.glob(f"*-{fingerprint}.h5"))
    return []


def _places(folder: Path, record: DataRecord, of_run: str, named: Path | None) -> Iterator[Path]:
    """The places of a run's store: the named folder, beside the run, where it was, and where stores are today."""
    if named is not None:
        yield named
    yield folder.resolve().parent.parent / "data"
    yield Path(record.store).parent
    yield Path(of_run)
    yield Path(compose([], typed_config_folders()).paths.data)
