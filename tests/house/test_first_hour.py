"""A user's first hour, from the clone to a table on a file of CMU-MOSI, replayed from the README alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


class Terminal:
    """A terminal in a fresh clone, whose user knows the README and what the screen has shown.

    Args:
        folder: the clone.
        own: what the user brings, such as the path of a file.
    """

    def __init__(self, folder: Path, own: str) -> None:
        self.folder, self.shown, self._known = folder, "", f"{README} {own}"
        self._first = ""

    def start(self, line: str) -> subprocess.Popen[str]:
        """Type a line, all of whose words stand in the README or have been on the screen."""
        guessed = [word for word in line.split() if word not in self._known and word not in self.shown]
        assert not guessed, f"{line}: nothing says {guessed}"
        print(f"$ {line}", flush=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MMSA", "VIRTUAL_ENV"))}
        return subprocess.Popen(
            ["bash", "-c", f"{self._first}{line}"],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def read(self, process: subprocess.Popen[str], until: str = "") -> str:
        """What a program prints, to its end or to a line with a text."""
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            printed += line
            if until and until in line:
                break
        self.shown += printed
        return printed

    def type(self, line: str) -> str:
        """Type a line that ends well; returns what it prints."""
        with self.start(line) as process:
            printed = self.read(process)
        assert process.returncode == 0, printed
        return printed

    def activate(self) -> None:
        """Type what the README says once, for all later lines."""
        line = "source .venv/bin/activate"
        self.type(line)
        self._first = f"{line} && "

    @contextmanager
    def interrupted(self, line: str, until: str) -> Iterator[str]:
        """Type a line, look at what it has printed when a text comes, and then press Ctrl-C."""
        with self.start(line) as process:
            try:
                yield self.read(process, until)
            finally:
                os.killpg(process.pid, signal.SIGINT)
                self.read(process)


def after(label: str, printed: str) -> str:
    """The line to type that stands behind a label."""
    (line,) = re.findall(rf"{re.escape(label)}: +(.+)", printed)
    return str(line)


def figures(text: str) -> list[str]:
    """Numbers of a table's rows, from the one of the run on."""
    rows = [line for line in text.splitlines() if re.match(r"(defaults|mean|majority|ridge) ", line)]
    return re.findall(r"\d\.\d{3}", " ".join(rows))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_first_hour(shared: Path, tmp_path: Path) -> None:
    pickle = shared / "data" / "pickles" / "mmsa_unaligned_50.pkl"
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "mmsa"], check=True)
    terminal = Terminal(tmp_path / "mmsa", str(pickle))
    python = "" if shutil.which("python3") == sys.executable else f" PYTHON={sys.executable}"
    terminal.shown += python  # this machine's, which `make help` names
    first = terminal.type(f"make train{python}")
    begin, end = README.index("<!-- begin: make train -->"), README.index("<!-- end: make train -->")
    assert figures(first) == figures(README[begin:end]) != []
    terminal.activate()

    prepared = terminal.type(f"mmsa prepare cmu_mosi --source {pickle}")
    train = after("train on it", prepared)
    assert "mmsa_unaligned_50.pkl" in terminal.type(train)
    assert "defaults" in terminal.type("mmsa report")

    with terminal.interrupted(f"{train} hidden_dim=100", "epoch   2"):
        pass
    goes_on = after("resume it", terminal.shown)
    assert "resumes after" in terminal.type(goes_on)

    grid = terminal.type(f"{train} sweep=grid seed=1,2,3")
    assert re.search(r"fusion=concat.*\(3 seeds\)", grid)
    table = terminal.type(after("the same table later", grid))
    assert re.search(r"fusion=concat.*\(3 seeds\)", table)

    with terminal.interrupted("make ui", "Ctrl-C") as shown:
        address = after("The runs", shown)
        server, _, experiment = address.partition("#/experiments/")
        with urllib.request.urlopen(server) as answer:
            assert answer.status == 200
        asked = {"experiment_ids": [experiment.partition("/")[0]], "max_results": 100}
        request = urllib.request.Request(
            f"{server}api/2.0/mlflow/runs/search", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            runs = json.load(answer)["runs"]
    statuses = [run["info"]["status"] for run in runs]
    assert len(runs) >= 6 and set(statuses) == {"FINISHED"}, statuses

    notebook = tmp_path / "mmsa" / "notebooks" / "tour.ipynb"
    begin_time = time.monotonic()
    subprocess.run(
        [tmp_path / "mmsa" / ".venv" / "bin" / "jupyter", "execute", notebook], check=True, cwd=notebook.parent
    )
    print(f"the notebook: {time.monotonic() - begin_time:.0f} s")
