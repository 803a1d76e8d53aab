"""What answers at once imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "mlflow", "optuna", "pandas", "sklearn", "matplotlib", "transformers"}


def imported(*arguments: str) -> set[str]:
    """Top-level packages that a fresh Python imports for these arguments."""
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("module", ["mmsa", "mmsa.errors", "mmsa.config", "mmsa.cli", "mmsa.tracking.ui"])
def test_import_is_light(module: str) -> None:
    packages = imported("-c", f"import {module}")
    assert "mmsa" in packages
    assert not packages & HEAVY


def test_help_of_train_is_light() -> None:
    packages = imported("train.py", "--help")
    assert "hydra" in packages
    assert not packages & HEAVY


def test_help_of_the_command_is_light() -> None:
    packages = imported("-c", "import sys; sys.argv = ['mmsa', '--help']; from mmsa.cli import main; main()")
    assert not packages & HEAVY
