"""Predictions of other systems become runs, which are compared with those that were trained here."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import mmsa
from mmsa import cli
from mmsa.analysis.differences import differences
from mmsa.analysis.predictions import read_predictions
from mmsa.analysis.runs import by_configuration, read_run
from mmsa.analysis.selection import read_runs
from mmsa.errors import ConfigError, DataError
from mmsa.occupancy import run_folders
from mmsa.record import NO_SEED, RunRecord
from mmsa.run_folder import read_rows
from mmsa.training.metrics import regression_metrics
from tests.importing.conftest import Do, imports, write


def report(outputs: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    cli.command(["report", *words, "--outputs", str(outputs)])
    return capsys.readouterr().out


def copy_of(trained: Path, outputs: Path) -> Path:
    return Path(shutil.copytree(trained, outputs / "runs" / trained.name))


def test_our_own_predictions_have_our_metrics_and_baselines_and_do_not_differ(
    trained: Path, do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,), said = do(trained / "predictions.csv", "--name", "back", baselines=True)
    ours, theirs = RunRecord.read(trained), RunRecord.read(folder)
    assert theirs.metrics == {name: value for name, value in ours.metrics.items() if not name.endswith("/loss")}
    assert theirs.baselines == ours.baselines
    assert (theirs.data, theirs.task, theirs.primary) == (ours.data, ours.task, ours.primary)
    assert read_rows(folder / "predictions.csv") == read_rows(trained / "predictions.csv")
    assert theirs.imported.file == "predictions.csv" and theirs.seed == NO_SEED
    assert theirs.imported.sha256 == hashlib.sha256((trained / "predictions.csv").read_bytes()).hexdigest()
    assert "back (imported)" in said and f"run folder: {folder}" in said

    outputs = tmp_path / "outputs"
    copy_of(trained, outputs)
    groups = by_configuration(read_runs(outputs).runs)
    assert {group.label for group in groups} == {"ours", "back (imported)"}
    found = differences(groups, "ours", ["mae", "corr", "acc7", "f1_non0"])
    assert len(found) == 4 and all(one.difference.mean == 0 and not one.marked for one in found)
    text = report(outputs, "--reference", "ours", capsys=capsys)
    assert "back (imported) " in text and "back (imported) (" not in text and "seed=-1" not in text
    for style in ("html", "table"):
        by_seed = report(outputs, "name=back", "--seeds", "--no-baselines", "--format", style, capsys=capsys)
        assert "back (imported)" in by_seed and "seed -1" not in by_seed and "seed=" not in by_seed
    assert "back (imported)" in text.partition("\n\n")[2] and "†" not in text.partition("\n\n")[2]
    assert "ours" not in report(outputs, "name=back", "--no-baselines", capsys=capsys).partition("\n\n")[2]
    for style in ("csv", "latex", "html", "markdown"):
        assert "back (imported)" in report(outputs, "synthetic", "--format", style, capsys=capsys)


def test_an_import_leaves_the_names_of_other_rows_as_they_are(do: Do, tmp_path: Path, test_ids: list[str]) -> None:
    from tests.records import record

    outputs = tmp_path / "outputs"
    do(write(tmp_path / "a.csv", [(name, 0) for name in test_ids]))
    fingerprint = {"data": {"fingerprint": RunRecord.read(imports(outputs)[0]).data.fingerprint, "store": "a"}}
    for number, value in enumerate(("none", "mmlatch")):
        folder = outputs / "runs" / f"trained{number}"
        folder.mkdir()
        (folder / "config.yaml").write_text(f"feedback: {value}\nhidden_dim: 5\n")
        typed = ["hidden_dim=5", f"feedback={value}"]
        shown = {"dataset": "synthetic", "overrides": typed, "metrics": {"test/mae": 1.0}, "primary": ["mae"]}
        record(**shown | fingerprint).write(folder)
    from mmsa.analysis.shape import Shape

    groups, notes = Shape().groups(read_runs(outputs).runs)
    assert {group.label for group in groups} == {"feedback=none", "feedback=mmlatch", "a (imported)"}
    assert notes == ["all trained rows: hidden_dim=5"]


def test_a_constant_and_a_copy_of_the_labels_are_imported_with_a_warning(
    do: Do, tmp_path: Path, test_ids: list[str], labels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    (constant,), said = do(write(tmp_path / "constant.csv", [(name, 0.5) for name in test_ids]), baselines=True)
    record = RunRecord.read(constant)
    assert math.isnan(record.metrics["test/corr"]) and record.metrics["test/mae"] > 0 and record.baselines
    assert not [name for name in [*record.metrics, *record.baselines["mean"]] if name.startswith("valid/")]
    (copy,), _ = do(write(tmp_path / "labels.csv", zip(test_ids, labels.tolist(), strict=True)))
    assert RunRecord.read(copy).metrics["test/mae"] == 0 and RunRecord.read(copy).metrics["test/acc7"] == 1
    assert "constant (imported)" in said
    warnings = [line for line in report(tmp_path / "outputs", capsys=capsys).splitlines() if "warning:" in line]
    assert warnings[0].startswith("warning: constant (imported): the predictions vary 0 times as much")
    assert warnings[1].startswith("warning: labels (imported): 100.0% of the predictions equal their labels")


def test_each_seed_of_a_file_is_a_run_of_one_row(
    do: Do, tmp_path: Path, test_ids: list[str], labels: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(name, label + seed, float(seed)) for seed in (3, 1) for name, label in zip(test_ids, labels, strict=True)]
    folders, _ = do(write(tmp_path / "x.csv", rows, ("id", "prediction", "seed")), "--name", "their system")
    assert [RunRecord.read(folder).seed for folder in folders] == [1, 3]
    assert [round(RunRecord.read(folder).metrics["test/mae"], 4) for folder in folders] == [1, 3]
    text = report(tmp_path / "outputs", "--metrics", "mae", capsys=capsys)
    assert "their system (imported) (2 seeds)" in text and "2.000 ± 1.414" in text
    (again,), _ = do(
        write(tmp_path / "x5.csv", zip(test_ids, labels + 5, strict=True)), "--name", "their system", "seed=5"
    )
    assert RunRecord.read(again).seed == 5
    assert "their system (imported) (3 seeds)" in report(tmp_path / "outputs", capsys=capsys)


def test_folds_are_those_of_the_data_and_test_unless_the_file_names_them(do: Do, tmp_path: Path, trained: Path) -> None:
    rows = [(row["id"], row["prediction"], row["fold"]) for row in read_rows(trained / "predictions.csv")]
    without = write(tmp_path / "a.csv", [row[:2] for row in rows])
    (folder,), said = do(without)
    record = RunRecord.read(folder)
    assert {name.partition("/")[0] for name in record.metrics} == {"test"} and set(record.imported.utterances) == {
        "test"
    }
    assert f"{record.data.utterances['valid']} lines of the valid fold left out" in said
    (folder,), _ = do(without, "--fold", "both", "--name", "b")
    assert {name.partition("/")[0] for name in RunRecord.read(folder).metrics} == {"valid", "test"}
    (folder,), _ = do(without, "--fold", "valid", "--name", "c")
    assert RunRecord.read(folder).fold == "valid"
    named = write(
        tmp_path / "d.csv",
        [(*row[:2], {"valid": "Dev"}.get(row[2], "TEST")) for row in rows],
        ("id", "prediction", "fold"),
    )
    (folder,), _ = do(named)
    assert RunRecord.read(folder).metrics.items() <= RunRecord.read(trained).metrics.items()
    swapped = write(tmp_path / "e.csv", [(*row[:2], "test") for row in rows], ("id", "prediction", "fold"))
    with pytest.raises(DataError, match=r"lines are of other folds than in these data: .* is of valid, the file says"):
        do(swapped)


def test_a_partial_import_is_refused_or_has_a_table_in_which_all_rows_are_of_its_utterances(
    do: Do, tmp_path: Path, trained: Path, test_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = {row["id"]: float(row["prediction"]) for row in read_rows(trained / "predictions.csv")}
    held = [*test_ids[3:-7:2]]
    file = write(tmp_path / "llm.csv", [(name, own[name] + 0.25) for name in held] + [(test_ids[0], "")])
    with pytest.raises(DataError, match=rf"{len(test_ids) - len(held)} of {len(test_ids)} utterances of the test fold"):
        do(file)
    (folder,), said = do(file, "--partial", baselines=True)
    outputs = tmp_path / "outputs"
    copy_of(trained, outputs)
    note = "every row is scored only on the utterances that llm (imported) predicts"
    assert note in said and f", test fold, {len(held)} of {len(test_ids)} utterances, data " in said
    whole, partial = csv_tables(report(outputs, "--format", "csv", capsys=capsys))
    assert [row["label"] for row in whole if row["kind"] == "configuration"] == ["ours"]
    assert {row["utterances"] for row in whole} == {str(len(test_ids))} and {row["utterances"] for row in partial} == {
        str(len(held))
    }
    table = read_predictions(trained, "test")
    places = [table.rows[name, 0] for name in held]
    expected = regression_metrics(table.predicted[places], table.truth[places])
    scores = {row["label"]: row for row in partial if row["kind"] == "configuration"}
    assert list(scores) == ["llm (imported)", "ours"] or list(scores) == ["ours", "llm (imported)"]
    for name in ("mae", "corr", "acc7", "acc2_has0", "f1_non0"):
        assert float(scores["ours"][f"{name}_mean"]) == pytest.approx(expected[name], abs=1e-9)
    assert {row["label"] for row in partial if row["kind"] == "baseline"} == set(RunRecord.read(folder).baselines)
    truth = table.truth[places]
    mean = json.loads((folder / "result.json").read_text())["baselines"]["mean"]["test/mae"]
    assert mean != pytest.approx(RunRecord.read(trained).baselines["mean"]["test/mae"], abs=1e-6) and len(truth)
    text = report(outputs, "--reference", "ours", "--metrics", "mae", capsys=capsys)
    assert note in text and f"paired on {len(held)} utterances" in text and "not from the predictions" not in text
    do(trained / "predictions.csv", "--name", "back")  # so that the rows of the whole are compared before
    text = report(outputs, "--reference", "ours", "--metrics", "mae", capsys=capsys)
    assert all(f"paired on {number} utterances" in text for number in (len(test_ids), len(held)))
    assert "not from the predictions" not in text


def csv_tables(text: str) -> list[list[dict[str, str]]]:
    """The rows of each table of a report in CSV, by the number of their utterances."""
    rows = list(csv.DictReader(io.StringIO(text)))
    numbers = dict.fromkeys(row["utterances"] for row in rows)
    return [[row for row in rows if row["utterances"] == number] for number in numbers]


def test_seeds_of_a_partial_file_count_where_all_have_a_prediction(do: Do, tmp_path: Path, test_ids: list[str]) -> None:
    rows = [(name, 0, 1) for name in test_ids[1:]] + [(name, 1, 2) for name in test_ids[:-1]]
    folders, _ = do(write(tmp_path / "x.csv", rows, ("id", "prediction", "seed")), "--partial")
    assert {RunRecord.read(folder).imported.utterances["test"] for folder in folders} == {len(test_ids) - 2}
    assert [row["id"] for row in read_rows(folders[0] / "predictions.csv")] == test_ids[1:-1]


def test_a_whole_import_replaces_the_partial_one_of_its_name(
    do: Do, tmp_path: Path, test_ids: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    do(write(tmp_path / "x.csv", [(name, 0) for name in test_ids[1:]]), "--partial")
    (former,) = imports(tmp_path / "outputs")
    whole = write(tmp_path / "x.csv", [(name, 0) for name in test_ids])
    with pytest.raises(ConfigError, match="has other predictions of this name and seed") as refused:
        do(whole)
    assert str(former) in str(refused.value) and "type --replace to" in str(refused.value)
    (folder,), said = do(whole, "--replace")
    assert f"replaced in tables, and kept: {former}\n" in said and former.is_dir()
    folder.rename(folder.with_name(f"{folder.name}_later"))
    assert "every row is scored" not in report(tmp_path / "outputs", capsys=capsys)
    (folder,), _ = do(write(tmp_path / "x.csv", [(name, 0) for name in test_ids[1:]]), "--partial", "--replace")
    folder.rename(folder.with_name(f"{folder.name}_later_still"))
    assert report(tmp_path / "outputs", "--format", "csv", capsys=capsys).count(",configuration,") == 1


def test_a_file_is_imported_once_under_a_name(do: Do, tmp_path: Path, test_ids: list[str]) -> None:
    file = write(
        tmp_path / "x.csv", [(name, 0, seed) for name in test_ids for seed in (1, 2)], ("id", "prediction", "seed")
    )
    folders, _ = do(file)
    again, said = do(file)
    assert len(folders) == 2 and not again
    assert said.splitlines()[:2] == [f"imported before: {folder}" for folder in folders]
    assert len(do(file, "--name", "another")[0]) == 2
    assert len(do(write(tmp_path / "x.csv", [(name, 1) for name in test_ids]))[0]) == 1, "another content"


def test_an_import_that_dies_leaves_nothing(
    do: Do, tmp_path: Path, test_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "x.csv", [(name, 0) for name in test_ids])
    for step in ("write_predictions", "named"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(f"mmsa.importing.run.{step}", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
            do(file)
        assert run_folders(tmp_path / "outputs") == []
    do(file)
    assert [path.name for path in (tmp_path / "outputs" / "runs").glob(".*")] == [], "the next one clears it"


def test_what_needs_a_model_refuses_an_import_and_the_line_that_it_prints_works(
    do: Do, tmp_path: Path, test_ids: list[str], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    (folder,), _ = do(write(tmp_path / "x.csv", [(name, 0) for name in test_ids]))
    for door in (
        lambda: mmsa.load(folder),
        lambda: mmsa.run([f"trainer.resume={folder}"], quiet=True),
        lambda: cli.command(["evaluate", str(folder)]),
        lambda: cli.command(["evaluate", "synthetic", "--missing", "--outputs", str(outputs)]),
    ):
        with pytest.raises(DataError, match=r"were imported from x.csv: there is no model to") as refusal:
            door()
        line = str(refusal.value).splitlines()[1].partition("type ")[2].partition(" to see")[0]
        cli.command(line.split()[1:])
        assert "x (imported)" in capsys.readouterr().out
    copy_of(trained, outputs)
    cli.command(["evaluate", "synthetic", "--outputs", str(outputs)])
    said = capsys.readouterr().out
    assert "1 import left out: there is no model to evaluate." in said and "equal to result.json" in said


def test_options_are_those_of_a_run(do: Do, tmp_path: Path, test_ids: list[str]) -> None:
    file = write(tmp_path / "x.csv", [(name, 0) for name in test_ids])
    for typed, said in (("seed=-1", "seed=-1: "), ("task.loss=l3", "task.loss=l3: "), ("feedback=none", "")):
        with pytest.raises(ConfigError, match=said) if said else nullcontext():
            do(file, typed, "name=typed")
    (folder,) = imports(tmp_path / "outputs")
    assert read_run(folder).called == "typed (imported)"


def test_an_import_keeps_no_secret(
    stores: Path, tmp_path: Path, test_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.importing.run.settle", lambda cfg, say: None)
    monkeypatch.setattr("mmsa.importing.run.fit_beside", lambda *given: {})
    file, outputs = write(tmp_path / "x.csv", [(name, 0) for name in test_ids]), tmp_path / "outputs"
    secret = "tracking.uri=http://someone:hidden@localhost:1/"
    cli.command(["import", "synthetic", str(file), "--data", str(stores), secret, f"paths.outputs={outputs}"])
    texts = [path.read_text() for path in imports(outputs)[0].iterdir() if path.is_file()]
    assert "localhost" in "".join(texts) and "hidden" not in "".join(texts)


def test_an_import_is_found_by_its_options(do: Do, tmp_path: Path, test_ids: list[str]) -> None:
    (folder,), _ = do(write(tmp_path / "x.csv", [(name, 0) for name in test_ids]))
    run = read_run(folder)
    assert run.option("name") == run.option("imported") == "x" and run.option("dataset") == "synthetic"
    assert run.option("task") == "regression" and run.option("feedback") is None


@pytest.mark.slow
def test_mlflow_shows_an_import_as_it_shows_a_run(do: Do, stores: Path, tmp_path: Path, test_ids: list[str]) -> None:
    from mlflow import MlflowClient

    file = write(tmp_path / "x.csv", [(name, 0) for name in test_ids])
    outputs = tmp_path / "tracked"
    cli.command(["import", "synthetic", str(file), "--data", str(stores), f"paths.outputs={outputs}"])
    record = RunRecord.read(imports(outputs)[0])
    entry = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}").get_run(str(record.mlflow_run_id))
    assert entry.info.run_name == "x (imported)" and entry.info.status == "FINISHED"
    assert entry.data.metrics["test/mae"] == record.metrics["test/mae"]
    assert entry.data.params["imported"] == "x"
    assert not (imports(outputs)[0] / ".lock").exists(), "nothing is left to do"
