"""A run again from its folder, to equal bits or with its differences listed; and runs with several seeds."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mmsa
from mmsa import cli, rerun, train
from mmsa.analysis.predictions import Predictions
from mmsa.analysis.repetition import CLASS_TOLERANCE, TOLERANCE, Results, differences, verdict
from mmsa.analysis.runs import by_configuration
from mmsa.analysis.selection import read_runs
from mmsa.data.store import Store
from mmsa.errors import ConfigError, DataError, MmsaError
from mmsa.experiment import RunResult
from mmsa.record import Git, RunRecord
from mmsa.repairs import Repair
from mmsa.repeating import _changes, repetition_of
from mmsa.run_folder import read_config
from mmsa.training.trainer import Trainer
from tests.conftest import ROOT
from tests.house.command_lines import parse
from tests.test_experiment import stop_after
from tests.test_former import former

__all__ = ["former"]

SAME = "code, libraries and machine: as they were\n"


@pytest.fixture(autouse=True)
def known_code() -> Iterator[None]:
    """The state of the code, which is clean and nobody asks git for, and no figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa.provenance.git_state", lambda: Git(commit="c0ffee" * 6, dirty=False))
        patch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
        yield


def options(place: Path) -> list[str]:
    """Of a run on eighteen utterances, which takes a tenth of a second."""
    places = [f"dataset.source={place / 'former.npz'}", f"paths.outputs={place / 'outputs'}"]
    return ["dataset=custom", *places, "dataset.kind=number", "tracking=none", "device=cpu", "hidden_dim=2"]


@pytest.fixture
def trained(former: Path) -> Path:
    """The folder of a run of this version."""
    shutil.rmtree(former / "outputs" / "runs")
    return mmsa.run([*options(former), "trainer.max_epochs=3", "encoder.default.dropout=0.1"], quiet=True).folder


def again(folder: Path, capsys: pytest.CaptureFixture[str], *more: str, code: int = 0) -> str:
    """What `mmsa rerun` prints."""
    capsys.readouterr()
    if code:
        with pytest.raises(SystemExit, match=str(code)):
            cli.command(["rerun", str(folder), *more])
    else:
        cli.command(["rerun", str(folder), *more])
    return capsys.readouterr().out


def newest(folder: Path) -> Path:
    """The run beside another one."""
    (found,) = (path for path in folder.parent.iterdir() if path.name != folder.name)
    return found


def content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A file of values with a change."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        return
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def with_history(folder: Path, metric: str, factor: float) -> None:
    """Another value of a metric from epoch 2 on, as another machine might have had it."""
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows[1:]:
        row[metric] = repr(float(row[metric]) * factor)
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    (folder / "history.csv").write_text("\n".join(map(",".join, lines)) + "\n")


def test_a_run_again_is_equal_to_the_bit_and_leaves_the_former_as_it_is(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(trained)
    printed = again(trained, capsys)
    assert SAME in printed and printed.endswith(f"compared with {trained}: equal to the bit\n")
    assert printed.index(SAME) < printed.index("epoch")
    assert content(trained) == before
    new = newest(trained)
    record, repeated = RunRecord.read(trained), RunRecord.read(new)
    assert (repeated.repeats, repeated.overrides, repeated.name) == (trained.name, record.overrides, record.name)
    assert (record.repeats, repeated.id == record.id) == (None, False)
    assert repeated.data.fingerprint == record.data.fingerprint
    configurations = [read_config(folder) for folder in (trained, new)]
    for cfg in configurations:
        cfg.paths, cfg.dataset.source = {}, None
    assert configurations[0] == configurations[1]
    (group,) = by_configuration(read_runs(trained.parents[1]).runs)
    assert [run.folder.name for run in group.runs] == [trained.name], "the result that was there counts"
    assert [run.folder.name for run in by_configuration(read_runs(trained.parents[1]).runs[1:])[0].runs] == [new.name]


def test_a_run_in_several_pieces_is_repeated_to_the_bit(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*RunRecord.read(trained).overrides, "name=pieces"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 2)
        mmsa.run(overrides, quiet=True)
    (pieces,) = trained.parent.glob("*_pieces")
    with pytest.raises(ConfigError, match=r"is failed: a finished run is needed\.\n  type ") as refused:
        rerun.rerun(pieces)
    line = str(refused.value).partition("  type ")[2].partition(" to finish it")[0]
    mmsa.run(shlex.split(line)[2:], quiet=True)
    assert read_config(pieces).trainer.resume and "equal to the bit" in again(pieces, capsys)
    (new,) = (path for path in trained.parent.glob("*_pieces*") if path != pieces)
    assert read_config(new).trainer.resume is None and RunRecord.read(new).repeats == pieces.name


def test_a_repetition_that_was_stopped_is_compared_by_the_line_that_resumes_it(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, 2)
        again(trained, capsys)
    (line,) = re.findall(r"^resume it: (.*)$", capsys.readouterr().out, re.M)

    def resumed(code: int | None = None) -> str:
        monkeypatch.setattr("sys.argv", ["train.py"])
        if code is None:
            train.start(shlex.split(line)[2:])
        else:
            with pytest.raises(SystemExit, match=str(code)):
                train.start(shlex.split(line)[2:])
        return capsys.readouterr().out

    printed = resumed()
    assert printed.startswith(f"{trained} again, on data ") and f"\n{SAME}" in printed
    assert printed.endswith(f"compared with {trained}: equal to the bit\n")
    with_history(trained, "valid/mae", 2)
    new = newest(trained)
    changed(new / "result.json", lambda record: record.update(repeats=str(trained)))  # as of a run that is elsewhere
    changed(new / "config.yaml", lambda config: config["trainer"].update(max_epochs=4))  # as if it was typed
    printed = resumed(code=1)
    assert "is finished: nothing is left to train" in printed and printed.endswith(f"with {trained}: differs\n")
    assert "\ndiffers from then, or may:\n  trainer.max_epochs: 3 then, 4 now\n  valid/mae from epoch 2 " in printed
    shutil.rmtree(trained)
    assert "it is not compared with the run that it repeats: " in resumed()


def test_a_difference_is_listed_and_is_within_the_tolerance_only_on_another_machine(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_history(trained, "valid/mae", 1 + TOLERANCE / 10)
    printed = again(trained, capsys, code=1)
    new = newest(trained)

    def compared(capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
        found = repetition_of(new, RunRecord.read(new), print)
        assert found is not None and found.compare() is not bool(code)
        return capsys.readouterr().out

    assert re.search(r"^  valid/mae from epoch 2 on: \S+ then, \S+ now \(\S+\)(; most in epoch 3, .*)?$", printed, re.M)
    assert printed.endswith("differs: the same code, libraries and machine have to give equal bits\n")

    changed(trained / "result.json", lambda record: record["environment"].update(torch="2.0.0"))
    printed = compared(capsys)
    assert re.search(r"^  torch: 2\.0\.0 then, \S+ now$", printed, re.M)
    assert printed.endswith(
        f"within the tolerance of {TOLERANCE:g} (classes: {CLASS_TOLERANCE:.0%} of the utterances)\n"
    )
    assert "beyond" not in printed
    with_history(trained, "valid/mae", 1 + 10 * TOLERANCE)
    printed = compared(capsys, code=1)
    assert re.search(r"^  valid/mae from epoch 2 on: .*, beyond the tolerance$", printed, re.M)
    assert printed.endswith(": differs\n")


def test_all_that_may_change_a_bit_is_listed_before_training(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(record: dict[str, Any]) -> None:
        record["git"] = {"commit": "abcdef" * 6, "dirty": True}
        record["environment"] |= {"threads": "4", "device": "cuda:0", "gpu": "H", "devices": "2, later 1"}
        del record["environment"]["processor"]

    changed(trained / "result.json", other)
    changed(trained / "config.yaml", lambda config: config["device"].update(deterministic=False))
    repair = Repair(1000, "mmsa.fusion.attention", "the change")
    monkeypatch.setattr("mmsa.analysis.outdated.repairs", lambda: (repair,))
    monkeypatch.setattr(Trainer, "fit", lambda *_, **__: pytest.fail("not yet"))
    with pytest.raises(pytest.fail.Exception):
        again(trained, capsys)
    printed = capsys.readouterr().out
    for line in (
        "code: abcdefabcdef with uncommitted changes then, c0ffeec0ffee now",
        "threads: 4 then, 1 now",
        "device: cuda:0 then, cpu now",
        "devices: 2, later 1 then, 1 now",
        "gpu: H then, unknown now",
        "repaired since: mmsa.fusion.attention: the change",
        "device.deterministic=false: sums may have another order each time, and bits with them",
    ):
        assert f"\n  {line}\n" in printed
    assert re.search(r"^  processor: unknown then, .+ now$", printed, re.M) and SAME not in printed


def test_uncommitted_changes_are_never_the_same_code(trained: Path) -> None:
    record = RunRecord.read(trained)
    dirty = record.model_copy(update={"git": Git(commit=record.git.commit, dirty=True)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa.provenance.git_state", lambda: dirty.git)
        (_, line) = _changes(trained, dirty, trained, dirty)
    assert line == "  code: c0ffeec0ffee with uncommitted changes then and now"


def test_a_run_of_a_former_version_is_repeated(former: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = again(former / "outputs" / "runs" / "whole", capsys, code=1)
    assert "code: 3f76e35476d1 then, c0ffeec0ffee now" in printed
    assert "repaired since: mmsa: dropout draws other numbers" in printed and printed.endswith(": differs\n")


def test_a_run_finds_its_data_or_says_how_to_get_them(
    former: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stores = former / "outputs" / "runs" / "whole", former / "outputs" / "data"
    stores.rename(former / "elsewhere")
    (former / "former.npz").rename(former / "renamed.npz")
    with pytest.raises(
        DataError, match=r"No store \w+, which .*\n  type --data FOLDER[\s\S]*\n  or type mmsa "
    ) as gone:
        rerun.rerun(folder)
    assert "compared with" in again(folder, capsys, "--data", str(former / "elsewhere"), code=1), "repaired since"

    line = str(gone.value).partition("  or type ")[2].partition(" to make it again")[0]
    assert "dataset.name=former" in line
    monkeypatch.chdir(former / "elsewhere")
    changed(folder / "result.json", lambda record: record["data"].update(source="former.npz"))
    with pytest.raises(DataError, match="No store") as gone:
        rerun.rerun(folder)
    line = str(gone.value).partition("  or type ")[2].partition(" to make it again")[0]
    cli.command(shlex.split(line.replace("FILE_OR_FOLDER", str(former / "renamed.npz")))[1:])
    changed(folder / "config.yaml", lambda config: config["dataset"].update(num_folds=3, held_out=0))
    with pytest.raises(
        DataError, match=r"now the same data have dataset\.held_out=0[\s\S]*\n  restore its config\.yaml"
    ):
        rerun.rerun(folder)


def test_what_cannot_be_repeated_is_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = trained / "result.json", (trained / "result.json").read_text()

    def refusal(**record: Any) -> str:
        path.write_text(kept)
        changed(path, lambda values: values.update(record))
        with pytest.raises(MmsaError) as refused:
            rerun.rerun(trained)
        return str(refused.value)

    said = refusal(trial=3, sweep="mmlatch")
    assert "is a trial of the search mmlatch, which never reads the test fold.\n  type mmsa report " in said
    parse(said.partition("  type ")[2].partition(", which prints")[0])
    assert "there is no model to train again" in refusal(imported={"file": "a.csv"})
    said = refusal(status="failed", reason="no memory")
    line = re.search(r"is failed: a finished run is needed\.\n  type (.*) to train it anew$", said)
    assert line and shlex.split(line[1])[2:] == list(RunRecord.read(trained).overrides)
    with monkeypatch.context() as patch:
        patch.setattr("mmsa.record.is_under_way", lambda folder: True)
        assert "is under way: a finished run is needed.\n  wait until it has ended" in refusal(status="running")
    path.write_text(kept)
    changed(trained / "config.yaml", lambda config: config["device"].update(accelerator="cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = refusal()
    line = re.search(r"or type (.*) for a new run on this one", said)
    assert line and re.search(r"device=cuda: PyTorch \S+ ", said)
    found = mmsa.run(shlex.split(line[1])[2:], quiet=True)
    assert read_config(found.folder).device.accelerator == "cpu"
    changed(trained / "config.yaml", lambda config: config["device"].update(devices=2))
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        patch.setattr("torch.cuda.device_count", lambda: 1)
        assert re.search(r"device\.devices=2: this machine has 1 (.|\n)* device\.devices=1 for a new run", refusal())
    changed(trained / "config.yaml", lambda config: config["fusion"].update(_target_="guest.Fusion"))
    assert "type export MMSA_PACKAGES=guest, and then the same command" in refusal()
    assert len(list(trained.parent.iterdir())) == 2


def test_a_new_run_is_written_and_tracked_where_the_user_is(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, store = read_config(trained), Store.open(Path(RunRecord.read(trained).data.store))
    cfg.tracking = {"_target_": "mmsa.tracking.mlflow.MLflowTracker", "uri": "https://elsewhere.org"}
    assert rerun._place(cfg, trained, store)
    assert Path(cfg.paths.outputs).resolve() == trained.parents[1].resolve() and cfg.tracking.uri is None
    monkeypatch.setattr(os, "access", lambda path, mode: path != trained.absolute().parent)
    assert not rerun._place(cfg, trained, store)
    assert (cfg.paths.outputs, cfg.paths.data) == ("outputs", str(store.path.parent))


def results(**parts: Any) -> Results:
    """Those of a run that never was."""
    names = {("a", 0): 0, ("b", 0): 1, ("a", 1): 2}
    predictions = Predictions(names, np.array([0.1, 0.2, 0.3]), np.array([-1.0, 0.0, 1.0]), {})
    history = {"train/loss": np.array([3.0, 2.0, np.nan]), "valid/acc7": np.array([0.1, 0.2, 0.3])}
    made = {"weights": "a", "epochs": (3, 2), "history": history, "metrics": {"test/mae": 0.5, "test/corr": np.nan}}
    return Results(**{**made, "predictions": {"test": predictions}, **parts})


def predicted(*values: float, ids: str = "aba") -> dict[str, Predictions]:
    places = {(name, ids[:place].count(name)): place for place, name in enumerate(ids)}
    return {"test": Predictions(places, np.array(values), np.array([-1.0, 0.0, 1.0]), {})}


WITHIN, DIFFERS = 0.3 * TOLERANCE, 3 * TOLERANCE
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "equal", ""),
    "a hash alone": ({"weights": "b"}, "within", "weights: other bits"),
    "a hash of a former version": ({"weights": None}, "equal", ""),
    "a relative error": (
        {"metrics": {"test/mae": 0.5 * (1 + WITHIN)}},
        "within",
        "test/mae of the selected weights: 0.5 then, ",
    ),
    "a larger one": (
        {"metrics": {"test/mae": 0.5 * (1 + DIFFERS)}},
        "differs",
        "test/mae of the selected weights: 0.5 then, ",
    ),
    "a value where there was none": (
        {"metrics": {"test/corr": 0.0}},
        "differs",
        "test/corr of the selected weights: nan then, 0 now",
    ),
    "a later epoch": (
        {"history": {"train/loss": np.array([3.0, 2.0 * (1 - DIFFERS), np.nan])}},
        "differs",
        "train/loss from epoch 2 on: 2 then, ",
    ),
    "an accuracy, which follows": (
        {"history": {"valid/acc7": np.array([0.1, 0.25, 0.9])}},
        "within",
        "valid/acc7 from epoch 2 on: 0.2 then, 0.25 now (5e-02); most in epoch 3, 0.3 then, 0.9 now (6e-01)",
    ),
    "fewer epochs": ({"epochs": (2, 2)}, "within", "epochs: 3 then, 2 now"),
    "another epoch": ({"epochs": (3, 1)}, "within", "selected epoch: 2 then, 1 now"),
    "a prediction": ({"predictions": predicted(0.1, 0.2 + WITHIN, 0.3)}, "within", "1 of 3 utterances, most b, "),
    "a further one": ({"predictions": predicted(0.1, 0.2, 0.3 + DIFFERS)}, "differs", "1 of 3 utterances, most a, "),
    "one that is none": ({"predictions": predicted(0.1, 0.2, np.nan)}, "differs", "1 of 3 utterances, most a, inf"),
    "another order": ({"predictions": predicted(0.1, 0.3, 0.2, ids="aab")}, "equal", ""),
    "other utterances": ({"predictions": predicted(0.1, 0.2, 0.3, ids="abc")}, "differs", "of other utterances"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_result_is_equal_within_the_tolerance_or_differs(case: str) -> None:
    parts, worst, text = CASES[case]
    found = differences(results(), results(**parts))
    assert verdict(found) == worst and text in "\n".join(one.text for one in found) and len(found) <= 1


@pytest.mark.parametrize(("num", "worst"), [(1, "within"), (3, "differs")])
def test_classes_are_counted(num: int, worst: str) -> None:
    names = {(str(place), 0): place for place in range(200)}
    classes = np.zeros(200)
    then = results(predictions={"test": Predictions(names, classes, classes, {})})
    other = np.where(np.arange(200) < num, 2.0, 0.0)
    found = differences(then, results(predictions={"test": Predictions(names, other, classes, {})}))
    assert verdict(found) == worst and f"{num} of 200 are of another class" in found[0].text


def test_the_page_of_metrics_states_the_tolerance() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("## Tolerance")[2]
    assert f"{TOLERANCE:g}" in page and f"{CLASS_TOLERANCE:.0%}" in page


def test_seeds_run_one_after_the_other_and_have_a_mean_and_a_short_repr(former: Path) -> None:
    typed = [*options(former), "trainer.max_epochs=1", "device.pack_seeds=off"]
    with pytest.raises(ConfigError, match=r"seed=4 beside seeds=\[1, 2\]: a run has one seed\.\n  leave seed=4 out"):
        mmsa.run([*typed, "seed=4"], seeds=[1, 2])
    for seeds in ([], [1, 1], [1, -1], [1.5], [[1]], 3):
        with pytest.raises(ConfigError, match=r"seeds?=.*\n  type for example seeds?="):
            mmsa.run(typed, seeds=seeds)
    before = len(list((former / "outputs" / "runs").iterdir()))
    several = mmsa.run(typed, quiet=True, seeds=[2, 5])
    first, second = several.runs
    assert [RunRecord.read(run.folder).seed for run in several.runs] == list(several.seeds) == [2, 5]
    assert first.predictions == mmsa.run([*typed, "seed=2"], quiet=True).predictions != second.predictions
    pair = [run.metrics["test/mae"] for run in several.runs]
    assert several.mean["test/mae"] == pytest.approx(sum(pair) / 2)
    assert several.std["test/mae"] == pytest.approx(abs(pair[0] - pair[1]) / 2**0.5)
    assert several.mean.keys() == several.std.keys() == first.metrics.keys()
    assert len(list((former / "outputs" / "runs").iterdir())) == before + 3
    assert (
        repr(several)
        == f"SeedsResult(seeds=[2, 5], scores=[{first.score:.4f}, {second.score:.4f}], {len(first.metrics)} metrics)"
    )
    assert repr(first) == (
        f"RunResult(score={first.score:.4f}, {len(first.metrics)} metrics, predictions: 3 of valid and 3 of test, "
        f"folder={str(first.folder)!r})"
    )


def test_a_result_of_thousands_of_predictions_has_a_short_repr(tmp_path: Path) -> None:
    many = RunResult({}, {"test": dict.fromkeys(map(str, range(9000)), 0.1)}, 0.1, None, tmp_path)
    assert "predictions: 9,000 of test" in repr(many) and len(repr(many)) < 300
