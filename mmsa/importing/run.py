"""Predictions of another system as runs: scored, recorded and shown as those that were trained here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmsa import build, provenance, repairs
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import Run, configuration_of, run_of
from mmsa.analysis.tables import make_tables
from mmsa.commands import report_command
from mmsa.data.batches import Fold
from mmsa.data.store import FOLDS, Store
from mmsa.errors import ConfigError, DataError
from mmsa.experiment import fit_beside
from mmsa.importing.predictions import Lines, Part
from mmsa.importing.sheet import Sheet, read_sheet
from mmsa.occupancy import give_back, named, new_folder, run_folders
from mmsa.overrides import without_secret
from mmsa.parts import check_nodes
from mmsa.record import NO_SEED, Import, RunRecord
from mmsa.run_folder import override_key, write_json, write_predictions, write_text
from mmsa.secrets import as_stored, conceal
from mmsa.settling import settle
from mmsa.stages import Task

_KEPT = ("dataset", "task", "tracking", "paths")
"""Groups of the configuration that matter without a model."""
_EQUAL = {"name", "seed", "dataset", "task", "primary", "imported", "metrics"}
"""Fields of records that are equal where the same file was imported in the same way."""


def import_file(
    cfg: DictConfig,
    overrides: Sequence[str],
    path: Path,
    name: str | None = None,
    folds: Sequence[str] = (),
    partial: bool = False,
    replace: bool = False,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Make a file of predictions a run per seed, and print their table.

    Args:
        cfg: the composed configuration, with the data, the task and the outputs folder.
        overrides: as typed.
        path: a CSV, or named arrays: `read_sheet`.
        name: of the system; None takes the option `name`, else the file's.
        folds: valid, test; none: `Lines.folds`.
        partial: utterances may be missing.
        replace: tables show it in place of other predictions of its name and seed, whose folders stay.
        say: takes lines.

    Returns:
        The folders of the runs, also those that were there before.

    Raises:
        DataError: the file is refused, or the data are.
        ConfigError: an option is, or there are other predictions of the name and seed.
    """
    cfg, overrides = conceal(cfg), list(map(without_secret, overrides))
    check_nodes(cfg)
    began, sheet = time.monotonic(), read_sheet(path)
    store, data = build.open_data(cfg, progress=True)
    task, train = build.build_task(cfg), data.fold(FOLDS[0])
    task.begin(train.targets)
    lines = Lines(sheet, store, task, int(cfg.seed) if "seed" in map(override_key, overrides) else None)
    scored = folds or lines.folds
    opened = {fold: data.fold(fold) for fold in FOLDS[1:] if fold in scored}
    parts = [lines.part(fold, partial) for fold in opened.values()]
    for line in lines.left_out(scored):
        say(line)
    system = name or cfg.name or sheet.path.stem
    typed = [*overrides, f"imported={system}"]
    records = [_record(cfg, typed, system, sheet, store, task, parts, seed) for seed in lines.seeds]
    there, others = _imported_before(cfg, system, records)
    for folder in there.values():
        say(f"imported before: {folder}")
    if others and not replace:
        raise ConfigError(
            f"--name {system}: {', '.join(map(str, others))} {'has' if len(others) == 1 else 'have'} other predictions "
            "of this name and seed.\n"
            "  type --replace to show these in their place, or --name NAME for a row of their own"
        )
    for folder in others:
        say(f"replaced in tables, and kept: {folder}")
    made = {}
    if len(there) < len(records):
        baselines = _baselines(task, records[0].task, [train, opened.get("valid") or data.fold("valid")], opened, parts)
        for record in records:
            if record.seed not in there:
                found = {"baselines": baselines, "seconds": time.monotonic() - began}
                made[record.seed] = _written(cfg, typed, system, record.model_copy(update=found), task, parts)
    settle(cfg, say)
    folders = [{**there, **made}[record.seed] for record in records]
    say(rendered(make_tables([run_of(folder, RunRecord.read(folder)) for folder in folders]), "table"))
    for folder in made.values():
        say(f"run folder: {folder}")
    say(f"all runs in one table: {report_command(cfg.paths.outputs)}")
    return folders


def _baselines(
    task: Task, kind: str, fitted_on: Sequence[Fold], opened: Mapping[str, Fold], parts: Sequence[Part]
) -> dict[str, dict[str, float]]:
    """The baselines of a run on the scored utterances; none of a validation fold of which some are missing."""
    of_test = next((part.places for part in parts if part.name == "test"), slice(None))
    fitted = fit_beside(task, kind, [*fitted_on, *(fold for name, fold in opened.items() if name == "test")], of_test)
    shown = tuple(f"{part.name}/" for part in parts if part.name == "test" or len(part.places) == part.size)
    return {
        name: {key: score for key, score in scores.items() if key.startswith(shown)} for name, scores in fitted.items()
    }


def _record(
    cfg: DictConfig,
    overrides: Sequence[str],
    name: str,
    sheet: Sheet,
    store: Store,
    task: Task,
    parts: Sequence[Part],
    seed: int,
) -> RunRecord:
    """The record of one seed, without baselines."""
    metrics = {part.name: task.metrics(part.predicted[seed], part.truths) for part in parts}
    return RunRecord(
        id=uuid.uuid4().hex,
        name=f"{name} (imported)",
        status="finished",
        seed=seed,
        dataset=store.dataset,
        task=type(task).__name__.lower(),
        data=provenance.data_record(store),
        monitor=f"valid/{task.monitor}",
        mode=task.mode,
        primary=task.shown,
        num_parameters=0,
        planted=bool(store.report.get("planted")),
        overrides=tuple(overrides),
        started=datetime.now().astimezone().isoformat(timespec="milliseconds"),
        repairs=repairs.latest(),
        environment=provenance.environment("cpu", cfg.device.threads),
        imported=Import(
            file=sheet.path.name, sha256=sheet.sha256, utterances={part.name: len(part.ids) for part in parts}
        ),
        metrics={f"{fold}/{metric}": value for fold, found in metrics.items() for metric, value in found.items()},
    )


def _imported_before(
    cfg: DictConfig, name: str, records: Sequence[RunRecord]
) -> tuple[dict[int, Path], Sequence[Path]]:
    """Of the imports in whose place in tables the records come, the newest: those that are the same, by their seed,
    and the folders of those that are not.
    """
    kept: Any = OmegaConf.to_container(OmegaConf.create(_kept(cfg, name, NO_SEED)))
    options = configuration_of(kept).items()
    places = {_place(record) for record in records}
    found: dict[int, Run] = {}
    for folder in sorted(run_folders(Path(cfg.paths.outputs)), key=lambda folder: folder.name):
        with suppress(DataError):
            record = RunRecord.read(folder)
            if record.is_import and record.name == records[0].name and _place(record) in places:
                run = run_of(folder, record)
                if options <= run.configuration.items():
                    found[run.seed] = run
    new = {record.seed: record.model_dump_json(include=_EQUAL) for record in records}
    same = {seed: run.folder for seed, run in found.items() if run.model_dump_json(include=_EQUAL) == new[seed]}
    return same, [run.folder for seed, run in found.items() if seed not in same]


def _place(record: RunRecord) -> tuple[object, ...]:
    """Where a record stands in the tables of its configuration; of two in one place they show the newer."""
    data = record.data
    return data.fingerprint, data.parts, data.held_out, record.task, record.fold, record.seed


def _kept(cfg: DictConfig, name: str, seed: int) -> dict[str, Any]:
    """The configuration of a run."""
    stored = as_stored(cfg)
    return {key: stored[key] for key in _KEPT} | {"seed": seed, "name": name, "imported": name}


def _written(
    cfg: DictConfig, overrides: Sequence[str], name: str, record: RunRecord, task: Task, parts: Sequence[Part]
) -> Path:
    """The folder of a run, which is hidden until it is whole; figures and a tracker's entry follow."""
    folder, lock = new_folder(Path(cfg.paths.outputs))
    try:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(_kept(cfg, name, record.seed))))
        write_json(folder / "overrides.json", list(overrides))
        rows = [(part, part.truths, part.predicted[record.seed]) for part in parts]
        write_predictions(folder / "predictions.csv", rows, task.columns)
        record.write(folder)
        folder = named(folder, record.name)
    finally:
        give_back(folder, lock, settled=False)
    return folder
