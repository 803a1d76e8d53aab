"""Lines to type start our programs wherever they are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmsa.program import training

NAME = "it's (1) é"


def program(path: Path, says: str) -> None:
    """A program that says who it is and what it was given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s|' {says} \"$@\"\n")
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of an environment that is not activated, and another mmsa that is on the path."""
    programs = tmp_path / NAME / ".venv" / "bin"
    program(programs / "python", "python")
    program(programs / "mmsa", "mmsa")
    program(tmp_path / "other" / "bin" / "mmsa", "another")
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setenv("PATH", f"{tmp_path / 'other' / 'bin'}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return programs


def said(line: str) -> str:
    """What a shell's program says that is given two words more."""
    return subprocess.run(f"{line} 'a b' c", shell=True, capture_output=True, text=True).stdout


def test_it_is_a_path_where_the_shell_would_find_another_or_none(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(training()) == "mmsa|train|a b|c|"
    monkeypatch.chdir("/")
    assert said(training()) == "mmsa|train|a b|c|"
    monkeypatch.chdir(tmp_path / NAME)
    assert training() == ".venv/bin/mmsa train" and said(training()) == "mmsa|train|a b|c|"
    monkeypatch.chdir(environment)
    assert said(training()) == "mmsa|train|a b|c|"


def test_it_is_its_name_in_an_activated_environment(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{environment}:{os.environ['PATH']}")
    assert training() == "mmsa train" and said(training()) == "mmsa|train|a b|c|"


def test_a_program_that_is_linked_elsewhere_is_the_one_that_was_started(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "other" / "bin" / "mmsa"), "report"])
    assert training() == "mmsa train"


def test_without_an_installation_python_starts_it(environment: Path) -> None:
    (environment / "mmsa").unlink()
    assert said(training()) == "python|-m|mmsa.cli|train|a b|c|"


def test_train_py_is_typed_again_as_it_was(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["my checkout/train.py", "seed=2"])
    assert said(training()) == "mmsa|train|a b|c|", "another train.py may call mmsa.run"
    monkeypatch.setattr("mmsa.program.CHECKOUT", tmp_path / "my checkout")
    assert said(training()) == "python|my checkout/train.py|a b|c|"
    monkeypatch.setenv("PATH", f"{environment}:{os.environ['PATH']}")
    assert training() == "python 'my checkout/train.py'"
