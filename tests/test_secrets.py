"""Secrets of addresses are in nothing that is stored or shown, and reach the place that needs them."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from omegaconf import OmegaConf

import mmsa
from mmsa import build
from mmsa.analysis.runs import run_of
from mmsa.commands import browse_command, train_command
from mmsa.compose import compose
from mmsa.errors import ConfigError, DataError
from mmsa.multirun import MultirunCallback
from mmsa.overrides import native_overrides
from mmsa.record import RunRecord
from mmsa.reporting import in_few_lines
from mmsa.resume import continued
from mmsa.run_folder import read_config
from mmsa.secrets import address, as_stored, check_place, conceal, hidden, without_secrets
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.slots import Slot
from mmsa.sweep.storage import open_storage
from mmsa.sweep.supervisor import Seat
from mmsa.tracking.mlflow import MLflowTracker
from tests.sweep.conftest import base
from tests.sweep.sweeps import LR, make, work

__all__ = ["base"]
CANARY = "CANARY"
SHOWN = {
    "postgresql://me:CANARY@host/x": "postgresql://me:***@host/x",
    "postgresql+psycopg://me@host/x": "postgresql+psycopg://me@host/x",
    "postgresql://me:a/CANARY b@host:1/x?sslmode=require&sslpassword=CANARY": (
        "postgresql://me:***@host:1/x?sslmode=require&sslpassword=***"
    ),
    "postgresql://me:p@CANARY@host/x?o=a@b": "postgresql://me:***@host/x?o=***",
    "postgresql:///x?host=/tmp/s&user=me&password=CANARY": "postgresql:///x?host=/tmp/s&user=me&password=***",
    "mssql+pyodbc:///?odbc_connect=PWD%3DCANARY": "mssql+pyodbc:///?odbc_connect=***",
    "http://u:CANARY@127.0.0.1:5000": "http://***@127.0.0.1:5000",
    "http://u:a/CANARY@host": "http://***@host",
    "https://CANARY@host": "https://***@host",
    "https://CANARY:@host": "https://***@host",
    "http://host:80/x@y": "http://host:80/x@y",
    "http://host/?CANARY": "http://host/?***",
    "http://host/?token=CANARY": "http://host/?token=***",
    "http://host/a?sslmode=require;token=CANARY": "http://host/a?sslmode=***",
    "http://[::1]:5000/x": "http://[::1]:5000/x",
    "sqlite:///x.db?token=CANARY": "sqlite:///x.db?token=***",
    "a://h/x,postgresql://me:CANARY@h/y": "a://h/x,postgresql://me:***@h/y",
    "see http://u:CANARY@h/x and postgresql://a:CANARY@h/y.": "see http://***@h/x and postgresql://a:***@h/y.",
    "${oc.env:X}": "${oc.env:X}",
    "postgresql://${oc.env:U}:${oc.env:P}@h/x": "postgresql://${oc.env:U}:${oc.env:P}@h/x",
    "postgresql://me:CANARY@${oc.env:H}/x": "postgresql://me:***@${oc.env:H}/x",
    "postgresql://me:${oc.env:P,CANARY}@h/x": "postgresql://me:***@h/x",
    "${oc.env:X,postgresql://me:CANARY@h/x}": "${oc.env:X,postgresql://me:***@h/x}",
}


@pytest.mark.parametrize("text", SHOWN)
def test_what_is_a_secret_in_an_address(text: str) -> None:
    assert hidden(text) == SHOWN[text] == hidden(SHOWN[text])


def test_what_a_library_says_of_an_address_names_no_part_of_its_secret() -> None:
    said = "Max retries with url: /?token=CANARY/api, of http://u:CAN%40ARY@h/?token=CANARY; user u, CAN@ARY"
    shown = without_secrets(said, "http://u:CAN%40ARY@h/?token=CANARY")
    assert "CAN" not in shown and shown.endswith("user u, ***")


def test_a_failure_names_no_secret_whatever_a_library_says(monkeypatch: pytest.MonkeyPatch) -> None:
    true = f"postgresql://me:{CANARY}@host/x"

    def refuse(*_: object) -> None:
        raise RuntimeError(f"{'long ' * 28}{CANARY} of {true}")

    lines: list[str] = []
    MLflowTracker(uri=true, warn=lines.append)._attempt(refuse)
    monkeypatch.setattr("mmsa.sweep.storage._open", refuse)
    with pytest.raises(ConfigError, match="cannot be opened") as failed:
        open_storage(true)
    for text in (lines[0], str(failed.value)):
        assert "CAN" not in text and "***" in text


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A tracking server that refuses everything: its host and port, and what it was sent to be let in."""
    sent: list[str] = []

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(f"{base64.b64decode(self.headers.get('Authorization', '').partition(' ')[2])!r} {self.path}")
            self.send_error(403)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{listening.server_port}", sent
        listening.shutdown()


def files_with(secret: str, folder: Path) -> list[Path]:
    """The files below a folder that have a text in their name or their bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret in str(path) or secret.encode() in path.read_bytes()]


def test_a_run_keeps_no_secret_and_goes_on_with_it(
    small: list[str],
    server: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    host, sent = server
    uri = f"http://u:{CANARY}@{host}"
    monkeypatch.setenv("STORES", small[0].partition("=")[2])
    typed = [*small, "paths.data=${oc.env:STORES}", "trainer.max_epochs=1", "tracking=mlflow", f"tracking.uri={uri}"]
    folder = mmsa.run(typed).folder
    printed = capfd.readouterr()
    assert sent and all(f"u:{CANARY}" in request for request in sent), "MLflow gets the true address"
    assert f"Tracking failed (http://***@{host})" in printed.out and CANARY not in printed.out + printed.err
    assert files_with(CANARY, tmp_path) == []
    stored = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert stored["tracking"]["uri"] == f"http://***@{host}" and stored["paths"]["data"] == "${oc.env:STORES}"  # type: ignore[index, call-overload]
    assert f"tracking.uri=http://***@{host}" in RunRecord.read(folder).overrides
    assert mmsa.load(folder).config.paths.data == os.environ["STORES"]
    assert run_of(folder, RunRecord.read(folder)).configuration["hidden_dim"] == "6"

    record = RunRecord.read(folder).model_copy(update={"status": "failed"})
    record.write(folder)
    resumed = [f"trainer.resume={folder}"]
    assert "MMSA_TRACKING" not in os.environ
    with pytest.raises(ConfigError, match=r"secret is stored nowhere.\n  type export MMSA_TRACKING=ADDRESS"):
        mmsa.run(resumed)
    monkeypatch.setenv("MMSA_TRACKING", "http://u:other@elsewhere")
    with pytest.raises(ConfigError, match=r"MMSA_TRACKING names http://\*\*\*@elsewhere, but"):
        mmsa.run(resumed)
    monkeypatch.setenv("MMSA_TRACKING", uri)
    build.check(continued(compose(resumed), resumed)[0])
    other = [*resumed, f"tracking.uri=http://u:{CANARY}2@{host}"]
    cfg, lines = continued(compose(other), other)
    assert address("tracking.uri", cfg.tracking.uri) == f"http://u:{CANARY}2@{host}" and CANARY not in str(lines)

    monkeypatch.delenv("STORES")
    with pytest.raises(DataError, match=r"STORES, which is not set.\n  type export STORES=VALUE"):
        mmsa.load(folder)
    assert files_with(CANARY, tmp_path) == []


def test_a_sweep_keeps_no_secret_and_its_workers_get_it(
    base: list[str],
    server: tuple[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    host, sent = server
    monkeypatch.setenv("MMSA_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
    monkeypatch.setenv("STUDY", f"sqlite:///{tmp_path / 'study.db'}")
    places = ["tracking=mlflow", f'tracking.uri="http://u:{CANARY}@{host}"', "sweep.storage=${oc.env:STUDY}"]
    made = make(*base, LR, "sweep.trials=1", "trainer.max_epochs=1", *places)
    assert work(made).best_trial.number == 0 and sent and all(f"u:{CANARY}" in request for request in sent)
    printed = capfd.readouterr()
    assert CANARY not in printed.out + printed.err and files_with(CANARY, tmp_path) == []
    assert "'sweep.storage=${oc.env:STUDY}'" in made.study.user_attrs["mmsa"]["command"]
    assert SweepSpec.load(Path(made.spec.folder)).options["storage"] == "${oc.env:STUDY}"

    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], **options: Any) -> None:
        started.append((command, env))

    monkeypatch.setattr(psutil, "Popen", start)
    Seat(Slot("cpu 1", "cpu-1", {}), 1, tmp_path / "log").start(Path(made.spec.folder), None)
    ((command, environment),) = started
    assert CANARY not in str(command) and environment["MMSA_TRACKING"] == f"http://u:{CANARY}@{host}"


def test_a_storage_is_asked_for_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "postgresql+psycopg://me:***@127.0.0.1:1/none"
    with pytest.raises(ConfigError, match=r"none: its secret is stored nowhere.\n  type export MMSA_STORAGE=ADDRESS"):
        open_storage(shown)
    monkeypatch.setenv("MMSA_STORAGE", f"postgresql://me:{CANARY}@127.0.0.1:1/other")
    with pytest.raises(
        ConfigError, match=r"MMSA_STORAGE names postgresql://me:\*\*\*@127.0.0.1:1/other, but"
    ) as refusal:
        open_storage(shown)
    assert CANARY not in str(refusal.value)
    monkeypatch.setenv("MMSA_STORAGE", f"postgresql+psycopg://me:{CANARY}@127.0.0.1:1/none")
    monkeypatch.setenv("SAME", os.environ["MMSA_STORAGE"])
    check_place("sweep.storage", "${oc.env:SAME}")
    with pytest.raises(ConfigError, match="cannot be opened") as failed:
        open_storage(shown)
    assert CANARY not in str(failed.value) and shown in str(failed.value)
    with pytest.raises(ConfigError, match=r"variable DB, which is not set.\n  type export DB=VALUE"):
        open_storage("${oc.env:DB}")


def test_a_secret_in_a_file_of_options_goes_into_no_other_file() -> None:
    cfg = compose(["tracking=mlflow"])
    cfg.tracking.uri = f"postgresql://me:{CANARY}@host/x"
    MultirunCallback().on_run_start(cfg)
    assert CANARY.encode() not in pickle.dumps(cfg), "as a launcher writes it for its jobs"
    assert address("tracking.uri", cfg.tracking.uri) == f"postgresql://me:{CANARY}@host/x"
    assert conceal(cfg).tracking.uri == "postgresql://me:***@host/x" == as_stored(cfg)["tracking"]["uri"]


@pytest.mark.parametrize("form", ["{}", '"{}"', "'{}'"])
@pytest.mark.parametrize("key", ["tracking.uri", "+tracking.uri", "++sweep.storage"])
def test_what_is_typed_reaches_neither_hydra_nor_a_line_to_type(key: str, form: str) -> None:
    true = f"http://u:{CANARY}@h/?token={CANARY}"
    typed = f"{key}={form.format(true)}"
    assert CANARY not in str(native_overrides([typed, "-m"])) + train_command([typed])
    assert address(key.lstrip("+"), "http://***@h/?token=***") == true
    assert CANARY not in in_few_lines(ConfigError(f"--{typed}: no"))


def test_an_sqlite_file_takes_no_password(tmp_path: Path) -> None:
    cfg = compose(["tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path}/x.db?token={CANARY}"])
    with pytest.raises(ConfigError, match=r"takes neither password nor token.\n  type tracking.uri=sqlite:///FILE"):
        build.check(cfg)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("uri", "variable"), [("postgresql://me:***@host/x", "MMSA_TRACKING"), ("${oc.env:DB}", "DB")])
def test_the_line_that_browses_takes_the_address_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, variable: str
) -> None:
    true = f"postgresql://me:{CANARY}@host/x"
    monkeypatch.setenv("DB", true)
    line = browse_command("outputs", uri)
    assert CANARY not in line
    (tmp_path / "mlflow").write_text('#!/bin/sh\necho "$* of $MLFLOW_BACKEND_STORE_URI"\n')
    (tmp_path / "mlflow").chmod(0o755)
    line = re.sub(r"\S*mlflow ui", "mlflow ui", line)
    there = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", line], env={**there, variable: true}, capture_output=True, text=True)
    assert done.stdout == f"ui of {true}\n"
    monkeypatch.setenv("DB", f"http://u:{CANARY}@h:1/?token={CANARY}")
    assert browse_command("outputs", "${oc.env:DB}") == "http://h:1/"
    if variable == "MMSA_TRACKING":
        assert subprocess.run(["sh", "-c", line], env=there, capture_output=True).returncode, "it says what it lacks"


def test_a_number_of_the_environment_is_stored_and_a_text_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIDTH", "8")
    monkeypatch.setenv("OUT", str(tmp_path))
    cfg = compose(['hidden_dim="${oc.decode:${oc.env:WIDTH}}"', "paths.outputs=${oc.env:OUT}", "tracking=none"])
    stored = as_stored(cfg)
    assert stored["hidden_dim"] == 8 == stored["encoder"]["text"]["hidden_dim"], "it decides the result"
    assert stored["paths"]["outputs"] == "${oc.env:OUT}"
    (tmp_path / "config.yaml").write_text(json.dumps(stored))
    assert read_config(tmp_path).paths.outputs == str(tmp_path)
    monkeypatch.delenv("OUT")
    with pytest.raises(DataError, match=r"OUT, which is not set.\n  type export OUT=VALUE, and then the same command"):
        read_config(tmp_path)
    with pytest.raises(Exception, match="OUT") as failed:
        build.check(compose(["paths.outputs=${oc.env:OUT}", "name=${paths.outputs}"]))
    assert "type export OUT=VALUE" in in_few_lines(failed.value)
