"""A configuration over its seeds is one entry in MLflow, renewed by reconciliation; one seed has none."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from mmsa import summaries
from mmsa.compose import compose
from tests.test_former import WRITTEN
from tests.test_settling import executed


def seeded(outputs: Path, seed: int) -> float:
    """Another seed of the finished run, and its score."""
    run = shutil.copytree(outputs / "runs" / "whole", outputs / "runs" / f"whole-{seed}")
    record = json.loads((run / "result.json").read_text())
    record |= {"id": f"seed-{seed}", "seed": seed, "mlflow_run_id": None}
    record["metrics"]["test/mae"] += seed
    (run / "predictions.csv").unlink()
    (run / "result.json").write_text(json.dumps(record))
    return float(record["metrics"]["test/mae"])


def renew(outputs: Path) -> None:
    summaries.renew_summaries(outputs, compose(["tracking=mlflow", f"paths.outputs={outputs}"]), pytest.fail)


def shown(outputs: Path) -> list[tuple[str, str, float, float]]:
    """Name, life, mean and standard deviation of the entries that are derived."""
    query = """
        SELECT runs.name, lifecycle_stage, mean.value, std.value FROM runs
        JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'derived'
        JOIN latest_metrics mean ON mean.run_uuid = runs.run_uuid AND mean.key = 'test/mae'
        JOIN latest_metrics std ON std.run_uuid = runs.run_uuid AND std.key = 'test std/mae'"""
    with closing(connect(outputs / "mlflow.db")) as database:
        return database.execute(query).fetchall()


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """One finished run."""
    shutil.copytree(WRITTEN / "outputs" / "runs" / "whole", tmp_path / "outputs" / "runs" / "whole")
    return tmp_path / "outputs"


def test_a_summary_follows_its_seeds_and_a_deleted_one_stays_deleted(outputs: Path) -> None:
    first = seeded(outputs, 4) - 4
    renew(outputs)
    ((name, *_, mean, std),) = shown(outputs)
    assert name.endswith(" (2 seeds)") and (mean, std) == pytest.approx((first + 2, 8**0.5))
    seeded(outputs, 2)
    renew(outputs)
    ((name, life, mean, std),) = shown(outputs)
    assert name.endswith(" (3 seeds)") and life == "active" and (mean, std) == pytest.approx((first + 2, 2.0))
    executed(outputs, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name LIKE '%seeds)'")
    seeded(outputs, 6)
    renew(outputs)
    assert [entry[:2] for entry in shown(outputs)] == [(name, "deleted")]


def test_one_seed_has_no_summary_and_asks_nobody(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries.parts, "build_tracker", lambda *_, **__: pytest.fail("a tracker was asked"))
    summaries.renew_summaries(outputs, compose([f"paths.outputs={outputs}"]), print)
