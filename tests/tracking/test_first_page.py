"""What MLflow's UI shows without a click, read from its pages in a real browser: numbers are those of result.json."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

import mmsa
from mmsa import cli
from mmsa.tracking import ui
from tests.browser import Browser

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


def clone(run: Path, name: str, changed: dict[str, Any], **options: Any) -> Path:
    """A run's folder once more, as another run would have left it."""
    other = shutil.copytree(run, run.with_name(name))
    record = json.loads((run / "result.json").read_text())
    (other / "result.json").write_text(json.dumps(record | {"id": name, "mlflow_run_id": None} | changed))
    config = (run / "config.yaml").read_text()
    for option, value in options.items():
        config = re.sub(rf"^{option}: .*$", f"{option}: {value}", config, flags=re.MULTILINE)
    (other / "config.yaml").write_text(config)
    return other


@pytest.fixture(scope="module")
def outputs(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one configuration, one of which was trained, and a pruned trial."""
    folder = tmp_path_factory.mktemp("pages") / "outputs"
    typed = ["feedback=mmlatch", "hidden_dim=4", "trainer.max_epochs=3", "seed=1"]
    places = [f"paths.data={stores}", f"paths.outputs={folder}", "device=cpu", "tracking=none"]
    first = mmsa.run([*typed, *places]).folder
    record = json.loads((first / "result.json").read_text())
    for seed in (2, 3):
        scores = {name: value and value + 0.01 * seed for name, value in record["metrics"].items()}
        overrides = [word.replace("seed=1", f"seed={seed}") for word in record["overrides"]]
        clone(first, f"{first.name}-{seed}", {"seed": seed, "metrics": scores, "overrides": overrides}, seed=seed)
    end = {"status": "pruned", "reason": "epoch 2, behind", "sweep": "search", "trial": 4, "metrics": {}}
    clone(first, f"{first.name}-pruned", end)
    cli.command(["track", "--all", "--outputs", str(folder)])
    return folder
