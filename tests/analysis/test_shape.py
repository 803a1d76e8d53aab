from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsa import cli
from mmsa.errors import ConfigError

AddRun = Callable[..., Path]
Report = Callable[..., str]


@pytest.fixture
def report(outputs: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """What `mmsa report` prints, in Markdown."""

    def printed(*arguments: str, style: str = "markdown") -> str:
        cli.command(["report", "--outputs", str(outputs), "--format", style, *arguments])
        return capsys.readouterr().out

    return printed


@pytest.fixture
def grid(add_run: AddRun) -> None:
    """Two feedbacks by two rates, two seeds each, all with one option."""
    for seed in (1, 2):
        for number, (feedback, rate) in enumerate([("none", 1), ("none", 2), ("mmlatch", 1), ("mmlatch", 2)]):
            score = 0.9 - number / 10 + seed / 100
            metrics = {"test/mae": score, "test/corr": 1 - score, "test/acc7": 0.4 + number / 100}
            metrics |= {"test/acc2_has0": 0.8 + number / 100, "test/acc2_non0": 0.9 - number / 100}
            metrics |= {"test/f1_has0": 0.81, "test/f1_non0": 0.82, "valid/mae": 9}
            overrides = (f"feedback={feedback}", f"optimizer.lr={rate}", "trainer.max_epochs=3")
            add_run(score, seed, overrides, metrics=metrics)


def rows(page: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if line[:1] == "|"]
    return {label: values for label, *values in cells[2:]}


def heads(page: str) -> str:
    return next(line for line in page.splitlines() if line.startswith("|"))


@pytest.mark.usefixtures("grid")
def test_overrides_that_all_rows_share_stand_once_above(report: Report) -> None:
    page = report()
    assert page.count("trainer.max_epochs=3") == 1 and "*all rows: trainer.max_epochs=3*" in page
    assert list(rows(page))[:2] == ["feedback=none optimizer.lr=1 (2 seeds)", "feedback=none optimizer.lr=2 (2 seeds)"]
    page = report("optimizer.lr=1")
    assert "*all rows: optimizer.lr=1 trainer.max_epochs=3*" in page and "feedback=none (2 seeds)" in page


@pytest.mark.usefixtures("grid")
def test_metrics_are_columns_in_their_order_and_a_pair_shares_one(report: Report) -> None:
    page = report("--metrics", "acc7,has0/non0", "--metrics", "mae", "--no-baselines")
    assert heads(page) == "|  | acc7 ↑ | acc2_has0/non0 ↑ | f1_has0/non0 ↑ | mae ↓ |"
    first, *_, last = rows(page).values()
    assert first[1] == "0.800 ± 0.000 / **0.900 ± 0.000**" and last[1] == "**0.830 ± 0.000** / 0.870 ± 0.000"
    assert "ridge" not in page and "- `f1_non0`: F1 weighted" in page


@pytest.mark.usefixtures("grid")
def test_percent_is_of_shares_only(report: Report) -> None:
    page = report("--percent", "--metrics", "mae,corr,acc7,acc2_has0/non0")
    assert heads(page) == "|  | mae ↓ | corr ↑ | acc7 % ↑ | acc2_has0/non0 % ↑ |"
    first = next(iter(rows(page).values()))
    assert first == ["0.915 ± 0.007", "0.085 ± 0.007", "40.0 ± 0.0", "80.0 ± 0.0 / **90.0 ± 0.0**"]


@pytest.mark.usefixtures("grid")
def test_rows_are_chosen_named_and_ordered(report: Report) -> None:
    more = ["--rows", "=feedback=none*", "--no-baselines"]
    page = report("--rows", "Ours=feedback=mmlatch optimizer.lr=2", "--rows", "mm*=*mmlatch optimizer.lr=1", *more)
    assert list(rows(page)) == [
        "Ours (2 seeds)", "mm* (2 seeds)".replace("*", r"\*"),
        "feedback=none optimizer.lr=1 (2 seeds)", "feedback=none optimizer.lr=2 (2 seeds)",
    ]  # fmt: skip
    assert "*all rows: trainer.max_epochs=3*" in page
    assert list(rows(report("feedback=none", "--rows", "Slow=seed=1,2 optimizer.lr=1", "--no-baselines"))) == [
        "Slow (2 seeds)"
    ]


def test_a_row_of_that_very_name_is_meant_before_others_that_fit(report: Report, add_run: AddRun) -> None:
    add_run(0.7, 1, ("feedback=mmlatch",))
    add_run(0.8, 1, ("feedback=mmlatch", "optimizer.lr=2"))
    assert list(rows(report("--rows", "Ours=feedback=mmlatch", "--no-baselines"))) == ["Ours (1 seed)"]


@pytest.mark.usefixtures("grid")
def test_a_row_per_seed(report: Report) -> None:
    found = rows(report("--seeds", "optimizer.lr=1", "--no-baselines"))
    assert list(found) == [f"feedback={name} seed={seed}" for name in ("none", "mmlatch") for seed in (1, 2)]
    assert found["feedback=mmlatch seed=1"] == ["**0.710**", "**0.290**"] and "±" not in str(found)


@pytest.mark.usefixtures("grid")
def test_a_row_per_value_of_an_option_says_what_it_mixes(report: Report) -> None:
    page = report("--by", "feedback", "--no-baselines")
    assert list(rows(page)) == ["feedback=none (4 runs)", "feedback=mmlatch (4 runs)"]
    assert "over runs, grouped by feedback" in page and "a row is over runs that also differ in optimizer.lr" in page
    assert rows(page)["feedback=none (4 runs)"][0] == "0.865 ± 0.058"
    page = report("--by", "feedback,optimizer.lr", "--no-baselines")
    assert "also differ" not in page and len(rows(page)) == 4


def test_a_run_with_a_name_names_its_row(report: Report, add_run: AddRun) -> None:
    for seed in (1, 2):
        add_run(0.8, seed, ("feedback=mmlatch", "name=the model"))
        add_run(0.9, seed, ("optimizer.lr=1", "name=twice"))
        add_run(0.9, seed, ("optimizer.lr=2", "name=twice"))
        add_run(0.9, seed, ("optimizer.lr=3", f"name=of {seed}"))
    assert list(rows(report("--no-baselines"))) == [
        "the model (2 seeds)", *(f"optimizer.lr={rate} (2 seeds)" for rate in (1, 2, 3)),
    ]  # fmt: skip
    assert list(rows(report("--no-baselines", "name=the*"))) == ["the model (2 seeds)"]


def test_tables_of_equal_names_are_told_apart_by_options_or_paths(report: Report, add_run: AddRun) -> None:
    for number, path in enumerate(["/a/mosi.pkl", "/b/mosi.pkl", "/c/mosei.pkl"]):
        source = {"fingerprint": f"data{number}", "store": "x", "source": Path(path).name}
        add_run(0.8, 1, (f"dataset.source={path}",), data=source)
    add_run(0.8, 1, ("dataset.num=9",), data={"fingerprint": "data3", "store": "x"})
    add_run(0.8, 1, ("dataset.num=8",), data={"fingerprint": "data4", "store": "x"})
    page = report()
    assert "*data of dataset.source=/a/mosi.pkl*" in page and "*data of dataset.source=/b/mosi.pkl*" in page
    assert "mosei.pkl" in page and "of dataset.source=/c" not in page
    assert "*data of dataset.num=9*" in page and "*data of dataset.num=8*" in page


@pytest.mark.usefixtures("grid")
def test_every_value_can_be_traced_to_its_runs(report: Report, outputs: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(report(style="csv"))))
    of_row = [line for line in lines if line["label"] == "feedback=none optimizer.lr=1"]
    assert [(line["kind"], line["seeds"], line["seed"]) for line in of_row] == [
        ("configuration", "2", ""), ("seed", "", "1"), ("seed", "", "2"),
    ]  # fmt: skip
    folders = of_row[0]["runs"].split(";")
    assert folders == [line["runs"] for line in of_row[1:]] and all(Path(folder).is_dir() for folder in folders)
    assert [float(line["mae_mean"]) for line in of_row] == pytest.approx([0.915, 0.91, 0.92])
    assert {line["kind"] for line in csv.DictReader(io.StringIO(report("--seeds", style="csv")))} == {
        "seed",
        "baseline",
    }
    for style in ("html", "latex"):
        page = report(style=style)
        assert all(folder.as_uri() in page for folder in (outputs / "runs").iterdir())


@pytest.mark.usefixtures("grid")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "acc2_nonzero"], ["no such metric", "acc2_has0, acc2_non0", "type --metrics acc2_non0"]),
        (["--metrics", "acc5"], ["--metrics acc5: no run here has it", "acc2_has0"]),
        (["--rows", "Ours"], ["type --rows 'NAME=Ours'"]),
        (["--rows", "Ours=feedback=static"], ["fits no row", "the rows are: feedback=none optimizer.lr=1; "]),
        (["--rows", "Ours=feedback=mmlatch"], ["fits 2 rows", "--rows '=feedback=mmlatch'"]),
        (["--by", "feedbak"], ["none of these runs has such an option", "did you mean feedback?"]),
        (["--by", "feedback", "--seeds"], ["leave one of them out"]),
    ],
)
def test_what_no_run_has_is_refused(arguments: list[str], said: list[str], report: Report) -> None:
    with pytest.raises(ConfigError) as caught:
        report(*arguments)
    assert all(part in str(caught.value) for part in said), caught.value
    for line in re.findall(r"type (--\w+ \S+)", str(caught.value)):
        assert "NAME" in line or "optimizer.lr=1" in report(*shlex.split(line))
