"""What answers at once imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "mlflow", "optuna", "pandas", "sklearn", "matplotlib", "transformers"}


def imported(*arguments: str) -> set[str]:
    """Top-level packages that a fresh Python imports for these arguments."""
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_imports_are_light() -> None:
    packages = imported(
        "-c", "import mmsa.cli, mmsa.completion, mmsa.multirun, mmsa.summaries, mmsa.tracking.ui, mmsa.train"
    )
    assert {"mmsa", "hydra"} <= packages and not packages & HEAVY


def test_help_of_train_is_light() -> None:
    packages = imported("train.py", "--help")
    assert "hydra" in packages
    assert not packages & HEAVY


def test_help_of_the_command_is_light() -> None:
    packages = imported("-c", "import sys; sys.argv = ['mmsa', '--help']; from mmsa.cli import main; main()")
    assert not packages & HEAVY
