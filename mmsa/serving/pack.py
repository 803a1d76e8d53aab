"""From finished runs to a packed model: one folder that needs neither their data nor their folders."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save

from mmsa import __version__, build
from mmsa.analysis.comparison import comparable_groups
from mmsa.commands import quoted
from mmsa.config import parameters
from mmsa.data.batches import Fold
from mmsa.data.loading import Loading
from mmsa.data.ragged import Ragged
from mmsa.data.store import FOLDS, Prepared, Store
from mmsa.data.word_vectors import TEXT
from mmsa.earlier_run import check_finished
from mmsa.errors import ConfigError, DataError
from mmsa.files import written
from mmsa.parts import target_of
from mmsa.program import program
from mmsa.provenance import data_record
from mmsa.record import RunRecord
from mmsa.run_folder import is_hidden, override_key, shown_value, write_text
from mmsa.serving.card import FORMAT, GROUPS, INPUTS, PIECES, Card, Member, Reads, TrainedOn, digest_of, without_folders
from mmsa.serving.packed import PackedModel, load_packed, loading_values
from mmsa.serving.readme import readme
from mmsa.serving.utterances import fitting, in_memory
from mmsa.trained import TrainedRun, load_run

_PROVED = 32
"""Utterances of the validation fold on which a packed model is compared with its run."""
_TOLERANCE = 1e-5
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_REQUIRED = ("torch", "safetensors", "numpy", "hydra-core", "omegaconf")


def pack(
    folders: Sequence[Path], output: Path | None = None, stores: Path | None = None, licence: str | None = None
) -> PackedModel:
    """Pack finished runs, the seeds of one configuration on the same data, and prove that they predict the same.

    Args:
        folders: of the runs, at least one.
        output: the new folder; None is models/NAME beside the folder of the first run's outputs.
        stores: a folder of stores to look into first.
        licence: of the model, as the Hugging Face hub names it; None leaves it to be stated in the card.

    Returns:
        The model, as its new folder has it.

    Raises:
        ConfigError: a run is a trial, or has not finished; or the licence is no name of one.
        DataError: a run is an import, the runs differ, or the model cannot be packed. Nothing is left behind then.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        shown = quoted(licence.lower())
        raise ConfigError(f"--license {licence}: a name such as cc-by-4.0 is required.\n  type --license {shown}")
    records = [RunRecord.read(folder) for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        check_finished(folder, record, "to pack")
    if len(folders) > 1:
        _check_alike(folders)
    first = folders[0].resolve()
    target = output or first.parent.parent / "models" / first.name
    if target.exists():
        other = quoted(str(target.with_name(f"{target.name}-2")))
        raise DataError(f"{target} is there already.\n  type --output {other}, or remove it first")
    runs = [load_run(folder, stores) for folder in folders]
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        made.mkdir()
        _write(made, folders, records, runs, licence)
        model = load_packed(made)
        _prove(model, runs)
        os.rename(made, target)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror}.\n  type --output FOLDER elsewhere") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return replace(model, folder=target)


def _check_alike(folders: Sequence[Path]) -> None:
    """Refuse runs that differ in more than the seed."""
    groups = comparable_groups(folders)
    again = f"{program('mmsa')} pack"
    if len(groups) > 1:
        labels = "; ".join(group.label for group in groups[:3])
        each = groups[0].runs
        named = " ".join(quoted(str(run.folder)) for run in each)
        raise DataError(
            f"the runs are of {len(groups)} configurations, and seeds of one are required: {labels}.\n"
            f"  type {again} {named}, and so for the others"
        )
    kept = {run.folder.resolve() for run in groups[0].runs}
    if twice := [folder for folder in folders if folder.resolve() not in kept]:
        raise DataError(f"{twice[0]} has the seed of another of these runs.\n  name each seed once")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise DataError("a run is named twice.\n  name each seed once")


def _write(
    made: Path,
    folders: Sequence[Path],
    records: Sequence[RunRecord],
    runs: Sequence[TrainedRun],
    licence: str | None,
) -> None:
    """Write all files of a packed model."""
    first = runs[0]
    cards = [_parts(run) for run in runs]
    if any(card != cards[0] for card in cards[1:]):
        raise DataError("the runs have other parts or inputs.\n  pack each by itself")
    configuration, loading, inputs = cards[0]
    members = []
    for record, run in zip(records, runs, strict=True):
        name = "model.safetensors" if len(runs) == 1 else f"model-seed-{record.seed}.safetensors"
        _save(made / name, dict(run.model.state_dict()))
        members.append(_member(record, name))
    scales = {m: s for m, s in first.data.fitted.scales.items() if inputs[m].kind == "vectors"}
    if scales:
        parts = {f"{part}/{m}": torch.from_numpy(getattr(s, part)) for m, s in scales.items() for part in _STATISTICS}
        _save(made / INPUTS, parts)
    for tokenizer in first.data.tokenizers.values():
        if not hasattr(tokenizer, "save"):
            kind = type(tokenizer).__name__
            raise DataError(
                f"{first.folder}: its tokenizer, {kind}, has no method save, and no packed model is complete without "
                f"it.\n  write one, as mmsa.encoder.pretrained has: save(folder) with files that tokenizer(name) reads"
            )
        tokenizer.save(made / PIECES)
    vocabulary = first.data.fitted.vocabulary
    found = [path for path in sorted(made.rglob("*")) if path.is_file()]
    card = Card(
        format=FORMAT,
        written_by=f"mmsa {__version__}",
        configuration=configuration,
        loading=loading,
        inputs=inputs,
        vocabulary=None if vocabulary is None else vocabulary.words,
        data=_trained_on(first),
        members=tuple(members),
        environment=dict(records[0].environment),
        files={path.relative_to(made).as_posix(): digest_of(path) for path in found},
    )
    card.write(made)
    write_text(made / "README.md", readme(card, folders, records, first.task, licence))
    write_text(made / "requirements.txt", _requirements(card))


_STATISTICS = ("mean", "factor")


def _save(path: Path, tensors: dict[str, Any]) -> None:
    """Write tensors, of which several may share their memory."""
    if odd := [name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]:
        raise DataError(f"the model cannot be packed: {odd[0]} of its state is no tensor.\n  keep it in a buffer")
    content = save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})
    with written(path, len(content)) as file:
        file.write(content)


def _parts(run: TrainedRun) -> tuple[dict[str, Any], dict[str, Any], dict[str, Reads]]:
    """The configuration of a run's model, how its inputs are loaded, and what it reads."""
    data, cfg = run.data, run.config
    places = {m: build.encoder_place(cfg, m) for m in data.modalities}
    configuration: dict[str, Any] = {
        group: OmegaConf.to_container(cfg[group], resolve=True) for group in GROUPS if group != "encoder"
    }
    nodes = {place.partition(".")[2]: OmegaConf.select(cfg, place) for place in places.values()}
    encoders: dict[str, Any] = {name: OmegaConf.to_container(node, resolve=True) for name, node in nodes.items()}
    for m in data.tokenizers:
        encoders[places[m].partition(".")[2]]["name"] = PIECES  # where load_packed finds it
    configuration["encoder"] = encoders
    files = dict(data.store.report.get("files", {}))
    inputs = {}
    for m in data.modalities:
        kind = "pieces" if m in data.tokenizers else "words" if m in data.tables else "vectors"
        of_glove = files.get("glove") if m == TEXT else None
        source = None if kind == "pieces" else of_glove or files.get(m) or data.store.source_name
        inputs[m] = Reads(kind=kind, width=data.widths[m], max_steps=max(1, data.max_steps[m]), source=source)  # type: ignore[arg-type]
    return configuration, loading_values(_cutting(data.loading, cfg, places, data.max_steps)), inputs


def _cutting(loading: Loading, cfg: DictConfig, places: dict[str, str], max_steps: dict[str, int]) -> Loading:
    """The loading of utterances that may be longer than any in training: a part with positions reads no more."""
    groups = ("fusion", "feedback", "regularizer", *places.values())
    if not any("max_steps" in parameters(target_of(cfg, place)) for place in groups):
        return loading
    most = {loading.resample: max_steps[loading.resample]} if loading.resample else dict(max_steps)
    return replace(loading, max_length=most)


def _trained_on(run: TrainedRun) -> TrainedOn:
    """The facts about a run's data, without a path of this machine."""
    store = run.data.store
    dataset = build.build_dataset(run.config, store)
    record = data_record(store)
    return TrainedOn(
        dataset=type(dataset).name,
        title=store.title,
        origin=dataset.origin,
        fingerprint=record.fingerprint,
        hashes=dict(record.hashes),
        utterances=dict(record.utterances),
        kinds=dict(dataset.stated_kinds),
        planted=bool(store.report.get("planted")),
        unread=tuple(m for m in store.features if m not in run.data.modalities),
        num_folds=record.num_folds,
        held_out=record.held_out,
        parts=record.parts,
    )


def _member(record: RunRecord, weights: str) -> Member:
    typed = [o for o in record.overrides if not is_hidden(override_key(o))]
    pairs = [override.partition("=") for override in typed]
    return Member(
        weights=weights,
        seed=record.seed,
        run=record.id,
        name=without_folders(record.name),
        started=record.started,
        git=record.git,
        overrides=tuple(without_folders(f"{key}{sign}{shown_value(key, value)}") for key, sign, value in pairs),
        metrics=dict(record.metrics),
    )


def _requirements(card: Card) -> str:
    """requirements.txt: the versions that packed it."""
    commit = card.members[0].git.commit
    lines = ["# The package mmsa, from its repository" + (f", commit {commit}" if commit else "")]
    lines += [f"mmsa-lab=={__version__}"]
    extra = ("transformers",) if any(reads.kind == "pieces" for reads in card.inputs.values()) else ()
    for package in (*_REQUIRED, *extra):
        try:
            lines.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines) + "\n"


def _prove(model: PackedModel, runs: Sequence[TrainedRun]) -> None:
    """Compare a packed model with its runs, on raw features of the validation fold.

    Raises:
        DataError: they predict different things.
    """
    for run, (seed, packed) in zip(runs, model.models.items(), strict=True):
        fold = run.data.fold(FOLDS[1])
        places = np.arange(min(_PROVED, len(fold)))
        store = fitting(model.card, _some(run.data.store, fold, places), str(run.folder), lambda line: None)
        with torch.no_grad():
            output = run.model(fold.batch(places))
        expected = run.task.decide(output.predictions[output.primary]).double().numpy()
        one = replace(model, models={seed: packed})
        found = np.concatenate([block.by_seed[seed] for block in one.predictions(store)])
        far = np.abs(found - expected).max()
        if not far <= _TOLERANCE:
            raise DataError(
                f"{run.folder} cannot be packed: the packed model predicts other values, by up to {far:.2g}.\n"
                "  a part of it depends on something besides its options and its weights: see docs/packing.md"
            )


def _some(store: Store, fold: Fold, places: np.ndarray) -> Store:
    """Some utterances of a store, in memory."""
    rows = fold.rows[places].tolist()
    return in_memory(
        store.path,
        Prepared(
            [store.ids[row] for row in rows],
            [store.videos[row] for row in rows],
            [FOLDS[-1]] * len(rows),
            {},
            {m: Ragged.join([ragged[row] for row in rows]) for m, ragged in store.features.items()},
            None if store.words is None else [store.words[row] for row in rows],
        ),
    )


def described(model: PackedModel) -> list[str]:
    """Lines on a model that was just packed."""
    size = sum(path.stat().st_size for path in model.folder.rglob("*") if path.is_file())
    return [
        f"packed: {model.folder} ({size / 1e6:.1f} MB)",
        f"predict with it: {program('mmsa')} predict {quoted(str(model.folder))} --input FILE",
    ]
