"""A run's folder is the truth: what a tracker lacks is handed in once, and what died is brought to its end."""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import mmsa
from mmsa import cli
from mmsa.compose import compose
from mmsa.errors import ConfigError, MmsaError
from mmsa.occupancy import is_under_way, named, new_folder, run_folders, take
from mmsa.record import DIED, RunRecord
from mmsa.settling import settle
from mmsa.tracking.database import default_uri
from tests.test_former import WRITTEN


def entries(outputs: Path, file: str = "mlflow.db") -> list[tuple[Any, ...]]:
    """Name, status and life of what a tracker shows, and how many metrics it has."""
    count = "(SELECT count(*) FROM metrics WHERE metrics.run_uuid = runs.run_uuid)"
    with closing(sqlite3.connect(outputs / file)) as database:
        return database.execute(f"SELECT name, status, lifecycle_stage, {count} FROM runs ORDER BY name").fetchall()


def executed(outputs: Path, command: str, file: str = "mlflow.db") -> None:
    with closing(sqlite3.connect(outputs / file)) as database:
        database.execute(command)
        database.commit()


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A finished run and one that was stopped, which no tracker has seen."""
    shutil.copytree(WRITTEN / "outputs" / "runs", tmp_path / "outputs" / "runs")
    return tmp_path / "outputs"


def test_what_a_tracker_lacks_is_handed_in_once(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    track, whole = ["track", "--all", "--outputs", str(outputs)], outputs / "runs" / "whole"
    cli.command(track)
    first = entries(outputs)
    assert [entry[:3] for entry in first] == [("stopped", "FAILED", "active"), ("whole", "FINISHED", "active")]
    assert all(entry[3] > 10 for entry in first)
    assert capsys.readouterr().out.count(": handed in\n") == 2
    cli.command(track)
    assert entries(outputs) == first and capsys.readouterr().out.endswith("2 runs there already\n")

    executed(outputs, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'whole'")
    cli.command(track)
    mmsa.run([f"trainer.resume={whole}", f"tracking.uri={default_uri(outputs)}", "tracking=mlflow"])
    told = r"whole: deleted in MLflow; to bring it back, type \S*mmsa (track .*)$"
    (back,) = set(re.findall(told, capsys.readouterr().out, flags=re.MULTILINE))
    assert entries(outputs)[1][2] == "deleted"
    cli.command(shlex.split(back))
    assert entries(outputs) == first

    executed(outputs, "UPDATE runs SET status = 'RUNNING' WHERE name = 'stopped'")
    shutil.rmtree(outputs / "runs" / "stopped")
    cli.command(track)
    assert [entry[1] for entry in entries(outputs)] == ["KILLED", "FINISHED"]
    assert "stopped: closed, its folder is gone" in capsys.readouterr().out

    shutil.copy(outputs / "mlflow.db", outputs / "other.db")
    for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
        executed(outputs, f"DELETE FROM {table}", "other.db")
    cli.command([*track, "--uri", default_uri(outputs, "other.db")])
    assert [entry[:2] for entry in entries(outputs, "other.db")] == [("whole", "FINISHED")]
    mmsa.run([f"trainer.resume={whole}", f"tracking.uri={default_uri(outputs, 'other.db')}"])
    assert "is finished: nothing is left to train" in capsys.readouterr().out
    assert len(entries(outputs, "other.db")) == 1


def test_no_folder_takes_an_entry_that_is_anothers(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a run that was killed has its ids, and a stranger's record may name any entry."""
    runs = outputs / "runs"
    cli.command(["track", "--all", "--outputs", str(outputs)])
    first, ids = entries(outputs), {name: RunRecord.read(runs / name).mlflow_run_id for name in ("whole", "stopped")}
    copy, foreign = runs / "copy", runs / "foreign"
    for folder, named_id in ((copy, ids["stopped"]), (foreign, ids["whole"])):
        shutil.copytree(runs / "stopped", folder)
        (folder / "checkpoints" / "last.pt").unlink()
        changed = {"status": "running", "mlflow_run_id": named_id, "id": "0" * 32}
        RunRecord.read(folder).model_copy(update=changed).write(folder)
    executed(outputs, f"UPDATE tags SET value = '{'0' * 32}' WHERE key = 'run' AND run_uuid = '{ids['stopped']}'")
    monkeypatch.chdir(runs)
    cli.command(["track", "copy", "foreign"])
    assert entries(outputs) == first and not copy.exists() and not foreign.exists()


@pytest.mark.parametrize("asked", [["track"], ["track", "outputs/runs/a", "--all"]])
def test_track_needs_runs_or_all(asked: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"or --all.\n  type .*mmsa track --all"):
        cli.command(asked)


def test_a_run_that_died_reads_as_failed_and_one_that_lives_as_running(outputs: Path) -> None:
    folder = outputs / "runs" / "stopped"
    RunRecord.read(folder).model_copy(update={"status": "running", "reason": None}).write(folder)
    assert RunRecord.read(folder).reason == DIED and RunRecord.read(folder).status == "failed"
    lock = take(folder)
    assert is_under_way(folder) and RunRecord.read(folder).status == "running"
    lock.release()
    assert not is_under_way(folder)


def test_a_dead_run_that_cannot_be_removed_now_is_removed_later(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = outputs / "runs" / "stopped"
    RunRecord.read(folder).model_copy(update={"status": "running", "reason": None}).write(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    take(folder).release()
    cfg = compose(["tracking=none", f"paths.outputs={outputs}", f"paths.data={outputs.parent}"])

    def denied(path: Path, to: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", denied)
        settle(cfg, print)
    assert folder.exists()
    settle(cfg, print)
    assert not folder.exists() and len(run_folders(outputs)) == 1


def test_a_second_process_in_a_run_is_refused(outputs: Path) -> None:
    folder = outputs / "runs" / "stopped"
    lock = take(folder)
    with pytest.raises(MmsaError, match=r"another process works in this run \(process \d+, in this run\)"):
        mmsa.run([f"trainer.resume={folder}"], quiet=True)
    assert not take(folder, of_trial=True).is_mine
    lock.release()


def test_a_folder_is_hidden_until_it_is_whole_and_a_dead_ones_goes(tmp_path: Path) -> None:
    living, lock = new_folder(tmp_path)
    dead = tmp_path / "runs" / ".unfinished-dead"
    dead.mkdir()
    (dead / "config.yaml").write_text("")
    other, held = new_folder(tmp_path)
    assert living.exists() and other.exists() and not dead.exists() and not run_folders(tmp_path)
    for folder in (living, other):
        (folder / "result.json").write_text("")
    first, second = named(living, "a b/c"), named(other, "a b/c")
    assert {first, second} == set(run_folders(tmp_path)) and second.name in (f"{first.name}_2", second.name)
    assert first.name.endswith("_a-b-c") and lock.is_mine and is_under_way(first)
    lock.release()
    held.release()
