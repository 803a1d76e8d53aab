"""`mmsa ui`: a server on the loopback interface, its training view, and an orderly end."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from mmsa import cli
from mmsa.compose import compose
from mmsa.errors import DataError, MmsaError
from mmsa.reporting import report_errors
from mmsa.tracking import ui
from mmsa.tracking.database import _schemas

ROOT = Path(__file__).parents[2]


def small_database(folder: Path, *, names: tuple[str, ...], stage: str = "active") -> Path:
    """A database with the tables that the address and the version are read from."""
    folder.mkdir(parents=True)
    database = folder / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT, lifecycle_stage TEXT)")
        connection.executemany("INSERT INTO experiments VALUES (?, ?, ?)", [(i, n, stage) for i, n in enumerate(names)])
        connection.execute("CREATE TABLE experiment_tags (experiment_id INTEGER, key TEXT, value TEXT)")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (_schemas().get_current_head(),))
        connection.commit()
    return database


def test_without_runs_it_says_what_makes_some_there(tmp_path: Path) -> None:
    outputs = tmp_path / "a=b (1) it's é"
    with pytest.raises(MmsaError, match="holds no tracked runs yet") as refused:
        cli.command(["ui", "--outputs", str(outputs)])
    with pytest.raises(DataError, match="nowhere is not the folder of a run"):
        cli.command(["ui", "nowhere"])
    start, _, typed = str(refused.value).splitlines()[-1].partition(" mmsa train ")
    assert start == "  type" and compose(shlex.split(typed)).paths.outputs == str(outputs)
    assert not outputs.exists()


def test_a_taken_port_is_passed_over() -> None:
    with socket.create_server((ui.HOST, 0)) as holder:
        taken = holder.getsockname()[1]
        assert ui.free_port(taken) > taken


def test_a_port_taken_on_all_interfaces_is_passed_over() -> None:
    with socket.create_server(("0.0.0.0", 0)) as holder:
        taken = holder.getsockname()[1]
        assert ui.free_port(taken) > taken


def test_a_free_port_is_kept() -> None:
    with socket.create_server((ui.HOST, 0)) as holder:
        free = holder.getsockname()[1]
    assert ui.free_port(free) == free


@pytest.mark.parametrize("port", ["0", "65536", "five"])
def test_an_impossible_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_errors(lambda: cli.command(["ui", "--port", port]), show_traceback=False) == 1
    assert "mmsa ui: Invalid value for '--port'" in capsys.readouterr().err


def test_the_training_view_is_that_of_our_experiment(tmp_path: Path) -> None:
    database = small_database(tmp_path / "a folder, 50% #1?", names=("Default", "other", "mmsa"))
    view = "http://127.0.0.1:5000/#/experiments/2/runs?workflowType=machine_learning"
    assert ui.training_view(database, 5000) == view


def test_without_the_experiment_the_root_is_shown(tmp_path: Path) -> None:
    assert ui.training_view(small_database(tmp_path / "a", names=("Default",)), 5000) == "http://127.0.0.1:5000/"
    deleted = small_database(tmp_path / "b", names=("mmsa",), stage="deleted")
    assert ui.training_view(deleted, 5000) == "http://127.0.0.1:5000/"


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("not a database " * 100)
    with pytest.raises(MmsaError, match="not an MLflow database"):
        ui.training_view(database, 5000)


def test_a_folder_that_may_only_be_read_is_not_taken_for_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = small_database(tmp_path / "the irs", names=("mmsa",)).parent
    theirs.chmod(0o555)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(
        MmsaError, match=r"the irs may only be read.*\n  type (.+) && \S*mmsa ui --outputs FOLDER$"
    ) as told:
        ui.serve(theirs, 5000)
    line = re.search(r"type (.+) && ", str(told.value))
    assert line
    subprocess.run(line[1].replace("FOLDER", "mine"), shell=True, check=True, cwd=tmp_path)
    assert (tmp_path / "mine" / "mlflow.db").is_file() and (tmp_path / "mine").stat().st_mode & stat.S_IWUSR


def test_a_server_that_ends_by_itself_shows_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(outputs: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as stream:
            command = [sys.executable, "-c", "import sys; print('the schema is too old'); sys.exit(3)"]
            return subprocess.Popen(command, stdout=stream, start_new_session=True)

    small_database(tmp_path / "outputs", names=("mmsa",))
    monkeypatch.setattr(ui, "start_server", broken)
    with pytest.raises(MmsaError, match="the schema is too old") as ended:
        ui.serve(tmp_path / "outputs", 5000)
    assert str(tmp_path / "outputs" / "ui.log") in str(ended.value)


SERVER = """
import http.server, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
time.sleep(0.6)  # the other program answers before this one finds its port taken
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).handle_request()
"""


def test_a_server_that_took_the_port_meanwhile_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports: list[int] = []

    def start(outputs: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
        ports.append(port)
        with log.open("wb") as stream:
            command = [sys.executable, "-c", SERVER, str(port)]
            return subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)

    def answer(other: socket.socket) -> None:
        while True:
            try:
                connection, _ = other.accept()
            except OSError:  # closed
                return
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nOK")

    small_database(tmp_path / "outputs", names=("mmsa",))
    monkeypatch.setattr(ui, "start_server", start)
    free = ui.free_port
    with socket.create_server((ui.HOST, 0)) as other:
        taken = other.getsockname()[1]
        # It was free a moment ago, when both programs asked.
        monkeypatch.setattr(ui, "free_port", lambda first: taken if first == taken else free(first))
        threading.Thread(target=answer, args=(other,), daemon=True).start()
        with pytest.raises(MmsaError, match="The MLflow server ended"):  # after the one request that it answers
            ui.serve(tmp_path / "outputs", taken)
    assert ports[0] == taken < ports[1] == ports[-1]
    shown = capsys.readouterr().out
    assert f"Port {taken} is taken; using {ports[1]}" in shown
    assert f"http://127.0.0.1:{ports[1]}/" in shown and f":{taken}/" not in shown
