from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmsa.analysis.errors import Errors, Said, draw_confusion, make_table, read_errors, said_in
from mmsa.analysis.evaluation import write_errors
from mmsa.analysis.rendering import rendered
from mmsa.analysis.runs import Group, read_run
from mmsa.errors import DataError
from tests.pages import Page

AddErrors = Callable[..., Errors]
IDS = ["v[0]", "v[1]", "w[0]", "w[1]", "w[2]"]
TRUTH = [-3.0, 0.4, 0.5, 1.5, 2.5]


@pytest.fixture
def add_errors(add_run: Callable[..., Path]) -> AddErrors:
    """The errors of runs with these predictions of five utterances, one run per row."""

    def add(
        predicted: Sequence[Sequence[Any]], metric: str = "acc7", truth: Sequence[Any] = TRUTH, **changed: Any
    ) -> Errors:
        runs = []
        for seed, values in enumerate(predicted):
            folder = add_run(0.5, seed, metrics={f"test/{metric}": 0.5}, **changed)
            with (folder / "predictions.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["id", "fold", "target", "prediction"])
                writer.writerow(["v[0]", "valid", 1, 1])
                writer.writerows(zip(IDS, ["test"] * len(IDS), truth, values, strict=True))
            runs.append(read_run(folder))
        return read_errors(Group("row", tuple(runs)), "test")

    return add


def cells(errors: Errors, said: dict[Any, Said] | None = None) -> list[list[str]]:
    return [[cell.text for cell in row] for row in make_table(errors, said or {}).rows]


def test_the_seven_classes_are_those_of_acc7(add_errors: AddErrors) -> None:
    errors = add_errors([[-9.0, 0.6, 1.4, 1.6, 2.4], [-2.6, 0.4, 0.5, 1.4, math.nan]])
    counts = errors.confusion()
    assert counts is not None and counts.sum() == 9  # nothing is predicted once
    found = {(int(row) - 3, int(column) - 3): int(counts[row, column]) for row, column in np.argwhere(counts)}
    assert found == {(-3, -3): 2, (0, 1): 2, (0, 0): 2, (2, 2): 2, (2, 1): 1}
    figure = draw_confusion([errors])
    assert figure is not None
    panel, *_ = figure.axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["-3", "-2", "-1", "0", "+1", "+2", "+3"]
    assert [text.get_text() for text in panel.texts] == [str(count) for count in counts.ravel()]
    assert panel.get_xlabel() == "predicted class" and panel.get_ylabel() == "class of the label"


def test_the_worst_come_first_with_their_words(add_errors: AddErrors) -> None:
    errors = add_errors([[-3.0, 1.4, 0.5, 0.5, 2.5], [-3.0, 0.4, 0.5, -0.5, 0.5]])
    said = {("w[1]", 0): Said("not good", "video 2"), ("v[1]", 0): Said("", "video 1"), ("w[2]", 0): Said(None, "x")}
    assert cells(errors, said) == [
        ["w[1]", "video 2", "not good", "1.50", "0", "1.50"],
        ["w[2]", "x", "–", "2.50", "1.50", "1.00"],
        ["v[1]", "video 1", "(no words)", "0.40", "0.90", "0.50"],
    ]
    assert cells(errors)[0][:3] == ["w[1]", "w", "–"]  # the id names the video
    assert cells(add_errors([[math.nan, 0.4, 0.5, 1.5, 9.9]]))[0] == ["v[0]", "v", "–", "-3", "–", "–"]


@pytest.mark.parametrize(
    ("typed", "names"),
    [((), ["class 0", "class 1", "class 2"]), (("task.thresholds=[-0.1,0.1]",), ["< -0.1", "-0.1 to 0.1", "≥ 0.1"])],
)
def test_the_classes_of_a_classification(add_errors: AddErrors, typed: tuple[str, ...], names: list[str]) -> None:
    about = {"metric": "accuracy", "truth": [0, 1, 1, 2, 2], "task": "classification", "overrides": typed}
    errors = add_errors([[0, 1, 2, 2, 0], [0, 1, 2, 2, 1], [0, 0, 2, 2, 1]], **about)
    assert errors.classes is not None and list(errors.classes.names) == names
    assert (errors.confusion() == [[3, 0, 0], [1, 2, 3], [1, 2, 3]]).all()  # type: ignore[union-attr]
    assert [row[0] for row in cells(errors)] == ["w[2]", "w[0]", "v[1]"]  # of two that are always wrong the farther
    assert [row[3:] for row in cells(errors)] == [["2", "1", "1.00"], ["1", "2", "1.00"], ["1", "1", "0.33"]]


@pytest.mark.parametrize(
    ("metric", "truth", "num"),
    [("acc5_sims", [-1, -0.4, 0, 0.4, 1], 5), ("acc2_non0", [-1, 1, 1, -1, 1], 2), ("rmse", TRUTH, 0)],
)
def test_the_classes_follow_the_kind_of_the_target(add_errors: AddErrors, metric: str, truth: Any, num: int) -> None:
    errors = add_errors([truth], metric, truth)
    assert not errors.worst() and cells(errors) == []
    if not num:
        assert errors.classes is None and draw_confusion([errors]) is None
        assert "no confusion matrix: the task has no classes" in make_table(errors, {}).notes
    else:
        counts = errors.confusion()
        assert counts is not None and counts.shape == (num, num) and np.diag(counts).sum() == 5


def test_words_are_those_of_the_fold_without_pauses() -> None:
    store = SimpleNamespace(
        ids=["v[0]", "v[0]", "v[1]", "v[0]"],
        videos=["a", "b", "c", "d"],
        folds=np.array(["test", "test", "valid", "test"]),
        words=[["so", "sp", "good"], [], ["x"], ["sp"]],
    )
    said = said_in(store, "test")  # type: ignore[arg-type]
    assert said == {("v[0]", 0): ("so good", "a"), ("v[0]", 1): ("", "b"), ("v[0]", 2): ("", "d")}
    store.words = None
    assert said_in(store, "valid") == {("v[1]", 0): (None, "c")}  # type: ignore[arg-type]


def test_the_page_asks_nobody_and_escapes_every_name(add_errors: AddErrors, tmp_path: Path) -> None:
    errors = add_errors([[3.0, 0.4, 0.5, 1.5, 2.5]], dataset="<b>x</b>")
    gone = DataError("No <store>.\n  type --data FOLDER")

    def store_of(run: Any) -> Any:
        raise gone

    paths = write_errors([errors], store_of, tmp_path / "new")
    assert [path.name for path in paths] == ["errors.html", "confusion.pdf", "confusion.svg", "confusion.png"]
    page = Page()
    page.feed(text := paths[0].read_text())
    assert not page.open and "without words: No <store>." in page.text and "<b>x</b>, test fold" in page.text
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 1 and sources[0].startswith("data:image/png;base64,iVBOR")
    assert "default-src 'none'; img-src data:" in text and "script" not in page.seen
    table = rendered([make_table(errors, {("v[0]", 0): Said("<i>今天</i> \x1b[31m", "<u>")})], "html")
    assert "&lt;i&gt;今天&lt;/i&gt; \\x1b[31m" in table and "&lt;u&gt;" in table
