"""`mmsa rerun`: a run again from its folder, and whether it comes to the same results."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from mmsa import build, config, experiment, provenance
from mmsa.analysis.outdated import lacking
from mmsa.analysis.repetition import CLASS_TOLERANCE, TOLERANCE, Results, differences, not_in_both, verdict
from mmsa.analysis.runs import run_of
from mmsa.commands import quoted, train_command
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.data.own_folds import own_folds
from mmsa.data.store import Store
from mmsa.dataset.choice import from_here
from mmsa.errors import ConfigError, DataError
from mmsa.parts import check_nodes, target_of
from mmsa.program import program
from mmsa.record import RunRecord
from mmsa.resume import check_finished, check_parts, find_store
from mmsa.run_folder import override_key, read_config

Say = Callable[[str], None]
_UNKNOWN = "unknown"


def rerun(folder: Path, stores: Path | None, say: Say) -> bool:
    """Train a finished run again, in a folder of its own, and compare the results.

    Args:
        folder: of the run, which anybody may have made; it stays as it is.
        stores: a folder of stores to look into first.
        say: takes a line.

    Returns:
        Whether the results are equal, or within the tolerance that docs/metrics.md states.

    Raises:
        MmsaError: the run cannot be repeated, or not here; the message says how.
    """
    record = RunRecord.read(folder)
    check_finished(folder, record, "to train again")
    cfg = read_config(folder)
    check_nodes(cfg)
    device = _device(cfg, folder, record)
    store = _store(folder, record, cfg, stores)
    then = Results.read(folder)
    say(f"{folder} again: the same configuration, data {record.data.fingerprint}")
    changed = _changes(folder, record, cfg, device)
    for line in changed or ["code, libraries and machine: as they were"]:
        say(line)

    _place(cfg, folder, store)
    original = experiment.Original(folder.resolve().name, record.overrides, store)
    result = experiment.run(cfg, repeats=original)
    now = Results.read(result.folder)
    found = differences(then, now)
    if alone := not_in_both(then, now):
        say(f"not compared, as only one of the runs has them: {', '.join(alone)}")
    for one in found:
        say(f"  {one.text}{'' if one.within else ', beyond the tolerance'}")
    worst = verdict(found)
    if worst == "within" and not changed:
        worst = "differs"  # on the same machine only equal bits are right
    say(f"compared with {folder}: {_said(worst, not changed)}")
    return worst != "differs"


def _said(worst: str, same: bool) -> str:
    if worst == "equal":
        return "equal to the bit"
    if worst == "within":
        return f"within the tolerance of {TOLERANCE:g} (classes: {CLASS_TOLERANCE:.0%} of the utterances)"
    return "differs" + (": the same code, libraries and machine have to give equal bits" if same else "")


def _device(cfg: DictConfig, folder: Path, record: RunRecord) -> str:
    """Where this process trains it."""
    try:
        return str(build.build_fabric(cfg).device)
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


def _changes(folder: Path, record: RunRecord, cfg: DictConfig, device: str) -> list[str]:
    """Lines on all that may change a bit: state of the code, versions, machine, and what nobody knows of them."""
    now = provenance.git_state()
    before, after = _state(record.git.commit, record.git.dirty), _state(now.commit, now.dirty)
    unchanged = f"{before} then and now" if before == after else f"{before} then, {after} now"
    changed = [] if before == after and record.git.dirty is False else [f"  code: {unchanged}"]
    here = provenance.environment(device, cfg.device.threads, str(cfg.device.devices))
    for name in dict.fromkeys([*record.environment, *here]):
        absent = "1" if name == "devices" else _UNKNOWN
        ours, theirs = record.environment.get(name, absent), here.get(name, absent)
        changed += [f"  {name}: {ours} then, {theirs} now"] if ours != theirs else []
    run = run_of(folder, record)
    changed += [f"  repaired since: {one.part}: {one.text}" for one in lacking(run)]
    targets = [value for key, value in run.configuration.items() if key.endswith("_target_")]
    own = sorted({target.partition(".")[0] for target in targets} & set(config.PACKAGES))
    changed += [f"  not compared: the code of {', '.join(own)}, of which no state is kept"] if own else []
    if record.packed.seeds:
        changed.append(
            f"  trained in joint steps of the seeds {', '.join(map(str, record.packed.seeds))} then, alone now"
        )
    if not cfg.device.deterministic:
        changed.append("  device.deterministic=false: sums may have another order each time, and bits with them")
    return ["differs from then, or may:", *changed] if changed else []


def _state(commit: str | None, dirty: bool | None) -> str:
    """The state of the code in words."""
    changes = {True: " with uncommitted changes", False: "", None: " and unknown changes"}[dirty]
    return f"{commit[:12]}{changes}" if commit else _UNKNOWN


def _place(cfg: DictConfig, folder: Path, store: Store) -> None:
    """Let a configuration make a new run beside the former one, or in today's outputs where that cannot be written to.

    It reads that store, and is tracked where the outputs are: nothing is sent to an address that a folder names.
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
