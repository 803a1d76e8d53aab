"""What answers at once imports nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.records import record

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


def test_what_a_first_step_does_not_need_is_imported_where_it_is_used() -> None:
    at_the_top = re.compile(r"^(?:import|from) (mlflow|pandas|sklearn|transformers)\b", re.MULTILINE)
    modules = list((ROOT / "mmsa").rglob("*.py"))
    assert len(modules) > 200
    found = {str(path.relative_to(ROOT)): at_the_top.findall(path.read_text(encoding="utf-8")) for path in modules}
    assert not {path: names for path, names in found.items() if names}


def test_help_of_train_is_light() -> None:
    packages = imported("train.py", "--help")
    assert "hydra" in packages
    assert not packages & HEAVY


def test_help_of_the_command_is_light() -> None:
    packages = imported("-c", "import sys; sys.argv = ['mmsa', '--help']; from mmsa.cli import main; main()")
    assert not packages & HEAVY


def test_a_report_is_light(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "20260101-000000_run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "result.json").write_text(record(metrics={"test/mae": 1.0, "test/corr": 0.5}).model_dump_json())
    packages = imported("-m", "mmsa.cli", "report", "--outputs", str(tmp_path))
    assert "numpy" in packages
    assert not packages & (HEAVY | {"hydra", "h5py"})
