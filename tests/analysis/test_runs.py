from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmsa.analysis.runs import by_configuration, configuration_of, read_run, read_runs
from mmsa.errors import DataError

AddRun = Callable[..., Path]


def test_unfinished_and_damaged_runs_are_counted_and_left_out(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7)
    add_run(0.7, status="running")
    add_run(0.7, status="failed", metrics=None)
    add_run(0.7, metrics="many")
    (add_run(0.7) / "result.json").write_text('{"name": "cut of')
    (add_run(0.7) / "result.json").unlink()
    (outputs / "runs" / "a file").write_text("not a run")
    found = read_runs(outputs)
    assert (len(found.runs), found.num_unfinished, found.num_damaged) == (1, 2, 3)


def test_an_outputs_folder_without_runs_holds_none(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "nowhere").runs == ()


def test_only_the_runs_of_a_sweep(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7, sweep="one")
    add_run(0.8, sweep="two")
    add_run(0.8, sweep="two", status="failed")
    found = read_runs(outputs, "two")
    assert [run.sweep for run in found.runs] == ["two"] and found.num_unfinished == 1


def test_reading_a_folder_that_is_no_finished_run_says_so(tmp_path: Path, add_run: AddRun) -> None:
    with pytest.raises(DataError, match="not the folder of a run"):
        read_run(tmp_path)
    with pytest.raises(DataError, match="this one is running"):
        read_run(add_run(0.7, status="running"))


def test_a_configuration_is_its_overrides_without_seed_order_and_bookkeeping() -> None:
    typed = ["seed=3", "regularizer=m3", "dataset=cmu_mosi", "feedback=none", "tracking.uri=x", "feedback=mmlatch"]
    assert configuration_of([*typed, "paths.outputs=o", "+seed_text=1"]) == (
        "feedback=mmlatch",
        "regularizer=m3",
        "+seed_text=1",
    )


def test_of_two_runs_with_one_seed_the_newest_counts(outputs: Path, add_run: AddRun) -> None:
    add_run(0.9, seed=1)
    add_run(0.7, seed=1)
    add_run(0.8, seed=2)
    (seeds,) = by_configuration(read_runs(outputs).runs).values()
    assert [run.metrics["test/mae"] for run in seeds] == [0.7, 0.8]
