"""The Makefile: every target installs once, into the environment that was asked for, or says in one line why not."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = {"setup", "train", "test", "test-slow", "check", "bench", "bench-gpu", "ui", "clean"}
# What an outer `make test VENV=...` hands down must not decide here.
OUTER = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTHON", "VENV", "TORCH", "ARGS"}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

# Stands for a Python: writes down what it is asked, tells its version, makes environments of copies of itself.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$*" in
  *version_info*) echo {version};;
  *ensurepip*) exit {without_venv};;
  *"pip install"*) exit {failing_install};;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/lint-imports";;
esac
"""


@dataclass
class Checkout:
    """A copy of the files that make reads, in a folder with a space, beside a stand-in for Python."""

    folder: Path
    python: Path

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run make as a user would."""
        environment = {key: value for key, value in os.environ.items() if key not in OUTER}
        command = ["make", f"PYTHON={self.python}", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def calls(self) -> list[str]:
        """What the stand-in was asked so far, less the questions about its version and modules."""
        log = self.folder / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if " -c " not in line or "pip install" in line]

    def installs(self) -> list[str]:
        """The calls that install."""
        return [call for call in self.calls if "pip install" in call]


def checkout(
    tmp_path: Path, version: str = "3.12", without_venv: bool = False, failing_install: bool = False
) -> Checkout:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = tmp_path / "python-stand-in"
    log = shlex.quote(str(folder / "calls.log"))
    answers = {"without_venv": int(without_venv), "failing_install": int(failing_install)}
    python.write_text(STAND_IN.format(log=log, version=version, **answers))
    python.chmod(0o755)
    return Checkout(folder, python)


def test_help_is_the_default_and_names_every_target(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    shown = house.make()
    assert shown.returncode == 0
    assert {f"make {name} " for name in TARGETS} == {
        f"make {line.split()[1]} " for line in shown.stdout.splitlines()[: len(TARGETS)]
    }
    assert not house.calls


@pytest.mark.parametrize("target", sorted(TARGETS - {"clean"}))
def test_each_target_installs_on_first_use_and_not_again(tmp_path: Path, target: str) -> None:
    house = checkout(tmp_path)
    first = house.make(target)
    assert first.returncode == 0, first.stderr
    assert [call.split(" -m ")[1] for call in house.installs()] == [
        "pip install -qq --disable-pip-version-check -c constraints.txt -e .[dev]"
    ]
    assert "takes minutes" in first.stdout
    second = house.make(target)
    assert second.returncode == 0
    assert len(house.installs()) == 1
    assert "Installing" not in second.stdout


def test_changed_requirements_are_installed_and_a_touched_file_is_not(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    house.make("setup")
    (house.folder / "constraints.txt").touch()
    house.make("setup")
    assert len(house.installs()) == 1
    with (house.folder / "constraints.txt").open("a") as stream:
        stream.write("six==1.17.0\n")
    house.make("setup")
    assert len(house.installs()) == 2


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    house = checkout(tmp_path, failing_install=True)
    for count in (1, 2):
        failed = house.make("train")
        assert failed.returncode != 0
        assert "did not finish" in failed.stderr
        assert len(house.installs()) == count
    assert not any("train.py" in call for call in house.calls)


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9", "3.10", "3.14", "4.0"])
def test_a_python_that_was_not_tried_gets_one_line(tmp_path: Path, version: str) -> None:
    refused = checkout(tmp_path, version=version).make("train")
    assert refused.returncode != 0
    line, makes_own = refused.stderr.splitlines()
    assert "3.11, 3.12 or 3.13" in line
    assert version in line
    assert "make setup PYTHON=" in line
    assert makes_own.startswith("make: ***")
    assert not refused.stdout


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_python_that_was_tried_is_taken(tmp_path: Path, version: str) -> None:
    assert checkout(tmp_path, version=version).make("setup").returncode == 0


def test_python_without_venv_gets_one_line(tmp_path: Path) -> None:
    house = checkout(tmp_path, without_venv=True)
    refused = house.make("setup")
    assert refused.returncode != 0
    line, makes_own = refused.stderr.splitlines()
    assert "lacks the venv module" in line
    assert "python3.12-venv" in line
    assert makes_own.startswith("make: ***")
    assert not (house.folder / ".venv").exists()


def test_missing_python_gets_one_line(tmp_path: Path) -> None:
    refused = checkout(tmp_path).make("setup", "PYTHON=no-such-python")
    assert refused.returncode != 0
    assert "no-such-python does not start" in refused.stderr.splitlines()[0]
    assert len(refused.stderr.splitlines()) == 2


@pytest.mark.parametrize("conda", [False, True])
def test_another_environment_is_used_as_it_is(tmp_path: Path, conda: bool) -> None:
    house = checkout(tmp_path)
    environment = tmp_path / "some env"
    (environment / "bin").mkdir(parents=True)
    shutil.copy(house.python, environment / "bin" / "python")
    if conda:
        (environment / "conda-meta").mkdir()
    ready = house.make("setup", f"VENV={environment}")
    assert ready.returncode == 0, ready.stderr
    assert not any("venv" in call for call in house.calls)
    assert all(call.startswith("python ") for call in house.calls)
    assert len(house.installs()) == 1
    assert not (house.folder / ".venv").exists()
    assert f'make train VENV="{environment}"' in ready.stdout
    enter = f'conda activate "{environment}"' if conda else f'source "{environment}/bin/activate"'
    assert ready.stdout.splitlines()[-1].strip() == f"{enter} && python train.py"


def test_setup_ends_with_the_line_to_type(tmp_path: Path) -> None:
    lines = checkout(tmp_path).make("setup").stdout.splitlines()
    assert "  make train" in lines
    assert lines[-1].strip() == "source .venv/bin/activate && python train.py"


def test_another_pytorch_comes_first_and_is_remembered(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    house.make("setup", "TORCH=cpu")
    torch, rest = house.installs()
    assert "--no-deps --index-url https://download.pytorch.org/whl/cpu" in torch
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    assert torch.endswith(f"{pinned}+cpu")
    assert rest.endswith("-e .[dev]")
    house.make("train")
    assert len(house.installs()) == 2
    house.make("train", "TORCH=cu126")
    assert "whl/cu126" in house.installs()[2]


def test_options_reach_the_programs(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    house.make("train", "ARGS=seed=2 regularizer=m3")
    house.make("test", "ARGS=tests/parity -x")
    house.make("test-slow")
    house.make("bench", "ARGS=train/mmlatch --rounds 3")
    house.make("ui", "ARGS=--port 5001")
    assert [call for call in house.calls if "pip install" not in call and "venv" not in call] == [
        "python train.py seed=2 regularizer=m3",
        "python -m pytest -n auto --maxprocesses=8 --dist=worksteal tests/parity -x",
        "python -m pytest -m slow --timeout=1800",
        "python -m benchmarks train/mmlatch --rounds 3",
        "python -m mmsa.cli ui --port 5001",
    ]


def test_clean_leaves_runs_stores_and_environments(tmp_path: Path) -> None:
    house = checkout(tmp_path)
    kept = [
        "outputs/mlflow.db",
        "outputs/data/x.h5",
        "outputs/runs/r/__pycache__/x",
        ".venv/lib/__pycache__/x",
        "mmsa/a.py",
    ]
    gone = [
        "mmsa/__pycache__/a.pyc",
        "tests/data/__pycache__/a.pyc",
        ".mypy_cache/x",
        ".pytest_cache/x",
        "build/x",
        "dist/x",
    ]
    for name in kept + gone:
        (house.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (house.folder / name).touch()
    assert house.make("clean").returncode == 0
    assert [name for name in kept if not (house.folder / name).exists()] == []
    assert [name for name in gone if (house.folder / name).parent.exists()] == []
