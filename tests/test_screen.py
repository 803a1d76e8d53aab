"""The whole screen of a program in a Python of its own: nothing but our lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.warm import FOREIGN, in_a_job


def screen(*words: str, cwd: Path, environment: Mapping[str, str]) -> str:
    """All that a program prints in a Python of its own."""
    done = subprocess.run([sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert not FOREIGN.search(done.stdout), done.stdout
    return done.stdout


@pytest.mark.slow
def test_no_program_shows_a_line_of_a_library(small: list[str], tmp_path: Path) -> None:
    typed = [str(ROOT / "train.py"), *small, "tracking=mlflow", "fusion=concat", "trainer.max_epochs=1"]
    where: dict[str, Any] = {"cwd": tmp_path, "environment": in_a_job(tmp_path)}
    assert "browse it: " in screen(*typed, **where)
    (run,) = tmp_path.glob("outputs/runs/*")
    (run / "result.json").write_text((run / "result.json").read_text().replace('"finished"', '"failed"'))
    assert "resumes after 1 epoch" in screen(typed[0], f"trainer.resume={run}", **where)
    assert "(2 seeds)" in screen(*typed, "-m", "seed=1,2", "hydra/launcher=submitit_local", **where)
    search = ["sweep=search", "optimizer.lr=tag(log,interval(1e-3,1e-2))", "sweep.trials=2", "sweep.study=study"]
    assert "2 of 2 trials done" in screen(*typed, *search, "sweep.slots=1", **where)
    jobs = ["sweep.trials=3", "sweep.workers=1", "hydra/launcher=submitit_local"]
    assert "3 of 3 trials done" in screen(*typed, *search, *jobs, **where)


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
