"""docs/serving.md: its lines run, from data of one's own to an answer over HTTP, in a real server."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import mmsa
from mmsa.commands import serve_command
from mmsa.record import RunRecord
from tests import warm
from tests.conftest import ROOT
from tests.house.test_docs import commands, fenced
from tests.serving.requests import BAD, GOOD, check_refused

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
WIDTHS = {"text": 3, "audio": 2, "visual": 2}
SMALL = ["hidden_dim=2", "trainer.max_epochs=1", "device=cpu", "device.threads=1"]


def typed(line: str, cwd: Path) -> str:
    """What a line of `mmsa` prints."""
    done = warm.typed(line, cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def own_data(path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 5, 24)
    total = int(lengths.sum())
    arrays = {f"features/{m}": rng.normal(size=(total, width)) for m, width in WIDTHS.items()}
    offsets = {f"offsets/{m}": np.array([0, *lengths.cumsum()]) for m in WIDTHS}
    ids = np.array([f"v{n}_0" for n in range(24)])
    about = {"id": ids, "fold": np.repeat(["train", "valid", "test"], 8), "target": rng.normal(size=24)}
    np.savez(path, **about, **arrays, **offsets)  # type: ignore[arg-type]


def asked(record: dict[str, object], path: Path) -> None:
    """Write a record as a file of named arrays."""
    parts = {m: np.array(record[m], np.float32) for m in WIDTHS if m in record}
    steps = {f"offsets/{m}": np.array([0, len(part)]) for m, part in parts.items()}
    np.savez(path, id=np.array([record["id"]]), **{f"features/{m}": part for m, part in parts.items()}, **steps)  # type: ignore[arg-type]


@contextmanager
def served(line: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server that a line starts, from when it answers; it ends as by Ctrl-C."""
    address = f"http://127.0.0.1:{line.rpartition(' ')[2]}/ping"
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            line, shell=True, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(address):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=5).status == 200)
    except OSError:
        return False


def post(port: str, sent: str) -> tuple[int, str]:
    """The status and the text of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", sent.encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_own_data_to_a_served_ensemble_with_one_number_from_command_line_python_and_http(tmp_path: Path) -> None:
    own_data(tmp_path / "own.npz")
    typed("mmsa prepare custom --source own.npz", tmp_path)
    options = ["dataset=custom", "dataset.source=own.npz", *SMALL]
    typed(f"mmsa train -m seed=1,2,3 {' '.join(options)}", tmp_path)
    runs = [path for path in (tmp_path / "outputs" / "runs").iterdir() if (path / "result.json").is_file()]
    for run in runs:
        seed = RunRecord.read(run).seed
        run.rename(run.with_name("RUN" if seed == 1 else f"RUN{seed}"))
    (line,) = commands("mmsa", PAGE)
    printed = typed(line, tmp_path)
    environment = dict(os.environ)
    for name, value in [line.removeprefix("export ").split("=") for line in commands("export", PAGE)]:
        environment[name] = value.replace("$PWD", str(ROOT)).replace("$PATH", os.environ["PATH"])
    ping, curl = commands("curl", PAGE)
    record = json.loads(curl.partition(" -d ")[2].strip("'"))["inputs"][0]
    asked(record, tmp_path / "new.npz")
    (of_line,) = csv.DictReader(io.StringIO(typed("mmsa predict reviews --input new.npz", tmp_path)))
    of_python = mmsa.predict(tmp_path / "reviews", record)
    assert of_python.spread is not None
    columns = [of_python.values, of_python.spread, *of_python.by_seed.values()]
    assert [float(value) for value in list(of_line.values())[1:]] == [float(column[0]) for column in columns]
    first, download, second = commands("mlflow", PAGE)
    subprocess.run(download, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert f"{first.partition(' --host')[0]} --port 5001\n" in printed, "the line of the page, for any host"
    elsewhere = environment | {"PATH": "/usr/bin:/bin"}
    with pytest.MonkeyPatch.context() as patch:  # where the environment is not activated
        patch.chdir(tmp_path)
        patch.setenv("PATH", elsewhere["PATH"])
        third = serve_command(environment["MLFLOW_TRACKING_URI"], "models:/reviews/1")
    for server, variables in ((first, environment), (second, environment), (third, elsewhere)):
        port = free_port()
        with served(server.replace("5001", port), tmp_path, variables):
            assert "200" in shell(f"{ping} -s -o /dev/null -w %{{http_code}}".replace("5001", port))
            (of_http,) = json.loads(shell(curl.replace("5001", port)))["predictions"]
            assert {name: str(value) for name, value in of_http.items()} == of_line
            if server == first:
                for sent, records in GOOD.values():
                    status, text = post(port, sent)
                    expected = mmsa.predict(tmp_path / "reviews", records)
                    assert status == 200, text
                    assert [row["prediction"] for row in json.loads(text)["predictions"]] == expected.values.tolist()
                for sent, said in BAD:
                    check_refused(*post(port, sent), said, tmp_path, ROOT)
    (shown,) = fenced(PAGE, "json")
    assert list(json.loads(shown)["predictions"][0]) == list(of_line)


def shell(line: str) -> str:
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout
