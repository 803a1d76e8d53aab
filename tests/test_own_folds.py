"""Runs on folds of their own, from the documented command to the table, a later load and a resumed run."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import mmsa
from mmsa import build, cli
from mmsa.compose import compose
from mmsa.data.own_folds import parts_of
from mmsa.data.store import FOLDS, Store
from mmsa.dataset.custom import Custom
from mmsa.doctor.examination import examine
from mmsa.errors import ConfigError, DataError
from mmsa.record import RunRecord
from tests.conftest import ROOT
from tests.dataset.test_custom import arrays, npz
from tests.test_experiment import STEPS, kill, same

PARTS = 5


@pytest.fixture
def quick(small: list[str]) -> list[str]:
    return [*small, "dataset.modalities=[text,audio]", "hidden_dim=4"]


def documented() -> tuple[list[list[str]], list[str]]:
    """The overrides of each run of the command in docs/data_sets.md, and the words of the report below it."""
    page = (ROOT / "docs" / "data_sets.md").read_text(encoding="utf-8").partition("## Folds of your own")[2]
    command, report = page.partition("```\n")[2].partition("```")[0].splitlines()
    program, _, typed = command.partition(" -m ")
    assert program == "python train.py"
    parsed = OverridesParser.create().parse_overrides(shlex.split(typed))
    choices = [
        [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in parsed
    ]
    return list(map(list, itertools.product(*choices))), shlex.split(report)[1:]


def test_the_documented_runs_test_every_utterance_once(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, report = documented()
    done = [mmsa.run([*quick, "trainer.max_epochs=1", *overrides]) for overrides in runs]
    folders = [run.folder for run in done]
    records = [RunRecord.read(folder) for folder in folders]
    (hashed,) = {str(record.data.parts) for record in records}
    assert len(records) == 2 * PARTS
    assert capsys.readouterr().out.count(f"is the test fold and 1 validates (parts {hashed})\n") == 2, "of part 0"

    tested: dict[str, list[str]] = {}
    for run, overrides, record in zip(done, runs, records, strict=True):
        tested.setdefault(overrides[-1], []).extend(run.predictions["test"])
        assert record.data.utterances["test"] == len(run.predictions["test"])
    store = Store.open(Path(records[0].data.store))
    assert [sorted(ids) for ids in tested.values()] == [sorted(store.ids)] * 2

    cli.command([*report, "--outputs", str(tmp_path / "outputs")])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"synthetic, 5 test folds of num_folds=5 by video (parts {hashed})" in shown
    assert "fusion=concat (5 folds × 1 seed)" in shown and "fusion=lmf (5 folds × 1 seed)" in shown
    assert f"paired on {len(store.ids)} utterances, 5 folds, 1 seed" in shown and "corrected resampled t test" in shown

    loaded = mmsa.load(folders[3])
    assert set(loaded.data.fold("test").ids) == set(done[3].predictions["test"])
    cli.command(["evaluate", str(folders[3])])
    told = capsys.readouterr().out
    assert "equal to result.json" in told and f"test fold of held_out={records[3].data.held_out} in num_folds=5" in told


def test_a_resumed_run_keeps_its_folds(quick: list[str]) -> None:
    own = ["dataset.num_folds=3", "dataset.held_out=1"]
    whole = mmsa.run([*quick, *own], quiet=True)
    folder = kill(quick, own, after_steps=STEPS // 2)
    with pytest.raises(ConfigError, match=r"dataset\.held_out=2 here, but the run has 1"):
        mmsa.run(["dataset.held_out=2", f"trainer.resume={folder}"], quiet=True)
    resumed = mmsa.run([f"trainer.resume={folder}"], quiet=True)
    same(whole, resumed)
    record = folder / "result.json"
    content = json.loads(record.read_text())
    for changed in ({"parts": "0123456789ab"}, {"held_out": 0}, {"num_folds": None, "held_out": None, "parts": None}):
        record.write_text(json.dumps(content | {"data": content["data"] | changed}))
        with pytest.raises(
            DataError, match=r"the run was trained with dataset\.held_out=.*\n  restore its config\.yaml"
        ):
            mmsa.load(folder)


def test_options_of_own_folds_are_refused_before_any_data_are_read(quick: list[str]) -> None:
    for typed_, told in (
        (["dataset.num_folds=5"], r"type dataset\.held_out=0, or -m"),
        (["dataset.held_out=0"], "dataset.num_folds=5"),
        (["dataset.num_folds=5", "dataset.held_out=5"], "0 to 4, not 5"),
        (["dataset.num_folds=two", "dataset.held_out=0"], "needs an integer"),
    ):
        with pytest.raises(ConfigError, match=told):
            mmsa.run([*quick, *typed_], quiet=True)


OWN = ["dataset.num_folds=4", "dataset.held_out=3"]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file whose utterances are all of one fold, of two classes, and without gaze in part 3 of four."""
    content = arrays(48)
    content["fold"] = np.array(["test"] * 48)
    content["target"] = np.arange(48) // 7 % 2
    videos = np.array([name.partition("_")[0] for name in content["id"]])
    part_of = parts_of(videos.tolist(), 4)
    silent = np.array([part_of[video] == 3 for video in videos])
    content["features/gaze"][np.repeat(silent, np.diff(content["offsets/gaze"]))] = 0
    return npz(tmp_path / "mine", content)


def test_a_file_without_folds_has_its_own(mine: Path, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*quick[:2], "dataset=custom", f"dataset.source={mine}", "fusion=concat"]
    with pytest.raises(DataError, match="train fold"):
        build.open_data(compose(asked))
    store, data = build.open_data(compose([*asked, *OWN]))
    cli.command(["prepare", "custom", "--source", str(mine), *quick[:1], *OWN, "dataset.kind=binary"])
    printed = capsys.readouterr().out
    for fold in FOLDS:
        num = int((store.folds == fold).sum())
        assert len(data.fold(fold)) == num and re.search(rf"^{fold} +{num} utterances of", printed, flags=re.MULTILINE)
    assert data.remarks[0].startswith("own folds by video: of parts 0 to 3, 3 is the test fold and 0 validates")
    assert data.remarks[0] in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("train on it: ")]
    overrides = line.partition(" train ")[2] or line.partition("train.py ")[2]
    run = mmsa.run([*quick[1:-2], *shlex.split(overrides), "task=classification", "task.class_weights=balanced"])
    loaded = mmsa.load(run.folder)
    assert loaded.evaluate("test") == (
        {name.removeprefix("test/"): value for name, value in run.metrics.items() if name.startswith("test/")},
        run.predictions["test"],
    )
    assert run.predictions["test"].keys() == set(data.fold("test").ids)


def test_the_doctor_examines_the_folds_that_a_run_reads(
    mine: Path, tmp_path: Path, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"paths.data={tmp_path / 'data'}", quick[1]]
    asked = [*places, "dataset=custom", f"dataset.source={mine}", "dataset.num_folds=4"]
    found: dict[int, str] = {}
    for held_out in (3, 2, 1):
        remarks = build.open_data(compose([*asked, f"dataset.held_out={held_out}"]))[1].remarks
        (line,) = [line for line in remarks if line.startswith("the doctor has ")]
        capsys.readouterr()
        cli.command(
            [
                *shlex.split(line.partition(": ")[2].partition("mmsa ")[2] or line.partition(" -m mmsa.cli ")[2]),
                quick[1],
            ]
        )
        found[held_out] = capsys.readouterr().out
        assert f"of parts 0 to 3, {held_out} is the test fold" in found[held_out]
    assert "gaze is in no utterance of test" in found[3] and "gaze is in no utterance of valid" in found[2]
    assert "never_evaluated" not in found[1] and "zero_utterances" in found[1]

    class Sized(Custom):
        canonical_sizes: ClassVar[Mapping[str, int]] = {"test": 30}

    whole = build.open_data(compose([*asked, "dataset.held_out=3"]))[0]
    plain = Store.open(whole.path)
    kept = whole.path.parent.glob(f"{whole.path.stem}-doctor-*.json")
    assert len(list(kept)) == 3, "a diagnosis is kept for each part held out"
    codes = [{finding.code for finding in examine(store, Sized()).findings} for store in (plain, whole)]
    assert ["fold_sizes" in of_store for of_store in codes] == [True, False]


def test_the_parts_of_a_store_do_not_depend_on_the_run(quick: list[str]) -> None:
    """Other seeds and options read the same parts: rows are comparable fold by fold."""

    def parts(*more: str) -> Any:
        store, data = build.open_data(compose([*quick, "dataset.num_folds=4", "dataset.held_out=2", *more]))
        return store.parts, data.fold("test").ids

    assert parts("seed=1") == parts("seed=9", "dataset.modalities=[text]", "dataset.normalize=utterance")
