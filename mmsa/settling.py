"""What a process that died, or a tracker that was away, has left to do.

A run's folder is the truth, and the rest follows from it. A run that died before its first checkpoint came to nothing
and goes; a later one has failed, and can be resumed. What a tracker lacks of a run is handed in, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from mmsa import parts
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import run_of
from mmsa.analysis.tables import make_tables
from mmsa.commands import track_command
from mmsa.errors import ConfigError, DataError, MmsaError
from mmsa.files import clear_leftovers, remove_all, stale
from mmsa.occupancy import FILE as LOCK
from mmsa.occupancy import give_back, remove, take, unsettled
from mmsa.record import DIED, RunRecord
from mmsa.resume import resume_line
from mmsa.run_folder import flat_parameters, read_config, read_rows, short_name
from mmsa.secrets import as_stored, hidden
from mmsa.tracking.figures import write_figures
from mmsa.tracking.tracker import RunInfo, Tracker

Outcome = Literal["handed in", "there", "deleted", "away"]
"""Of handing in: it was needed, it was not, the user has deleted the entry, or the tracker does not answer."""


def settle(cfg: DictConfig, say: Callable[[str], None]) -> None:
    """Bring to their end the runs that were left before everything was done for them, where their tracker is this one.

    Args:
        cfg: a configuration, with the outputs folder and the tracker.
        say: takes a line for each run that died and can be resumed.
    """
    remove_all(leftovers(Path(cfg.paths.outputs), Path(cfg.paths.data)))
    away = False
    for folder in unsettled(Path(cfg.paths.outputs)):
        with suppress(ConfigError, DataError, OSError):  # of a living process; damaged; or on a full disk
            lock = take(folder)
            if not lock.is_mine:  # where there are no locks, nobody can know whether it lives
                continue
            done = False
            try:
                record, shown_by = closed(folder, say, cut_short=True), _shown_by(folder)
                if shown_by is None:
                    done = True
                elif not away and shown_by == _tracking(cfg.tracking):
                    done = _shown(folder, record, parts.build_tracker(cfg, warn=say), even_deleted=False) != "away"
                    away = not done
                if done and record is None:
                    done = remove(folder)
            finally:
                give_back(folder, lock, settled=done)


def leftovers(outputs: Path, data: Path) -> list[Path]:
    """What killed writers have left in folders in which others may write now: it is too old to be theirs."""
    places = (outputs, data, outputs / "models")
    found = [path for place in places for path in place.glob(".*.tmp")] + [*(outputs / "sweeps").rglob(".*.tmp")]
    return [path for path in dict.fromkeys(found) if stale(path)]


def track(folders: Sequence[Path], cfg: DictConfig, say: Callable[[str], None], even_deleted: bool) -> None:
    """Hand runs in to a tracker, and say what became of each.

    Args:
        folders: of the runs.
        cfg: a configuration, with the tracker.
        say: takes lines.
        even_deleted: an entry that its user has deleted too.

    Raises:
        MmsaError: the tracker does not answer, after a line about it.
        DataError: a folder is not a run's.
    """
    there = 0
    for folder in folders:
        marked = (folder / LOCK).exists()
        lock = None
        with suppress(ConfigError):  # of who works in it
            lock = take(folder)
        if lock is None or (not lock.is_mine and RunRecord.read(folder).status == "running"):
            say(f"{folder}: under way, and shown by its own process")
            continue
        done = not marked
        try:
            record = closed(folder, say, cut_short=marked)
            outcome = _shown(folder, record, parts.build_tracker(cfg, warn=say), even_deleted)
            if outcome == "away":
                again = "the same command hands it in when the tracker answers"
                raise MmsaError(f"{folder}: the tracker has not taken it.\n  {again}")
            done = done or _shown_by(folder) in (None, _tracking(cfg.tracking))
            if record is None:
                gone = remove(folder)
                done = gone and done
                say(f"{folder}: died before its first checkpoint, and {'is' if gone else 'cannot be'} removed")
            elif outcome == "there":
                there += 1
            else:
                back = f" in MLflow; to bring it back, type {track_command(folder)}" if outcome == "deleted" else ""
                say(f"{folder}: {outcome}{back}")
        finally:
            give_back(folder, lock, settled=done and lock.is_mine)
    if there:
        say(f"{there} run{'' if there == 1 else 's'} there already")


def closed(folder: Path, say: Callable[[str], None], cut_short: bool) -> RunRecord | None:
    """The record of a run that this process has taken, whose end is kept if it died; None if it came to nothing.

    Args:
        folder: of the run.
        say: takes a line if it died and can be resumed.
        cut_short: its process did not come to its end, so that figures may be missing.

    Raises:
        DataError: the folder is not a run's.
    """
    record, last = RunRecord.read(folder), folder / "checkpoints" / "last.pt"
    clear_leftovers(folder)
    for path in unused_weights(folder, record, read_config(folder)):
        path.unlink()
    if record.status == "finished" and cut_short and record.trial is None:
        write_figures(folder, record)
    elif record.status == "running":
        if not last.exists():
            return None
        record = record.model_copy(update={"status": "failed", "reason": DIED})
        record.write(folder)
    if record.reason == DIED and record.trial is None and last.exists():
        epochs = len(read_rows(folder / "history.csv"))
        say(f"{folder}: {DIED} after {epochs} epoch{'' if epochs == 1 else 's'}; {resume_line(folder)}")
    return record


def _shown(folder: Path, record: RunRecord | None, tracker: Tracker, even_deleted: bool) -> Outcome:
    """Show a run in a tracker; take one out that came to nothing."""
    if record is not None:
        return hand_in(folder, record, tracker, even_deleted)
    died = RunRecord.read(folder)
    return "there" if tracker.discard(_info(folder, died), died.mlflow_run_id) else "away"


def unused_weights(folder: Path, record: RunRecord, cfg: DictConfig, given_up: bool = False) -> list[Path]:
    """The checkpoints of a run that nobody reads any more: the last one of a finished run, all of a pruned one.

    Args:
        folder: of the run.
        record: its record.
        cfg: its configuration, which may keep the last one.
        given_up: it is of a trial that its search has ended without a value.
    """
    gone = ["best.pt", "last.pt"] if record.status == "pruned" or (given_up and record.status == "failed") else []
    if record.status == "finished" and not OmegaConf.select(cfg, "trainer.keep_last"):
        gone = ["last.pt"]
    return [path for name in gone if (path := folder / "checkpoints" / name).is_file()]


def replace(folder: Path) -> None:
    """Let a run that ended early count as one that came to nothing: another one takes its place."""
    (folder / "checkpoints" / "last.pt").unlink(missing_ok=True)
    with suppress(DataError):
        RunRecord.read(folder).model_copy(update={"status": "running", "reason": None}).write(folder)
        (folder / LOCK).touch()


def give_up(folder: Path, sweep: str, trial: int, reason: str) -> None:
    """Let go of the weights of a trial's run, which nobody resumes: its search has ended it without a value.

    Args:
        folder: of the run; without effect where it is of another trial, finished, or under way.
        sweep: name of the search.
        trial: its number.
        reason: why the trial ended.
    """
    with suppress(ConfigError, DataError, OSError):
        marked = (folder / LOCK).exists()
        record = RunRecord.read(folder)
        if (record.sweep, record.trial) != (sweep, trial) or record.status not in ("failed", "pruned"):
            return
        lock = take(folder)
        try:
            if record.reason == DIED and lock.is_mine:
                record.model_copy(update={"reason": reason}).write(folder)
            for path in unused_weights(folder, record, read_config(folder), given_up=True) if lock.is_mine else ():
                path.unlink()
        finally:
            give_back(folder, lock, settled=not marked)


def hand_in(folder: Path, record: RunRecord, tracker: Tracker, even_deleted: bool) -> Outcome:
    """Show a run that has ended in a tracker, as far as that lacks it.

    Args:
        folder: of the run.
        record: its record, with how it ended.
        tracker: not started.
        even_deleted: an entry that its user has deleted too.

    Raises:
        DataError: a file of the folder is damaged.
    """
    info = _info(folder, record)
    entry = tracker.entry(info, record.mlflow_run_id)
    if entry is None:
        return "away"
    if entry == "deleted" and not even_deleted:
        return "deleted"
    if entry == "whole":
        return "there"
    history = _history(folder)
    tracker.start(info, record.mlflow_run_id, again=True)
    for epoch, metrics in history.items():
        share = (record.training_seconds or 0.0) * epoch / len(history)
        tracker.log_epoch(metrics, epoch, at=(info.began or 0.0) + share)
    if record.status == "finished":
        tracker.finish(folder, record, description(folder, record))
    else:
        tracker.fail(folder, record.reason or record.status, record.status == "pruned")
    if tracker.run_id and record.mlflow_run_id is None:
        record.model_copy(update={"mlflow_run_id": tracker.run_id}).write(folder)
    return "handed in" if tracker.settled else "away"


def description(folder: Path, record: RunRecord) -> str:
    """The Markdown description of a finished run: its table, or the search that it is a trial of."""
    if record.trial is not None:  # a search makes hundreds of them, and looks at the study
        return f"trial {record.trial} of {record.sweep}"
    return rendered(make_tables([run_of(folder, record)]), "markdown")


def info_of(folder: Path, record: RunRecord, config: Mapping[str, Any]) -> RunInfo:
    """A run as a tracker shows it.

    Args:
        folder: of the run.
        record: its record.
        config: its configuration, plain.
    """
    return RunInfo(
        name=str(config.get("name") or short_name(record.overrides)),
        folder=folder,
        parameters=run_of(folder, record).choices | flat_parameters(config),
        tags=record.model_dump(include={"sweep", "trial", "repeats", "seed", "dataset", "task", "planted"}),
        commit=record.git.commit,
        fingerprint=record.data.fingerprint,
        source=record.data.source,
        environment=record.environment,
        began=_unix_time(record.started),
        id=record.id or hashlib.sha256(folder.name.encode()).hexdigest()[:32],  # older runs have none
    )


def _info(folder: Path, record: RunRecord) -> RunInfo:
    return info_of(folder, record, as_stored(read_config(folder)))


def _history(folder: Path) -> dict[int, dict[str, float]]:
    """Epoch -> its metrics."""
    path = folder / "history.csv"
    try:
        return {
            int(row.pop("epoch")): {name: float(value) for name, value in row.items() if value}
            for row in read_rows(path)
        }
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged: an epoch or a metric is no number.\n  name another run") from error


def _unix_time(text: str | None) -> float | None:
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).timestamp() if text else None
    return None


def _shown_by(folder: Path) -> Any:
    """The tracker that a run was started with, as its configuration names it; None where it has none."""
    return _tracking(read_config(folder).get("tracking"))


def _tracking(node: DictConfig | None) -> Any:
    found: Any = OmegaConf.to_container(node, resolve=True) if node is not None else {}
    if str(found.get("_target_", "")).endswith("NullTracker"):
        return None
    return {name: hidden(str(value)) for name, value in found.items()}
