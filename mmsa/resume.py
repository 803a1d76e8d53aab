"""Opening the folder of a run: a new one, or that of a resumed run with its own configuration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmsa.commands import train_command
from mmsa.compose import compose, typed_config_folders
from mmsa.config import conf_folder
from mmsa.data.naming import data_name
from mmsa.data.store import Store
from mmsa.earlier_run import check_parts, find_store
from mmsa.errors import ConfigError, DataError
from mmsa.files import clear_leftovers, keep_room
from mmsa.locks import Lock
from mmsa.occupancy import check_free, new_folder, take
from mmsa.overrides import MODALITIES, option_content
from mmsa.parts import check_nodes
from mmsa.record import RunRecord
from mmsa.run_folder import (
    OF_THE_RUN,
    check_own,
    flat_parameters,
    is_hidden,
    override_key,
    read_config,
    value_text,
    write_json,
    write_text,
)
from mmsa.secrets import as_stored, conceal

FREE_ON_RESUME = (
    "trainer.max_epochs",
    "trainer.patience",
    "device.devices",
    *(f"trainer.{option}" for option in OF_THE_RUN),
    "dataset.source",
    "dataset.glove",
    "dataset.doctor",
    "tracking",
    "paths",
    "name",
)
"""Options, or whole groups, that may differ when a run resumes."""
_NUM_NAMED = 3


def continued(cfg: DictConfig, overrides: Sequence[str], of_trial: bool = False) -> tuple[DictConfig, list[str]]:
    """The configuration of the resumed run of `trainer.resume`: its own, with the overrides typed beside it.

    Args:
        cfg: composed of the overrides.
        overrides: as typed; all of a trial's, of another run those to change.
        of_trial: a sweep runs it, which alone resumes the runs of its trials.

    Returns:
        The configuration, and lines that name the changed overrides and the later changes of the option files.

    Raises:
        ConfigError: the run cannot resume, or an override would change its result.
        DataError: the folder is not a run's, an import's, or has a link in it.
    """
    folder = Path(cfg.trainer.resume)
    record = RunRecord.read(folder)
    record.check_model(folder, "to train further")
    former = read_config(folder)
    typed = {override_key(override) for override in overrides}
    _check_unfinished(record, folder, of_trial, typed)
    check_own(folder)
    if not of_trial:
        check_free(folder)
    check_nodes(former)
    started, changed, known = cfg, cfg, not of_trial
    if known:
        kept = [override for override in record.overrides if override_key(override) not in typed]
        try:
            started, changed = _composed(record.overrides), _composed([*kept, *overrides])
        except ConfigError:  # options of a folder that was not named, say: only the typed ones can be read
            started, known = _composed([]), False
    then, before, now = (_texts(config) for config in (former, started, changed))
    differ = {key for key in before | now if before.get(key) != now.get(key)}
    asked = differ | {key for key in map(override_key, overrides) if key in now}
    asked = {key for key in asked if now.get(key) != then.get(key)} - {"trainer.resume"}
    if refused := sorted(key for key in asked if not _free(key)):
        key = refused[0]
        raise ConfigError(
            f"trainer.resume={folder}: {key}={now.get(key)} here, but the run has {then.get(key)}"
            + (f", and {len(refused) - 1} more differ" if len(refused) > 1 else "")
            + f".\n  type {key}={then.get(key)} or leave it out, or leave trainer.resume out to start a new run"
        )
    for free in FREE_ON_RESUME:
        if any(f"{key}.".startswith(f"{free}.") for key in asked):
            OmegaConf.update(former, free, OmegaConf.select(changed, free), merge=False, force_add=True)
    former.trainer.resume = str(folder)
    if not of_trial and "paths.outputs" not in typed:
        _outputs_here(former, folder)
    since = {key for key in before | then if before.get(key) != then.get(key) and not _free(key)}
    lines = [f"changed: {_named(asked, now, then, 'was')}"] if asked else []
    if since and known:
        recipe = [o for o in record.overrides if o.startswith("experiment=")][-1:] or ["the option files"]
        lines.append(
            f"{recipe[0]}: changed since the run was started, which keeps its own: {_named(since, then, before, 'now')}"
        )
    return conceal(former), lines


def _outputs_here(config: DictConfig, folder: Path) -> None:
    """A run that lies elsewhere than its configuration says, seen from here, goes on in the outputs where it lies."""
    former, place = Path(config.paths.outputs), folder.absolute().parents[1]
    if (former / "runs" / folder.name).exists() or folder.absolute().parent.name != "runs":
        return
    data = Path(config.paths.data)
    if data.is_relative_to(former):
        config.paths.data = str(place / data.relative_to(former))
    config.paths.outputs = str(place)


def _check_unfinished(record: RunRecord, folder: Path, of_trial: bool, typed: set[str]) -> None:
    """Refuse to train a trial of a search by itself, and a finished run further; it may be shown, also elsewhere."""
    if record.trial is not None and not of_trial:
        raise ConfigError(
            f"trainer.resume={folder}: this run is a trial of the search {record.sweep}, which resumes "
            "it by itself and never reads the test fold.\n  run the command of the search again"
        )
    asked = {key for key in typed if key != "trainer.resume" and not key.startswith(("tracking", "paths."))}
    if record.status == "finished" and asked:
        raise ConfigError(
            f"trainer.resume={folder}: this run is finished and its test fold is scored, so it trains no further.\n"
            "  leave trainer.resume out, with a larger trainer.max_epochs or trainer.patience"
        )


def _texts(config: DictConfig) -> dict[str, str]:
    return {key: value_text(value) for key, value in flat_parameters(as_stored(config)).items()}


def _free(key: str) -> bool:
    return any(f"{key}.".startswith(f"{free}.") for free in FREE_ON_RESUME)


def _named(keys: Iterable[str], values: Mapping[str, str], others: Mapping[str, str], when: str) -> str:
    """Some options with the values that count, and those of another time."""
    shown = [f"{key}={values.get(key, 'nothing')} ({when} {others.get(key, 'nothing')})" for key in sorted(keys)]
    more = f", and {len(shown) - _NUM_NAMED} more" if len(shown) > _NUM_NAMED else ""
    return ", ".join(shown[:_NUM_NAMED]) + more


def own_store(cfg: DictConfig, overrides: Sequence[str]) -> Store | None:
    """The store of the resumed run; None where it is gone, or a source is typed, which has to be of these data.

    Args:
        cfg: as `continued` returns it.
        overrides: as typed.
    """
    if {"dataset.source", "dataset.glove"} & set(map(override_key, overrides)):
        return None
    folder = Path(cfg.trainer.resume)
    data = RunRecord.read(folder).data
    try:
        return find_store(folder, data, cfg.paths.data)
    except DataError:  # it can be made again
        return None


def open_folder(
    cfg: DictConfig, overrides: Sequence[str], store: Store, of_trial: bool
) -> tuple[Path, Lock, RunRecord | None]:
    """The run's folder with its configuration, taken by this process, and the former record of a resumed run.

    That of a new run is hidden until it has a record and its name.

    Args:
        cfg: the composed configuration; of a run that is resumed, as `continued` returns it.
        overrides: as typed.
        store: the data.
        of_trial: a sweep runs it.

    Raises:
        ConfigError: another process works in the run, or its data are others.
    """
    if cfg.trainer.resume is None:
        (folder, lock), resumed = new_folder(Path(cfg.paths.outputs)), None
        write_json(folder / "overrides.json", list(overrides))
    else:
        folder = Path(cfg.trainer.resume)
        lock = take(folder, of_trial)
        resumed = RunRecord.read(folder)
        _check_data(folder, resumed, overrides, store)
        clear_leftovers(folder)
    keep_room(folder)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(as_stored(cfg))))
    return folder, lock, resumed


def _check_data(folder: Path, run: RunRecord, overrides: Sequence[str], store: Store) -> None:
    """Refuse a store that is not the one which the run was trained on."""
    if run.data.fingerprint == store.fingerprint:
        check_parts(folder, run.data, store)
        return
    typed = set(map(override_key, overrides))
    named = [key for key in ("dataset.source", "dataset.glove") if key in typed]
    way = f"leave {' and '.join(named)} out"
    if not named:
        chosen = [override for override in run.overrides if override.startswith("dataset=")][-1:]
        way = f"type {' '.join([*chosen, 'dataset.source=PATH'])} of {run.data.source or 'its source'} as it was then"
    raise ConfigError(
        f"trainer.resume={folder}: the run was trained on {data_name(run.dataset, run.data.source)}, data "
        f"{run.data.fingerprint}, and these are {store.title}, data {store.fingerprint}.\n"
        f"  {way}, or leave trainer.resume out to start a new run"
    )


def overrides_of(cfg: DictConfig, typed: Sequence[str]) -> list[str]:
    """The overrides that make a configuration of the defaults, by which its run is named and found again.

    They are the typed ones; if the configuration comes from elsewhere, such as the folder of a run, also the options,
    and then the values, in which it differs from those.

    Args:
        cfg: the configuration.
        typed: the typed overrides.
    """
    now = _texts(cfg)

    def differ(overrides: Sequence[str]) -> list[str]:
        composed = _texts(_composed(overrides))
        return [key for key in now if now[key] != composed.get(key) and not is_hidden(key)]

    def how_many(overrides: Sequence[str]) -> float:
        try:
            return len(differ(overrides))
        except ConfigError:
            return math.inf

    found = list(typed)
    if how_many(found) in (0, math.inf):  # of options that only their folder knows, the typed ones have to do
        return found
    stages = sorted(path.name for path in conf_folder().iterdir() if path.is_dir() and path.name in cfg)
    for group in [*stages, *(f"encoder/{modality}" for modality in MODALITIES)]:
        place = "encoder.default" if group == "encoder" else group.replace("/", ".")
        if any(key.startswith(f"{place}.") for key in differ(found)):
            files = sorted((conf_folder() / group.partition("/")[0]).glob("*.yaml"))
            same = [path for path in files if option_content(path).get("_target_") == now.get(f"{place}._target_")]
            found = min([found, *([*found, f"{group}={path.stem}"] for path in same)], key=how_many)
    found += [f"{key}={now[key]}" for key in differ(found) if "." not in key]
    return [*found, *(f"{key}={now[key]}" for key in differ(found))]


def _composed(overrides: Sequence[str]) -> DictConfig:
    return compose(overrides, typed_config_folders())


def resume_line(folder: Path) -> str:
    """The line that resumes a run."""
    return f"resume it: {train_command([f'trainer.resume={folder}'], typed_config_folders())}"
