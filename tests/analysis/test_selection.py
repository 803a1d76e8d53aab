from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmsa import cli
from mmsa.analysis import evaluation
from mmsa.analysis.runs import read_run
from mmsa.analysis.selection import FoundRuns, Selection, is_like
from mmsa.commands import report_command
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.errors import ConfigError, DataError

AddRun = Callable[..., Path]


def chosen(outputs: Path, *words: str) -> list[str]:
    """The names of the folders of the runs that are chosen."""
    return [run.folder.name[9:15] for run in read(outputs, *words).runs]


def read(outputs: Path, *words: str) -> FoundRuns:
    return Selection.of(words, outputs).finished()


@pytest.fixture
def mixed(outputs: Path, add_run: AddRun) -> Path:
    add_run(0.7, 1, sweep="one")
    add_run(0.7, 2, ("feedback=mmlatch", "optimizer.lr=1e-2"), sweep="two")
    add_run(0.7, 3, ("feedback=mmlatch",), dataset="cmu_mosei")
    add_run(0.7, 4, ("debug=fast", "feedback=static"))
    add_run(0.7, 5, sweep="search", trial=0, metrics={"valid/mae": 0.1})
    add_run(0.7, 6, ("dataset.modalities=[text]",), status="failed")
    return outputs


def test_what_is_named_is_chosen(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = mixed / "runs"
    assert chosen(mixed) == ["000000", "000001", "000002"]
    assert chosen(mixed, f"{runs}/*2_run", f"{runs}/20260101-000000_run/") == ["000002", "000000"], "as they are named"
    assert chosen(mixed, "one") == ["000000"] and chosen(mixed, "one", "two") == ["000000", "000001"]
    assert chosen(mixed, "cmu_mosei") == ["000002"] and chosen(mixed, "cmu_mosi", "one") == ["000000"]
    assert chosen(mixed, f"{runs}/20260101-000002_run", "two") == ["000002", "000001"]
    assert chosen(mixed, f"{runs}/20260101-000004_run") == chosen(mixed, "search") == ["000004"], "a trial"
    (mixed / "sweeps" / "two").mkdir(parents=True)
    assert chosen(mixed, str(mixed / "sweeps" / "two")) == ["000001"]
    monkeypatch.chdir(runs)
    assert chosen(mixed, "20260101-000001_run") == ["000001"]


def test_options_narrow_what_is_chosen(mixed: Path) -> None:
    assert chosen(mixed, "feedback=mmlatch") == ["000001", "000002"]
    assert chosen(mixed, "feedback=mmlatch", "optimizer.lr=0.01") == chosen(mixed, "optimizer.lr=1e-2") == ["000001"]
    assert chosen(mixed, "seed=1,3") == chosen(mixed, "seed=1", "seed=3") == ["000000", "000002"]
    assert chosen(mixed, "dataset=cmu_mosi", "feedback=mm*") == ["000001"]
    assert chosen(mixed, "dataset.modalities=[text,audio]", "sweep=two") == ["000001"]


def test_the_option_of_a_group_is_known_where_it_was_not_typed(outputs: Path, add_run: AddRun) -> None:
    parts = {
        "feedback": "mmsa.feedback.mmlatch.MaskFeedback",
        "optimizer": "mmsa.training.optimizers.adam",
        "encoder": {"text": {"_target_": "mmsa.encoder.bert.BertEncoder"}},
        "fusion": "own.gated.Gated",
    }
    config = {name: part if isinstance(part, dict) else {"_target_": part} for name, part in parts.items()}
    (add_run(0.7) / "config.yaml").write_text(json.dumps(config))
    for word in ("feedback=mmlatch", "optimizer=adam", "encoder/text=bert", "fusion=gated"):
        assert chosen(outputs, word) == ["000000"]


@pytest.mark.parametrize("recipe", ["misa_mmlatch_static", "slp_m3", "m3_table1"])
def test_the_options_of_a_recipe_are_those_that_it_chose(recipe: str, add_run: AddRun) -> None:
    folder = add_run(0.7)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(compose([f"experiment={recipe}"]), resolve=True))
    run = read_run(folder)
    lines = (conf_folder() / "experiment" / f"{recipe}.yaml").read_text(encoding="utf-8")
    options = dict(re.findall(r"override /(\w+): (\w+)", lines))
    assert {group: run.option(group) for group in options} == options


def test_runs_of_debug_are_left_out_unless_they_are_asked_for(mixed: Path, add_run: AddRun) -> None:
    assert read(mixed).left_out[-1] == "1 run of debug=fast left out; name debug=fast to see it."
    assert chosen(mixed, "debug=fast") == chosen(mixed, f"{mixed}/runs/20260101-000003_run") == ["000003"]
    add_run(0.7, 7, ("debug=fast",), sweep="small")
    assert chosen(mixed, "small") == ["000006"]
    add_run(0.7, 7, ("debug=fast", "debug=null"))
    assert chosen(mixed)[-1] == "000007"


def test_the_line_that_a_run_of_debug_prints_shows_it(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = report_command(str(mixed), debug="fast")
    cli.command(["report", *shlex.split(line.partition(" report ")[2])])
    assert "feedback=static (1 seed)" in capsys.readouterr().out


def test_unfinished_runs_are_counted_where_they_fit(mixed: Path) -> None:
    assert read(mixed).num_unfinished == read(mixed, "cmu_mosi").num_unfinished == 1
    assert read(mixed, "feedback=mmlatch").num_unfinished == 0
    assert read(mixed, "seed=1,6").num_unfinished == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tow", ["needed is a run's folder, a sweep", "cmu_mosei, cmu_mosi", "one, search, two", "did you mean two?"]),
        ("feedbak=none", ["feedbak: none of these runs has such an option", "did you mean feedback?"]),
        ("feedback=mlatch", ["feedback=mlatch: no run has that", "feedback is one of mmlatch, none"]),
        ("seed=1 feedback=mmlatch", ["no run has all of that", "leave one of them out"]),
        ("nowhere/*", ["nowhere/*: no folder fits it", "outputs/runs"]),
    ],
)
def test_what_fits_nothing_is_refused_with_what_is_there(words: str, said: list[str], mixed: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(mixed, *words.split())
    assert all(part in str(caught.value) for part in said), caught.value
    assert len(str(caught.value).splitlines()) <= 4


def test_a_folder_that_is_no_run_is_refused_or_named(mixed: Path) -> None:
    with pytest.raises(DataError, match="is not the folder of a run"):
        read(mixed, f"{mixed}/runs")
    found = read(mixed, f"{mixed}/runs", f"{mixed}/runs/20260101-000000_run")
    assert len(found.runs) == 1 and "is not the folder of a run" in found.left_out[1]


def test_evaluation_gets_the_folders_in_the_order_in_which_they_are_named(mixed: Path) -> None:
    said: list[str] = []
    runs = mixed / "runs"
    words = [f"{runs}/20260101-000002_run", f"{runs}/20260101-000000_run", f"{runs}/20260101-000005_run"]
    folders = evaluation.chosen(Selection.of(words, mixed), said.append)
    assert [str(folder) for folder in folders] == words[:2] and said == ["1 unfinished run folder left out."]
    assert evaluation.chosen(Selection.of(["feedback=mmlatch", "two"], mixed), said.append) == [
        runs / "20260101-000001_run"
    ]
    alone = mixed.parent / "alone"
    (alone / "runs").mkdir(parents=True)
    (runs / "20260101-000004_run").rename(alone / "runs" / "trial")
    with pytest.raises(DataError, match="beside the trials of studies"):
        evaluation.chosen(Selection.of(["cmu_mosi"], alone), said.append)


@pytest.mark.parametrize(
    ("text", "pattern", "fits"),
    [
        ("a[b]c", "a[b]*", True),
        ("0.001", "1e-3", True), ("64", "64.0", True), ("[text,audio]", "[text, audio]", True), ("a[b]", "a[*", True),
        ("a", "A", False), ("ab", "a", False), (None, "*", False), ("x" * 3000, "*x", True),
    ],
)  # fmt: skip
def test_a_pattern(text: str | None, pattern: str, fits: bool) -> None:
    assert is_like(text, pattern) is fits
