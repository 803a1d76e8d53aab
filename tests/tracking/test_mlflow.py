from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from mmsa.errors import ConfigError
from mmsa.run_folder import flat_parameters
from mmsa.tracking import database
from mmsa.tracking.database import can_write_ahead, ensure_database
from mmsa.tracking.entries import WHOLE
from mmsa.tracking.mlflow import MLflowTracker, cause
from mmsa.tracking.none import NullTracker
from mmsa.tracking.tracker import RunInfo
from tests.records import record
from tests.warm import CONTEXT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own

RESULT = record(
    best_epoch=1,
    metrics={"valid/mae": 0.4, "test/mae": 0.6, "test/corr": float("nan")},
    baselines={"mean": {"test/mae": 1.4, "valid/mae": 1.3}, "ridge joint": {"test/mae": 1.0}},
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One outputs folder for the module: making the schema takes seconds."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.yaml", "predictions.csv", "checkpoints/best.pt", "checkpoints/last.pt", "figures/curves.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def tracker_of(outputs: Path) -> MLflowTracker:
    def refuse(line: str) -> None:
        pytest.fail(line)

    return MLflowTracker(outputs, warn=refuse)


def read(outputs: Path, run_id: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{outputs}/mlflow.db").get_run(run_id)


def started(tracker: MLflowTracker, run: RunInfo) -> str:
    run_id = tracker.start(run)
    assert run_id is not None
    return run_id


def history(outputs: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:
        query = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
        return connection.execute(query, (run_id, name)).fetchall()


def test_a_run_shows_all_that_its_folder_holds(outputs: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = RunInfo(
        name="feedback=mmlatch",
        folder=folder,
        parameters={"encoder.text.dropout": 0.1, "dataset.modalities": ["text"], "dataset.source": None},
        tags={"seed": 3, "sweep": "s1", "trial": None, "dataset": "synthetic"},
        commit="c0ffee",
        fingerprint="0123456789ab",
        source="x.pkl",
        environment={"python": "3.11"},
    )
    tracker = tracker_of(outputs)
    run_id = started(tracker, run)
    tracker.log_epoch({"train/loss": 1.0, "valid/mae": 0.5}, 0)
    tracker.log_epoch({"train/loss": 0.8, "valid/mae": 0.45, "valid/corr": float("nan")}, 1)
    tracker.finish(folder, RESULT, "| mae |\n|---|\n| 0.6 |")
    shown = read(outputs, run_id)
    assert shown.info.status == "FINISHED" and shown.info.run_name == "feedback=mmlatch"
    assert shown.data.params == {
        "encoder.text.dropout": "0.1",
        "dataset.modalities": '["text"]',
        "dataset.source": "null",
    }
    expected = {"seed": "3", "sweep": "s1", "data fingerprint": "0123456789ab", "environment.python": "3.11"}
    expected |= {"data source": "x.pkl"}
    expected |= {"mlflow.source.git.commit": "c0ffee", "mlflow.note.content": "| mae |\n|---|\n| 0.6 |"}
    assert expected.items() <= shown.data.tags.items() and "trial" not in shown.data.tags
    (read_by,) = shown.inputs.dataset_inputs
    assert (read_by.dataset.name, read_by.dataset.digest) == ("synthetic (x.pkl)", "0123456789ab")
    assert history(outputs, run_id, "epochs/valid/mae") == [(0, 0.5), (1, 0.45)]
    curves = {"epochs/train/loss": 0.8, "epochs/valid/mae": 0.45}
    assert shown.data.metrics == {**curves, "test/mae": 0.6, "valid/mae": 0.4}, "the values of the selected epoch"
    artifacts = outputs / "mlartifacts" / "mmsa" / run_id / "artifacts"
    files = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert files == {"config.yaml", "predictions.csv", "figures/curves.png"}, "the weights stay in the run's folder"
    assert shown.data.tags["folder"] == str(folder)
    assert capfd.readouterr() == ("", "")


def test_values_that_are_not_finite_are_left_out(outputs: Path, folder: Path) -> None:
    tracker = tracker_of(outputs)
    run_id = started(tracker, RunInfo("nan", folder))
    tracker.log_epoch({"valid/corr": float("nan"), "valid/loss": float("inf"), "valid/mae": 1.0}, 0)
    tracker.finish(folder, RESULT)
    metrics = read(outputs, run_id).data.metrics
    assert set(metrics) == {"epochs/valid/mae", "valid/mae", "test/mae"}


def test_long_and_many_parameters_and_odd_names_are_kept(outputs: Path, folder: Path) -> None:
    parameters = {"long": "x" * 9000, "odd+na*me": 1, **{f"p{number}": number for number in range(250)}}
    tracker = tracker_of(outputs)
    run_id = started(tracker, RunInfo("many", folder, parameters, {"note": "y" * 9000}))
    shown = read(outputs, run_id).data
    assert len(shown.params) == 252 and len(shown.params["long"]) == 6000 and shown.params["long"].endswith("…")
    assert shown.params["odd_na_me"] == "1"
    assert len(shown.tags["note"]) == 8000


def test_runs_side_by_side_in_one_process_do_not_mix(outputs: Path, folder: Path) -> None:
    trackers = [tracker_of(outputs) for _ in range(2)]
    ids = [started(tracker, RunInfo(f"run {number}", folder)) for number, tracker in enumerate(trackers)]
    for epoch in range(2):
        for number, tracker in enumerate(trackers):
            tracker.log_epoch({"valid/mae": number + epoch / 10}, epoch)
    for tracker in trackers:
        tracker.finish(folder, RESULT)
    assert [history(outputs, run_id, "epochs/valid/mae") for run_id in ids] == [
        [(0, 0.0), (1, 0.1)],
        [(0, 1.0), (1, 1.1)],
    ]
    assert all("mlflow.parentRunId" not in read(outputs, run_id).data.tags for run_id in ids)


def test_a_resumed_run_goes_on_under_its_id(outputs: Path, folder: Path) -> None:
    first = tracker_of(outputs)
    run_id = started(first, RunInfo("resumed", folder, {"trainer.max_epochs": 5}))
    first.log_epoch({"valid/mae": 1.0}, 0)
    first.fail(folder, "stopped by hand")
    assert read(outputs, run_id).info.status == "FAILED"
    assert read(outputs, run_id).data.tags["failure"] == "stopped by hand"
    second = tracker_of(outputs)
    assert second.start(RunInfo("resumed", folder, {"trainer.max_epochs": 9, "new": 1}), run_id) == run_id
    assert read(outputs, run_id).info.status == "RUNNING"
    second.log_epoch({"valid/mae": 0.9}, 1)
    second.finish(folder, RESULT)
    shown = read(outputs, run_id)
    assert shown.info.status == "FINISHED" and history(outputs, run_id, "epochs/valid/mae") == [(0, 1.0), (1, 0.9)]
    assert "failure" not in shown.data.tags
    assert shown.data.params["new"] == "1" and shown.data.tags["resumed with"] == "trainer.max_epochs: 5 -> 9"


def test_a_pruned_trial_is_no_failure(outputs: Path, folder: Path) -> None:
    tracker = tracker_of(outputs)
    run_id = started(tracker, RunInfo("trial", folder))
    tracker.fail(folder, "epoch 2, behind", pruned=True)
    shown = read(outputs, run_id)
    assert shown.info.status == "FINISHED" and shown.data.tags["pruned"] == "epoch 2, behind"


def test_an_entry_of_a_former_version_gets_the_selected_epochs_values(outputs: Path, folder: Path) -> None:
    """Its curves had the plain names; its name is renewed once, and one that a user gives it later stays."""
    from mlflow import MlflowClient

    tracker, client = tracker_of(outputs), MlflowClient(tracking_uri=f"sqlite:///{outputs}/mlflow.db")
    run_id = started(tracker, RunInfo("seed=1 former", folder, id="former"))
    for step, value in enumerate((0.5, 0.4, 0.45), start=1):
        tracker.log({"valid/mae": value}, step)
    tracker.annotate({}, status="FINISHED")
    client.set_tag(run_id, WHOLE, "true")
    today = RunInfo("former seed=1", folder, id="former")
    assert tracker_of(outputs).entry(today, run_id) == "unfinished"
    for _ in range(2):
        again = tracker_of(outputs)
        again.start(today, run_id, again=True)
        again.finish(folder, RESULT.model_copy(update={"epochs": 3}))
        client.update_run(run_id, name="a user's")
    assert again.entry(today, run_id) == "whole" and read(outputs, run_id).info.run_name == "a user's"
    assert read(outputs, run_id).data.metrics["valid/mae"] == 0.4
    assert history(outputs, run_id, "valid/mae") == [(1, 0.5), (2, 0.4), (3, 0.45), (3, 0.4)]


def test_resuming_a_run_that_is_gone_starts_a_new_one(outputs: Path, folder: Path) -> None:
    gone = "0" * 32
    run_id = tracker_of(outputs).start(RunInfo("again", folder), gone)
    assert run_id not in (None, gone)


def test_a_place_that_cannot_be_written_costs_one_line(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    lines: list[str] = []
    tracker = MLflowTracker(tmp_path / "outputs", warn=lines.append)
    tracker.prepare()
    assert tracker.start(RunInfo("run", tmp_path)) is None
    tracker.log_epoch({"valid/mae": 1.0}, 0)
    tracker.finish(tmp_path, RESULT)
    tracker.fail(tmp_path, "reason")
    assert len(lines) == 1 and "\n" not in lines[0] and "Tracking failed" in lines[0]
    hidden = MLflowTracker(tmp_path, uri="nonsense://me:secret@host/x", warn=lines.append)
    assert (
        hidden.start(RunInfo("run", tmp_path)) is None
        and "secret" not in lines[1]
        and "nonsense://***@host/x" in lines[1]
    )


def test_a_place_that_fails_is_told_once_by_all_runs_of_a_process_until_it_answers(tmp_path: Path) -> None:
    lines: list[str] = []

    def answers() -> bool:
        tracker = MLflowTracker(tmp_path, warn=lines.append)
        tracker.prepare()
        return tracker.start(RunInfo("run", tmp_path)) is not None

    database = tmp_path / "mlflow.db"
    database.mkdir()
    assert not answers() and not answers() and len(lines) == 1
    database.rmdir()
    assert answers()
    database.unlink()
    database.mkdir()
    assert not answers() and len(lines) == 2


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("ResponseError('too many 500 error responses')", "too many 500 error responses"),
        ("NewConnectionError(\"HTTPConnection(host='h', port=1): refused\")", "refused"),
        ("SSLError(SSLError(1, 'wrong version (_ssl.c:1006)'))", "SSLError(1, 'wrong version (_ssl.c:1006)')"),
    ],
)
def test_the_cause_of_a_failure_is_not_cut_behind_what_everybody_knows(inner: str, said: str) -> None:
    text = f"API request to http://h:1/api failed with exception Pool(host='h'): Max retries (Caused by {inner})"
    assert cause(RuntimeError(text), "http://h:1") == said


def test_what_a_failure_kept_back_is_handed_in_at_the_end(
    outputs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    tracker = MLflowTracker(outputs, warn=lines.append)
    run_id = started(tracker, RunInfo("interrupted", folder))
    client = tracker._client
    assert client is not None
    for epoch in range(1, 5):
        monkeypatch.setattr("mmsa.tracking.mlflow.time.time", lambda epoch=epoch: 1000.0 + epoch)
        with monkeypatch.context() as server:
            if epoch == 2:
                server.setattr(client, "log_batch", _locked)
            tracker.log_epoch({"valid/mae": 1 / epoch}, epoch)
    assert history(outputs, run_id, "epochs/valid/mae") == [(1, 1.0)], (
        "silent after a failure: a server away costs time"
    )
    tracker.finish(folder, RESULT)
    assert len(lines) == 1 and "database is locked" in lines[0]
    assert history(outputs, run_id, "epochs/valid/mae") == [(epoch, 1 / epoch) for epoch in range(1, 5)]
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:
        query = "SELECT timestamp FROM metrics WHERE run_uuid = ? AND key = 'epochs/valid/mae' ORDER BY step"
        assert [time for (time,) in connection.execute(query, (run_id,))] == [1001000, 1002000, 1003000, 1004000]
    assert read(outputs, run_id).info.status == "FINISHED"


def test_no_password_in_the_folder_of_an_older_run_is_logged(outputs: Path, folder: Path) -> None:
    uri = "postgresql://me:secret@host/x"
    (folder / "config.yaml").write_text(f"tracking:\n  uri: {uri}\n")
    (folder / "overrides.json").write_text(json.dumps([f"tracking.uri={uri}"]))
    tracker = tracker_of(outputs)
    run_id = started(tracker, RunInfo("hidden", folder, {"tracking.uri": uri}))
    tracker.finish(folder, RESULT)
    assert read(outputs, run_id).data.params == {"tracking.uri": "postgresql://me:***@host/x"}
    artifacts = outputs / "mlartifacts" / "mmsa" / run_id / "artifacts"
    assert (artifacts / "config.yaml").read_text() == "tracking:\n  uri: postgresql://me:***@host/x\n"
    assert json.loads((artifacts / "overrides.json").read_text()) == ["tracking.uri=postgresql://me:***@host/x"]


def test_a_database_that_cannot_be_opened_is_told_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.db").mkdir()
    lines: list[str] = []
    begin = time.monotonic()
    assert MLflowTracker(tmp_path, warn=lines.append).start(RunInfo("run", tmp_path)) is None
    assert "is not an MLflow database" in lines[0] and time.monotonic() - begin < 5
    assert capfd.readouterr() == ("", "")


def test_a_database_that_breaks_in_mid_run_is_told_in_one_line(
    outputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    tracker_of(outputs).prepare()
    shutil.copy(outputs / "mlflow.db", tmp_path)
    tracker = MLflowTracker(tmp_path, warn=lines.append)
    started(tracker, RunInfo("run", tmp_path))
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("DROP TABLE metrics")
    tracker.log_epoch({"valid/mae": 0.5}, 1)
    assert len(lines) == 1 and lines[0].startswith("Tracking failed (sqlite:///")
    assert capfd.readouterr() == ("", ""), "MLflow has a traceback for it"


def test_signs_of_a_uri_in_the_path_are_only_signs(tmp_path: Path) -> None:
    outputs = tmp_path / "50%20 of?it #1"
    ensure_database(None, outputs)
    assert (outputs / "mlflow.db").stat().st_size > 100_000


def _locked(*_: object, **__: object) -> None:
    raise sqlite3.OperationalError("database is locked\nwith a second line")


def test_an_experiment_deleted_in_the_ui_comes_back(outputs: Path, folder: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{outputs}/mlflow.db"
    experiment_id = ensure_database(None, outputs, "second")
    MlflowClient(tracking_uri=uri).delete_experiment(experiment_id)
    assert ensure_database(None, outputs, "second") == experiment_id
    assert MLflowTracker(outputs, experiment="second").start(RunInfo("run", folder)) is not None


def _ensure(outputs: Path, ids: Any) -> None:
    try:
        ids.put(ensure_database(None, outputs))
    except BaseException:
        ids.put(traceback.format_exc())
        raise


def test_processes_that_race_make_one_database(tmp_path: Path) -> None:
    ids = CONTEXT.Queue()
    workers = [CONTEXT.Process(target=_ensure, args=(tmp_path, ids)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [ids.get(timeout=60) for _ in workers]
    assert found == found[:1] * 3
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'mmsa'").fetchone() == (1,)


def test_a_database_comes_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, making: Callable[[Path], None]
) -> None:
    """A process that dies while it is made leaves nothing that a later one, or a reader, takes for a database."""
    monkeypatch.setattr(database, "_make", making)
    left = tmp_path / ".mlflow.db-died"
    left.mkdir()
    (left / "mlflow.db").write_text("half of one")
    (tmp_path / "mlflow.db").touch()  # what a connection leaves that wrote nothing
    seen: list[int] = []

    def die(engine: sqlalchemy.Engine) -> None:
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT count(*) FROM runs")).scalar() == 0
        seen.append((tmp_path / "mlflow.db").stat().st_size)
        raise OSError("disk full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full"):
        patched.setattr("mlflow.store.db.utils._upgrade_db", die)
        ensure_database(None, tmp_path)
    assert seen == [0]
    assert ensure_database(None, tmp_path) == ensure_database(None, tmp_path)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE runs (a INT)",
        "CREATE TABLE alembic_version (version_num TEXT)",
        None,
    ],
)
def test_a_file_that_is_no_tracking_database_is_named_and_kept(tmp_path: Path, script: str | None) -> None:
    file = tmp_path / "mlflow.db"
    if script is None:
        file.write_text("not a database " * 100)
    else:
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(script)
            connection.commit()
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="is not an MLflow database") as refused:
        ensure_database(None, tmp_path)
    assert file.read_bytes() == before
    command = str(refused.value).split("type ")[1].split(", or")[0]
    subprocess.run(command, shell=True, check=True)
    assert not file.exists() and (tmp_path / "mlflow.db.broken").read_bytes() == before


@pytest.mark.parametrize("advisory", [True, False])
def test_a_lock_lets_one_in_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advisory: bool) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    if not advisory:
        monkeypatch.setattr("fcntl.flock", refuse)
    inside: list[str] = []

    def enter(name: str) -> None:
        with database._locked(tmp_path / "lock"):
            inside.append(f"{name} in")
            time.sleep(0.05)
            inside.append(f"{name} out")

    threads = [threading.Thread(target=enter, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(inside[at][0] == inside[at + 1][0] for at in range(0, 6, 2)) and len(inside) == 6


def test_a_lock_whose_holder_died_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LOCK_SECONDS", 0.2)
    (tmp_path / "lock").touch()
    with database._locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock.held").exists()


def test_write_ahead_only_where_the_disk_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsa.tracking.database.file_system", lambda folder: "ext4")
    assert can_write_ahead(tmp_path) and not list(tmp_path.iterdir())
    for kind in ("nfs4", "fuse.sshfs", "9p", ""):
        monkeypatch.setattr("mmsa.tracking.database.file_system", lambda folder, kind=kind: kind)
        assert not can_write_ahead(tmp_path)


def test_no_tracking_does_nothing(tmp_path: Path) -> None:
    tracker = NullTracker()
    tracker.prepare()
    assert tracker.start(RunInfo("run", tmp_path)) is None
    tracker.log_epoch({"valid/mae": 1.0}, 0)
    tracker.finish(tmp_path, RESULT)
    tracker.fail(tmp_path, "reason")
    assert not list(tmp_path.iterdir())


def test_a_configuration_becomes_flat() -> None:
    config = {"seed": 1, "encoder": {"text": {"dropout": 0.1}, "audio": {}}, "dataset": {"modalities": ["text"]}}
    flat = flat_parameters(config)
    assert flat == {"seed": 1, "encoder.text.dropout": 0.1, "encoder.audio": {}, "dataset.modalities": ["text"]}
    assert json.dumps(flat)
