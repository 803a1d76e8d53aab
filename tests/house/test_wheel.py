"""Installed without a checkout, `mmsa train` is `python train.py`, and every line to type works where it is printed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.wheel import installed_in

Typed = Callable[[str], str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_in(tmp_path_factory.mktemp("installed"))


@pytest.fixture(params=["activated", "not activated"])
def typed(installed: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Typed:
    """What a line prints that is typed in an empty folder; mmsa stands for the program."""
    folder = tmp_path / "an empty (1) folder"
    folder.mkdir()
    activated = request.param == "activated"
    environment = {**os.environ, "PATH": f"{installed}:/usr/bin:/bin" if activated else "/usr/bin:/bin"}

    def run(line: str) -> str:
        if not activated:
            line = re.sub("^mmsa ", f"{installed}/mmsa ", line)
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "Traceback" not in done.stderr, (line, done.stdout, done.stderr)
        return done.stdout

    return run


def told(printed: str, before: str) -> str:
    """The line to type that is printed after some words."""
    return re.findall(rf"{before}: (.*)", printed)[-1]


FAST = "debug=fast device=cpu"
ODD = """ "paths.outputs=it's (1) é" """


@pytest.mark.slow
def test_every_line_that_is_printed_works(typed: Typed, tmp_path: Path) -> None:
    printed = typed(f"mmsa train {FAST}")
    line = told(printed, "all runs in one table")
    assert "1 seed" in typed(line) and "@inproceedings" in typed(f"{line} --bibtex")
    printed = typed(f"mmsa train {FAST} -m seed=1,2 hydra/launcher=joblib hydra.launcher.n_jobs=2 {ODD}")
    assert "2 seeds" in typed(told(printed, "the same table later"))
    printed = typed(f"mmsa train {FAST} tracking=mlflow {ODD}")
    assert "/runs/" in typed(f"echo {told(printed, 'browse it')}")
    assert "--port" in typed(f"{told(printed, 'browse it')} --help")
    search = f"mmsa train sweep=search {FAST} {ODD} sweep.slots=1 sweep.trials=2 'optimizer.lr=interval(1e-4,1e-2)'"
    printed = typed(search)
    assert "2 of 2 trials" in typed(told(printed, "the same table later"))
    assert "2 of them done" in typed(told(printed, "to resume"))
    rerun = re.findall("read the test fold:\n  (.*)", printed)[0]
    assert "a grid of 5 points" in typed(f"{rerun} sweep.slots=1 sweep.timeout=0.001")
    (run,) = tmp_path.glob("*/outputs/runs/*")
    assert "equal to result.json" in typed(f"mmsa evaluate '{run}'")


@pytest.mark.slow
def test_a_stopped_run_resumes(installed: Path, tmp_path: Path) -> None:
    longer = ["debug=fast", "device=cpu", "trainer.max_epochs=20", "trainer.patience=20", "paths.outputs=it's (1) é"]
    command = [installed / "mmsa", "train", *longer]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/runs/*/checkpoints/last.pt")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    done = subprocess.run(told(printed, "resume it"), shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "trainer.max_epochs=20 reached" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["--help", "--cfg job seed=2 encoder/text=bigru", "--info defaults", "--nope"])
def test_it_prints_what_train_py_prints(installed: Path, tmp_path: Path, arguments: str) -> None:
    def ended(*program: str | Path) -> tuple[int, str, str]:
        done = subprocess.run([*program, *arguments.split()], cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout.replace(" ".join(map(str, program)), "PROGRAM"), done.stderr

    assert ended("python", ROOT / "train.py") == ended(installed / "mmsa", "train")
