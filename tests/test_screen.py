"""The whole screen of a program in a Python of its own: nothing but our lines."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.warm import FOREIGN

TASK_OF_TWO = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
"""Variables of the second task of `#SBATCH --ntasks=2`."""


def test_a_first_run_in_a_job_of_slurm_shows_no_line_of_a_library(small: list[str], tmp_path: Path) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(stat.S_IRWXU)
    command = [sys.executable, "train.py", *small, "tracking=mlflow", "fusion=concat", "trainer.max_epochs=1"]
    environment = {**os.environ, **TASK_OF_TWO, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not FOREIGN.search(done.stdout), done.stdout
    assert list(tmp_path.glob("outputs/runs/*/checkpoints/best.pt")), "although its number is not 0"


@pytest.mark.parametrize(
    "line",
    [
        "2026/11/29 15:02:15 ERROR mlflow.store.db.utils: SQLAlchemy database error.",
        "INFO  [alembic.runtime.migration] Context impl SQLiteImpl.",
        "submitit WARNING (2026-11-29 14:37:34,100) - Call #1 - Bypassing sacct error",
        "/x/site-packages/lightning_fabric/plugins/environments/slurm.py:204: The `srun` command is available",
        "/x/site-packages/lightning_fabric/plugins/environments/slurm.py:204: PossibleUserWarning: `srun`",
        "(Background on this error at: https://sqlalche.me/e/21/e3q8)",
    ],
)
def test_lines_of_libraries_are_known_as_such(line: str) -> None:
    assert FOREIGN.search(f"  epoch 1\n{line}\n")
