"""What an outputs folder holds that nobody reads any more, and its removal; no result of a finished run is among it."""

from __future__ import annotations

import filecmp
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from mmsa.errors import ConfigError, DataError
from mmsa.files import remove_all
from mmsa.occupancy import FILE as LOCK
from mmsa.occupancy import clear_unnamed, give_back, is_under_way, run_folders, take, unnamed
from mmsa.record import RunRecord
from mmsa.run_folder import read_config
from mmsa.settling import give_up, leftovers, unused_weights

CHECKPOINTS = "checkpoints that nobody resumes"
COPIES = "MLflow's copies of weights"
LEFTOVERS = "leftovers of processes that died"
GivenUp = Callable[[], Mapping[tuple[str, int], str]]
"""Gives the trials, by search and number, that ended without a value, and why."""


@dataclass(frozen=True)
class Waste:
    """A file, or a folder, that nobody reads any more.

    Args:
        path: its place.
        kind: what it is, in words.
        size: in bytes.
    """

    path: Path
    kind: str
    size: int


def clean(
    outputs: Path, data: Path, given_up: GivenUp, say: Callable[[str], None], again: str, remove: bool = False
) -> None:
    """Say what nobody reads any more, and remove it on request; runs under way are left alone.

    Args:
        outputs: the outputs folder.
        data: folder of the stores.
        given_up: the trials that ended without a value; asked once, where it matters.
        say: takes lines.
        again: the command that removes it.
        remove: remove it.
    """
    num, sizes = Counter[str](), Counter[str]()
    for waste in _wasted(outputs, data, given_up, remove):
        num[waste.kind] += 1
        sizes[waste.kind] += waste.size
        if not remove:
            say(f"{decimal(waste.size):>10}  {waste.path}")
    for kind in num:
        say(f"{num[kind]} {kind}: {decimal(sizes[kind])}")
    if not num:
        say(f"{outputs} holds nothing that can go")
    elif remove:
        say(f"removed: {decimal(sizes.total())}")
    else:
        say(f"in all {decimal(sizes.total())}; remove it: {again}")


def _wasted(outputs: Path, data: Path, given_up: GivenUp, remove: bool) -> Iterator[Waste]:
    copies = {path.parts[-4]: path for path in (outputs / "mlartifacts").glob("*/*/artifacts/checkpoints/best.pt")}
    for folder in run_folders(outputs):
        if folder.is_symlink() or (folder / "checkpoints").is_symlink():
            continue  # it is somebody else's
        with suppress(ConfigError, DataError):  # of a living process, or no run's
            yield from _of_run(folder, copies, given_up, remove)
    hidden, stale = unnamed(outputs), leftovers(outputs, data)
    yield from (_waste(path, LEFTOVERS) for path in [*hidden, *stale])
    if remove:
        clear_unnamed(outputs)
        remove_all(stale)


def _of_run(folder: Path, copies: Mapping[str, Path], given_up: GivenUp, remove: bool) -> list[Waste]:
    """What a run's folder and its entry in MLflow hold, which is removed at once while nobody else may work there."""
    if is_under_way(folder):
        return []
    record, marked = RunRecord.read(folder), (folder / LOCK).exists()
    of_trial = (str(record.sweep), -1 if record.trial is None else record.trial)
    ended = record.status == "failed" and record.trial is not None and of_trial in given_up()
    spent = unused_weights(folder, record, read_config(folder), ended)
    found = [_waste(path, CHECKPOINTS) for path in spent]
    found += [_waste(path, LEFTOVERS) for path in folder.rglob(".*.tmp") if path.is_file()]
    copy = copies.get(record.mlflow_run_id or "")
    if copy is not None and (ended or record.status == "pruned" or _is_in(folder, copy)):
        found.append(_waste(copy, COPIES))
    if not remove or not found:
        return found
    if ended:
        give_up(folder, *of_trial, given_up()[of_trial])
    lock = take(folder)
    try:
        if not lock.is_mine:
            return []
        for waste in found:
            waste.path.unlink(missing_ok=True)
    finally:
        give_back(folder, lock, settled=not marked)
    return found


def _is_in(folder: Path, copy: Path) -> bool:
    """Whether the same bytes are in the run's folder."""
    best = folder / "checkpoints" / "best.pt"
    return best.is_file() and not copy.is_symlink() and filecmp.cmp(copy, best, shallow=False)


def _waste(path: Path, kind: str) -> Waste:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return Waste(path, kind, sum(file.lstat().st_size for file in files if file.is_file()))
