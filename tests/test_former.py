"""A store and run folders of an earlier commit (tests/former, 3f76e35) open, report, evaluate and resume."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

import mmsa
from mmsa import cli
from mmsa.analysis.runs import by_configuration
from mmsa.analysis.selection import read_runs
from mmsa.run_folder import read_config, stored_config

pytestmark = pytest.mark.usefixtures("undrawn")
WRITTEN = Path(__file__).parent / "former"
FORMER = "/FORMER"
"""Stands in the texts for the folder in which they were written."""


def written_in(folder: Path) -> Path:
    """A copy of what that commit wrote, as if it had been written there."""
    shutil.copytree(WRITTEN, folder)
    for path in [*folder.rglob("*.json"), *folder.rglob("*.yaml"), *folder.rglob("run.log")]:
        path.write_text(path.read_text(encoding="utf-8").replace(FORMER, str(folder)), encoding="utf-8")
    return folder


def second_seed(run: Path, folder: Path) -> Path:
    """A copy of a run's folder as that of seed 2."""
    shutil.copytree(run, folder)
    for name in ("config.yaml", "result.json"):
        text = (folder / name).read_text()
        changed = text.replace("seed: 1", "seed: 2").replace('"seed": 1', '"seed": 2')
        assert changed != text
        (folder / name).write_text(changed)
    return folder


@pytest.fixture
def former(tmp_path: Path) -> Path:
    return written_in(tmp_path / "former")


def overrides(former: Path, run: str) -> list[str]:
    """What was typed, and what was the default then."""
    typed = json.loads((former / "outputs" / "runs" / run / "overrides.json").read_text())
    return [*typed, "dataset.kind=number"]


def history(folder: Path) -> list[list[float]]:
    with (folder / "history.csv").open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


def test_a_run_loads_and_its_evaluation_is_what_was_recorded(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = former / "outputs" / "runs" / "whole"
    recorded = json.loads((folder / "result.json").read_text())["metrics"]
    metrics, _ = mmsa.load(folder).evaluate("test")
    assert metrics == pytest.approx({name: recorded[f"test/{name}"] for name in metrics}, nan_ok=True, abs=1e-6)
    cli.command(["evaluate", str(folder), "--missing"])
    assert "differs" not in capsys.readouterr().out
    cli.command(["report", "--outputs", str(former / "outputs")])
    assert capsys.readouterr().out.startswith("former (former.npz), test fold, data "), "as its configuration says"


def test_a_new_run_of_its_configuration_stands_in_its_row_and_takes_its_store(former: Path) -> None:
    kept = sorted((former / "outputs" / "data").glob("*.h5"))
    before = [path.stat().st_mtime_ns for path in kept]
    mmsa.run([*overrides(former, "whole"), "seed=2"], quiet=True)
    assert sorted((former / "outputs" / "data").glob("*.h5")) == kept
    assert [path.stat().st_mtime_ns for path in kept] == before
    found = read_runs(former / "outputs")
    (group,) = by_configuration(found.runs)
    assert [run.seed for run in group.runs] == [1, 2] and (found.num_unfinished, len(found.damaged)) == (1, 0)


def test_a_stopped_run_that_was_moved_goes_on_there_as_where_it_was(former: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(former, tmp_path / "moved")
    ends = []
    for place in (former, moved):
        stopped = place / "outputs" / "runs" / "stopped"
        source = ["dataset=custom", f"dataset.source={place / 'former.npz'}"]
        before = history(stopped)
        result = mmsa.run([f"trainer.resume={stopped}", *source], quiet=True)
        assert result.folder == stopped
        assert read_config(result.folder).paths.outputs == str(place / "outputs")
        ends.append(history(result.folder))
        assert repr(ends[-1][: len(before)]) == repr(before)
        shutil.rmtree(place / "outputs")  # nothing is looked for where it was
    assert repr(ends[0]) == repr(ends[1]) and len(ends[0]) == 3


def test_only_parts_of_ours_take_new_names_and_the_options_that_came_later(tmp_path: Path) -> None:
    former = "mmsa.training.optimizers."
    stored = {"optimizer": {"_target_": "own.sgd"}, "scheduler": {"_target_": f"{former}plateau", "patience": 3}}
    (tmp_path / "config.yaml").write_text(json.dumps(stored))
    objective = {"_target_": "mmsa.objective.task.TaskObjective"}
    plateau = {"_target_": "mmsa.training.schedules.plateau", "patience": 3}
    assert stored_config(tmp_path) == stored | {"scheduler": plateau, "objective": objective}
    (tmp_path / "config.yaml").write_text(json.dumps({"optimizer": {"_target_": f"{former}adam", "lr": 0.1}}))
    adam = {"_target_": f"{former}adam", "lr": 0.1, "decay_biases": True, "groups": {}}
    assert stored_config(tmp_path) == {"optimizer": adam, "objective": objective} == read_config(tmp_path)
    (tmp_path / "config.yaml").write_text(
        json.dumps({"task": {"_target_": "mmsa.training.classification.Classification"}})
    )
    assert stored_config(tmp_path)["task"]["class_weights"] is None


def test_a_run_that_was_tracked_goes_on_without_a_tracker(former: Path) -> None:
    folder = former / "outputs" / "runs" / "stopped"
    record = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    (folder / "result.json").write_text(json.dumps(record | {"mlflow_run_id": "0" * 32}), encoding="utf-8")
    assert mmsa.run([f"trainer.resume={folder}"], quiet=True).run_id == "0" * 32
