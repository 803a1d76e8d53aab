"""A tracking database that was moved, is held by another process, or was made by another version of MLflow."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

import mmsa
from mmsa.errors import ConfigError
from mmsa.record import RunRecord
from mmsa.tracking import database
from mmsa.tracking.database import ensure_database
from mmsa.tracking.mlflow import MLflowTracker
from mmsa.tracking.tracker import RunInfo, Tracker
from tests.tracking.test_mlflow import RESULT, started

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with a finished run, the source of all others: making the schema takes seconds."""
    outputs = tmp_path_factory.mktemp("made") / "outputs"
    tracked(outputs, "first")
    return outputs


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    """It, moved: nothing is left where it was made."""
    return Path(shutil.copytree(made, tmp_path / "my (é) 50%20#1?"))


def tracked(outputs: Path, name: str) -> str:
    """The id of a finished run with a file."""
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(name)
    tracker = MLflowTracker(outputs, warn=pytest.fail)
    run_id = started(tracker, RunInfo(name, folder))
    tracker.finish(folder, RESULT)
    return run_id


def rows(outputs: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:
        return [row[0] for row in connection.execute(query)]


def test_the_artifacts_follow_a_database_that_was_moved(outputs: Path, made: Path) -> None:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:  # as somebody else would make one
        connection.execute(
            "UPDATE experiments SET artifact_location = 's3://there/mlartifacts/0' WHERE name = 'Default'"
        )
        connection.commit()
    before = sorted(made.rglob("*"))
    second = tracked(outputs, "second")
    artifacts = outputs / "mlartifacts" / "mmsa"
    assert (artifacts / second / "artifacts" / "config.yaml").read_text() == "second"
    places = rows(outputs, "SELECT artifact_uri FROM runs")
    assert sorted(places) == sorted(f"{artifacts.as_uri()}/{run.name}/artifacts" for run in artifacts.iterdir())
    locations = rows(outputs, "SELECT artifact_location FROM experiments")
    assert sorted(locations) == sorted([artifacts.as_uri(), "s3://there/mlartifacts/0"])
    folders = rows(outputs, "SELECT value FROM tags WHERE key = 'folder' ORDER BY value")
    assert folders == [str(outputs / "runs" / name) for name in ("first", "second")]
    assert sorted(made.rglob("*")) == before, "nothing is written where it was"


def test_a_run_whose_files_cannot_be_kept_is_closed(outputs: Path) -> None:
    shutil.rmtree(outputs / "mlartifacts")
    (outputs / "mlartifacts").write_text("a file")
    lines: list[str] = []
    tracker = MLflowTracker(outputs, warn=lines.append)
    run_id = started(tracker, RunInfo("without files", outputs / "runs" / "first"))
    tracker.finish(outputs / "runs" / "first", RESULT)
    assert len(lines) == 1
    assert rows(outputs, f"SELECT status FROM runs WHERE run_uuid = '{run_id}'") == ["FINISHED"]


def test_a_name_of_an_experiment_is_no_path(outputs: Path) -> None:
    for name in ("../../a", "/tmp/a b", ".."):
        ensure_database(None, outputs, name)
    root = (outputs / "mlartifacts").as_uri()
    for location in rows(outputs, "SELECT artifact_location FROM experiments WHERE name != 'Default'"):
        assert (
            location.startswith(f"{root}/") and "/" not in location.removeprefix(f"{root}/") and location[-2:] != ".."
        )


def test_a_database_that_is_locked_at_the_start_gets_the_run_later(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writable = database.require_writable
    monkeypatch.setattr(database, "require_writable", lambda path: writable(path, 0.05))
    lines: list[str] = []
    tracker, folder = MLflowTracker(outputs, warn=lines.append), outputs / "runs" / "first"
    with closing(sqlite3.connect(outputs / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert tracker.start(RunInfo("late", folder, {"seed": 3})) is None
        tracker.log_epoch({"valid/mae": 1.0}, 1)
    assert len(lines) == 1 and "locked" in lines[0]
    tracker.log_epoch({"valid/mae": 0.5}, 2)
    assert tracker.run_id is None, "left alone for a while: a server that is away must not hold up a training"
    tracker.finish(folder, RESULT)
    assert tracker.run_id is not None and len(lines) == 1
    query = f"SELECT value FROM metrics WHERE run_uuid = '{tracker.run_id}' AND key = 'epochs/valid/mae' ORDER BY step"
    assert rows(outputs, query) == [1.0, 0.5]
    assert rows(outputs, f"SELECT status FROM runs WHERE run_uuid = '{tracker.run_id}'") == ["FINISHED"]
    assert rows(outputs, f"SELECT value FROM params WHERE run_uuid = '{tracker.run_id}'") == ["3"]


def test_a_run_that_is_opened_late_keeps_its_id(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Tracker):
        def finish(self, *arguments: Any, **named: Any) -> None:
            self.run_id = "late"

    monkeypatch.setattr("mmsa.parts.build_tracker", lambda cfg, warn: Late())
    overrides = [override for override in small if override != "tracking=none"]
    result = mmsa.run([*overrides, "trainer.max_epochs=1"], quiet=True)
    assert RunRecord.read(result.folder).mlflow_run_id == result.run_id == "late"


def older(outputs: Path) -> str:
    """Take the last change of MLflow's tables back; returns the version that they have then."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from sqlalchemy import create_engine

    scripts = database._schemas()
    newest = scripts.get_current_head()
    assert newest is not None
    version = str(scripts.get_revision(newest).down_revision)
    uri = f"sqlite:///{outputs}/mlflow.db"
    engine = create_engine(uri)
    with engine.begin() as connection:
        config = _get_alembic_config(uri)
        config.attributes["connection"] = connection
        command.downgrade(config, version)
    engine.dispose()
    return version


def test_a_database_of_an_older_mlflow_is_upgraded_and_a_copy_kept(made: Path, tmp_path: Path) -> None:
    outputs = Path(shutil.copytree(made, tmp_path / "out puts"))
    version = older(outputs)
    lines: list[str] = []
    started(MLflowTracker(outputs, warn=lines.append), RunInfo("run", tmp_path))
    kept = outputs / f"mlflow.db.{version}"
    assert database._schema(kept) == version != database._schema(outputs / "mlflow.db")
    assert rows(outputs, "SELECT name FROM runs ORDER BY name") == ["first", "run"]
    assert len(lines) == 1 and str(kept) in lines[0]


def reversion(outputs: Path, version: str) -> None:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.commit()


def test_a_database_of_a_newer_mlflow_is_refused_in_a_whole_line(outputs: Path) -> None:
    reversion(outputs, "fffffffffff0")
    with pytest.raises(ConfigError, match=r"newer MLflow.*\n  type pip install --upgrade mlflow"):
        ensure_database(None, outputs)
    lines: list[str] = []
    MLflowTracker(outputs, warn=lines.append).prepare()
    assert "type pip install --upgrade mlflow, or tracking.uri=URI of another database. The run" in lines[0]


def test_what_mlflow_says_of_a_servers_tables_becomes_a_whole_command() -> None:
    uri = "postgresql://me:secret@host/name"
    lines: list[str] = []
    tracker = MLflowTracker("outputs", uri=uri, warn=lines.append)

    def refuse() -> None:
        raise RuntimeError(
            "Detected out-of-date database schema (found version a, but expected b). Take a backup …" * 9
        )

    tracker._attempt(refuse)
    assert 'type mlflow db upgrade "${MMSA_TRACKING:?}". The run continues' in lines[0]


def test_a_plain_folder_is_answered_with_what_to_type(made: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    MLflowTracker(tmp_path, uri=str(tmp_path / "mlruns"), warn=lines.append).prepare()
    typed = re.search(r"type tracking.uri=(\S+), or leave it out. The run continues", lines[0])
    assert typed and ensure_database(typed[1].replace("/PATH", str(made)), tmp_path) == "1"


def test_a_server_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr(database, "import_client", lambda: lambda **_: pytest.fail("it tries again for minutes"))
    with pytest.raises(SQLAlchemyError, match="refused"):
        ensure_database("postgresql+psycopg://127.0.0.1:1/x", tmp_path)
