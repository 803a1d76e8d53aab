from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmsa.analysis.runs import by_configuration, read_run, shown_overrides
from mmsa.analysis.selection import read_runs
from mmsa.errors import DataError

AddRun = Callable[..., Path]


def test_unfinished_and_damaged_runs_are_counted_and_left_out(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7)
    add_run(0.7, status="running")
    add_run(0.7, status="failed", metrics={})
    add_run(0.7, metrics="many")
    (add_run(0.7) / "result.json").write_text('{"name": "cut of')
    (add_run(0.7) / "result.json").unlink()
    (add_run(0.7) / "config.yaml").unlink()
    (add_run(0.7) / "config.yaml").write_text("[cut of")
    (add_run(0.7) / "config.yaml").write_text("")
    (outputs / "runs" / "a file").write_text("not a run")
    found = read_runs(outputs)
    assert (len(found.runs), found.num_unfinished, len(found.damaged)) == (1, 2, 6)


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
    with pytest.raises(DataError, match="this one is failed"):
        read_run(add_run(0.7, status="running"))


def test_a_label_is_the_overrides_without_seed_order_and_bookkeeping() -> None:
    typed = ["seed=3", "regularizer=m3", "dataset=cmu_mosi", "feedback=none", "tracking.uri=x", "feedback=mmlatch"]
    shown = shown_overrides([*typed, "paths.outputs=o", "+seed_text=1", "optimizer.lr=1e-3"], {"optimizer.lr": "0.001"})
    assert list(shown.values()) == ["feedback=mmlatch", "optimizer.lr=0.001", "regularizer=m3", "seed_text=1"]


def grouped(outputs: Path) -> dict[str, list[int]]:
    """Seeds of each row."""
    return {group.label: [run.seed for run in group.runs] for group in by_configuration(read_runs(outputs).runs)}


def test_of_two_runs_with_one_seed_the_newest_counts(outputs: Path, add_run: AddRun) -> None:
    add_run(0.9, seed=1)
    add_run(0.7, seed=1)
    add_run(0.8, seed=2)
    (group,) = by_configuration(read_runs(outputs).runs)
    assert [run.metrics["test/mae"] for run in group.runs] == [0.7, 0.8]


def test_what_computes_the_same_is_one_row_however_it_was_typed(outputs: Path, add_run: AddRun) -> None:
    for seed, overrides in enumerate([("feedback=none",), (), ("optimizer.lr=1e-3", "trainer.max_epochs=20.0")]):
        add_run(0.7, seed, overrides)
    add_run(0.7, 7, ("optimizer.lr=2e-3", "feedback=none"))
    add_run(0.7, 8, ("optimizer.lr=0.002",))
    assert grouped(outputs) == {"defaults": [0, 1, 2], "optimizer.lr=0.002": [7, 8]}


def test_a_run_on_its_own_is_named_as_it_was_typed(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7, 1, ("feedback=none",))
    assert grouped(outputs) == {"feedback=none": [1]}


def test_what_differs_without_being_typed_is_told_apart(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7, 1)
    add_run(0.7, 2, edited=("trainer.max_epochs=6",))
    add_run(0.7, 3, ("optimizer.lr=1",))
    add_run(0.7, 4, ("optimizer.lr=1",), edited=("feedback=static", "fusion.heads=2"))
    add_run(0.7, 5, ("trainer.max_epochs=3",), edited=("trainer.max_epochs=30",))
    assert grouped(outputs) == {
        "trainer.max_epochs=20": [1],
        "trainer.max_epochs=6": [2],
        "optimizer.lr=1 feedback=none": [3],
        "optimizer.lr=1 feedback=static fusion.heads=2": [4],
        "trainer.max_epochs=30": [5],
    }


def test_labels_that_become_equal_by_a_difference_are_told_apart_again(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7, 1)
    add_run(0.7, 2, edited=("optimizer.lr=2",))
    add_run(0.7, 3, ("optimizer.lr=2",), edited=("feedback=static",))
    assert sorted(grouped(outputs).values()) == [[1], [2], [3]]


def test_encoders_that_are_not_used_split_no_row(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7, 1)
    add_run(0.7, 2, edited=("encoder.visual.layers=3", "encoder.default.layers=3"))
    add_run(0.7, 3, ("encoder.audio.layers=3",))
    assert grouped(outputs) == {"defaults": [1, 2], "encoder.audio.layers=3": [3]}
    lips = "dataset.modalities=[text,lips]"
    add_run(0.7, 1, (lips,))
    add_run(0.7, 2, (lips,), edited=("encoder.default.layers=3",))
    assert len(grouped(outputs)) == 4, "the encoder of a modality without one of its own is the default"


def test_trials_of_a_search_are_counted_apart_unless_their_study_is_asked_for(outputs: Path, add_run: AddRun) -> None:
    add_run(0.7)
    valid = {"valid/mae": 0.6}
    add_run(0.7, sweep="study", trial=0, metrics=valid)
    add_run(0.7, sweep="study", trial=1, status="pruned")
    add_run(0.7, sweep="grid", trial=None)
    found = read_runs(outputs)
    assert [run.sweep for run in found.runs] == [None, "grid"] and found.num_unfinished == 0
    assert found.trials == {"study": 2}
    asked = read_runs(outputs, "study")
    assert [run.sweep for run in asked.runs] == ["study"] and asked.num_unfinished == 1 and not asked.trials
