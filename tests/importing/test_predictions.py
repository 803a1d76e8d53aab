"""The ids, the values and the columns of a file are those of the data and the task, or are refused by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmsa import cli
from mmsa.data.naming import EMOTIONS
from mmsa.data.store import Store
from mmsa.errors import DataError
from mmsa.importing.predictions import Lines
from mmsa.importing.sheet import read_sheet
from mmsa.importing.utterances import rows_of
from mmsa.record import RunRecord
from mmsa.stages import Task
from mmsa.training.classification import Classification
from mmsa.training.metrics import classification_metrics
from mmsa.training.regression import Regression
from tests.importing.conftest import Do, imports, write

SENTIMENT = Regression()


def lines(
    tmp_path: Path, store: Store, rows: Sequence[Sequence[object]], names: Sequence[str] = ("id", "prediction"),
    task: Task = SENTIMENT,
) -> Lines:  # fmt: skip
    return Lines(read_sheet(write(tmp_path / "x.csv", rows, names)), store, task)


def refused(said: str, *given: object, **named: object) -> None:
    with pytest.raises(DataError, match=said) as refusal:
        lines(*given, **named)  # type: ignore[arg-type]
    assert len(str(refusal.value).splitlines()) == 2, refusal.value


def test_an_id_is_that_of_the_data_in_any_spelling_of_the_field(store: Store) -> None:
    rows = list(range(0, len(store.ids), 7))
    pairs = [re.fullmatch(r"(.+)\[(\d+)\]", store.ids[row]) for row in rows]
    for spelling in ("{}[{}]", "{}$_${}", "{}_{}"):
        ids = [spelling.format(*pair.groups()) for pair in pairs if pair]
        assert rows_of(Path("x"), ids, store) == rows and len(rows) > 20


def test_ids_that_count_segments_from_another_number_are_not_taken_for_the_next_ones(store: Store) -> None:
    """MMSA's pickles of CMU-MOSI count from 1, its computational sequences from 0."""
    known = replace(store, ids=[f"v_{video}[{segment}]" for video in range(3) for segment in range(9)])
    for last in (9, 8):  # of a part of a fold each id is one of the data
        ids = [f"v_{video}$_${segment}" for video in range(3) for segment in range(1, last + 1)]
        with pytest.raises(DataError, match="count the segments of each video from 1, those of synthetic from 0"):
            rows_of(Path("x"), ids, known)
    ids = [f"v_{video}$_${segment}" for video in range(3) for segment in range(9)]
    assert rows_of(Path("x"), ids, known) == list(range(27))
    assert rows_of(Path("x"), [f"v_1[{segment}]" for segment in range(1, 9)], known) == list(range(10, 18))


def test_ids_that_are_not_of_the_data_are_listed_with_the_nearest(tmp_path: Path, store: Store) -> None:
    wrong = [f"{store.ids[0]}x", "", "zz"]
    near = re.escape(f"{wrong[0]} may be {store.ids[0]}")
    rows = [(store.ids[1], 0), (wrong[0], 0), (wrong[2], 0)]
    refused(
        rf"2 of 3 ids are none of synthetic: {re.escape(wrong[0])}, zz\.\n  write .*: {near}; zz", tmp_path, store, rows
    )
    refused("1 of its 2 lines have no id", tmp_path, store, [(store.ids[0], 0), ("", 0)])
    refused("no line below its first", tmp_path, store, [])
    many = [(f"nobody{i}", 0) for i in range(30)]
    refused("30 of 30 ids are none of synthetic: nobody0, nobody1, nobody2 and 27 more", tmp_path, store, many)


def test_an_id_counts_once_per_seed_however_it_is_written(tmp_path: Path, store: Store) -> None:
    name = store.ids[0]
    other = name.replace("[", "$_$").rstrip("]")
    refused(
        "2 ids stand in several lines: .*\n  leave one line each, or add a column seed",
        tmp_path,
        store,
        [(name, 0), (other, 1)],
    )
    seeds = ("id", "prediction", "seed")
    lines(tmp_path, store, [(name, 0, 1), (other, 1, 2)], seeds)
    refused(
        "1 ids of seed 2 stand in several lines", tmp_path, store, [(name, 0, 1), (name, 1, 2), (name, 0, 2)], seeds
    )
    for odd in ("-1", "0.5", "nan", "", "1e300", "two"):
        refused("a seed is ", tmp_path, store, [(name, 0, odd)], seeds)


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "1e31", "1_0", "positive", "1,5", "\x1b[31m"])
def test_a_prediction_is_a_finite_number(value: str, tmp_path: Path, store: Store) -> None:
    refused(
        r"1 predictions are no finite number: '.+' of ", tmp_path, store, [(store.ids[0], value), (store.ids[1], 0)]
    )


def test_classes_are_whole_numbers_of_the_task(do: Do, tmp_path: Path, store: Store, test_ids: list[str]) -> None:
    task = Classification()
    for value in ("2", "-1", "0.5", "Positive"):
        refused("are no class, a whole number from 0 to 1", tmp_path, store, [(store.ids[0], value)], task=task)
    labels = (store.targets["sentiment"][store.folds == "test"] >= 0).astype(int)
    predicted = np.where(np.arange(len(labels)) % 3, labels, 1 - labels)
    (folder,), said = do(write(tmp_path / "c.csv", zip(test_ids, predicted, strict=True)), "task=classification")
    record = RunRecord.read(folder)
    assert record.task == "classification" and "c (imported)" in said
    expected = classification_metrics(predicted, labels)
    assert {name: record.metrics[f"test/{name}"] for name in expected} == pytest.approx(expected)


def test_columns_of_a_target_are_columns_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmsa.settling.write_figures", lambda folder, record: [])
    monkeypatch.setattr("mmsa.importing.run.fit_beside", lambda *given: {})
    rng = np.random.default_rng(0)
    count = 24
    truth = (np.arange(count * 6).reshape(count, 6) % 4).astype(np.float32) / 3
    np.savez(
        tmp_path / "own.npz",
        **{"target/emotions": truth, "target/sarcasm": (np.arange(count) % 2).astype(np.float32)},
        **{"id": np.array([f"v{i}[0]" for i in range(count)]), "fold": ["train", "train", "valid", "test"] * 6},
        **{"features/audio": rng.normal(size=(count, 3)).astype(np.float32), "offsets/audio": np.arange(count + 1)},
    )  # fmt: skip
    ids = [f"v{i}[0]" for i in range(3, count, 4)]
    names = ["id", *(f"Prediction {name.title()}" for name in EMOTIONS)]
    file = write(tmp_path / "x.csv", [(name, *row) for name, row in zip(ids, truth[3::4].tolist(), strict=True)], names)
    outputs = tmp_path / "outputs"
    places = ["--source", str(tmp_path / "own.npz"), f"paths.outputs={outputs}", "tracking=none", "dataset.doctor=warn"]
    cli.command(["import", "custom", str(file), *places, "task.target=emotions"])
    record = RunRecord.read(imports(outputs)[0])
    assert record.metrics["test/mae"] == pytest.approx(0, abs=1e-6) and "test/corr_emotions" in record.metrics
    with pytest.raises(DataError, match="no column prediction sad; it has id, prediction happy"):
        cli.command(
            [
                "import",
                "custom",
                str(write(tmp_path / "y.csv", [(ids[0], 1)], names[:2])),
                *places,
                "task.target=emotions",
            ]
        )
    classes = write(tmp_path / "z.csv", [(name, i % 2) for i, name in enumerate(ids)])
    with pytest.raises(DataError, match="are 0 and 1, and task=regression of sarcasm goes from -1 to 1"):
        cli.command(["import", "custom", str(classes), *places, "task.target=sarcasm"])
    cli.command(["import", "custom", str(classes), *places, "task.target=sarcasm", "task=classification"])
    assert len(imports(outputs)) == 2
