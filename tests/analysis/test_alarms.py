"""Warnings below tables: each on both sides of its threshold, and never where nothing is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.analysis import alarms as module
from mmsa.analysis import tables
from mmsa.analysis.alarms import RULES, alarms, collapsed, disagreement
from mmsa.analysis.runs import Group, by_configuration, read_run
from mmsa.analysis.selection import Selection
from mmsa.analysis.shape import Shape
from mmsa.record import NO_SEED
from tests.conftest import ROOT
from tests.house.test_docs import table

AddRun = Callable[..., Path]
PAGE = (ROOT / "docs" / "warnings.md").read_text(encoding="utf-8")
TRUTH = np.random.default_rng(0).uniform(-3, 3, 200)
SPREADS = (0.05, 0.1, 0.15, 0.2, 0.5)
TRIALS = 1000


@pytest.fixture
def add(add_run: AddRun) -> AddRun:
    """A run on data without published results that is better than its baselines, with predictions of its test fold."""

    def one(predicted: Any = None, truth: Any = None, mae: float = 0.8, **changed: Any) -> Path:
        folder = add_run(mae, **{"dataset": "mine", **changed})
        if predicted is not None:
            rows = zip(predicted, TRUTH if truth is None else truth, strict=True)
            lines = [f"{number},test,{label!r},{value!r}" for number, (value, label) in enumerate(map(_plain, rows))]
            (folder / "predictions.csv").write_text("\n".join(["id,fold,target,prediction", *lines]))
        return folder

    return one


def _plain(row: tuple[Any, Any]) -> tuple[float, float]:
    return float(row[0]), float(row[1])


def groups(*folders: Path) -> list[Group]:
    return by_configuration(map(read_run, folders))


def fired(*folders: Path) -> dict[str, str]:
    """Rule -> its finding."""
    return {one.rule: one.finding for one in alarms(groups(*folders))}


def noisy(scale: float = 1.0) -> np.ndarray:
    return scale * TRUTH + 0.1


def test_the_page_has_the_rules_as_they_are() -> None:
    rows = table(PAGE, "warning", "fires where")
    assert rows == [[f"`{name}`", rule.fires, rule.advice] for name, rule in RULES.items()]


def test_a_sound_table_has_no_warning(add: AddRun) -> None:
    rng = np.random.default_rng(1)
    folders = [add(TRUTH + rng.normal(0, 1, 200), mae=0.8 + seed / 50, seed=seed) for seed in range(5)]
    assert fired(*folders) == {}


@pytest.mark.parametrize(("scale", "warned"), [(0.0, True), (0.049, True), (0.051, False)])
def test_predictions_that_hardly_vary(add: AddRun, scale: float, warned: bool) -> None:
    found = fired(add(noisy(scale), seed=3), add(noisy(), seed=4))
    assert ("constant" in found) == warned
    if warned:
        assert found["constant"] == f"defaults, seed 3: the predictions vary {scale:.2g} times as much as the labels"
    assert fired(add(noisy(), np.ones(200))) == {}, "labels that do not vary say nothing of the predictions"


@pytest.mark.parametrize(("equal", "labels", "warned"), [(198, 179, True), (197, 179, False), (198, 180, False)])
def test_classes_of_which_one_is_always_predicted(add: AddRun, equal: int, labels: int, warned: bool) -> None:
    predicted, truth = np.arange(200) >= equal, np.arange(200) >= labels
    assert ("constant" in fired(add(predicted, truth, task="classification"))) == warned


def test_a_correlation_that_is_not_a_number(add: AddRun) -> None:
    metrics = {"test/mae": 0.8, "test/corr": None}
    assert fired(add(noisy(), metrics=metrics)) == {"undefined": "defaults: corr is not a number"}
    assert "undefined" in fired(add(metrics=metrics)), "without predictions, too"
    assert "undefined" in fired(add([math.inf, *noisy()[1:]], metrics=metrics))
    assert "undefined" not in fired(add(noisy(0.0), metrics=metrics)), "the constant has its own warning"
    assert "undefined" not in fired(add(noisy()))


@pytest.mark.parametrize(
    ("equal", "off", "num_labels", "warned"),
    [(101, 5e-7, 11, True), (100, 0, 11, False), (101, 2e-6, 11, False), (199, 0, 10, True), (198, 0, 10, False)],
)
def test_predictions_that_are_the_labels(add: AddRun, equal: int, off: float, num_labels: int, warned: bool) -> None:
    truth = np.arange(200.0) % num_labels
    predicted = np.where(np.arange(200) < equal, truth + off, truth + 0.4)
    found = fired(add(predicted, truth))
    assert ("leak" in found) == warned
    if warned:
        assert found["leak"] == f"defaults: {equal / 2:.1f}% of the predictions equal their labels"


def test_right_classes_are_no_leak(add: AddRun) -> None:
    truth = np.arange(200) % 7
    assert "leak" not in fired(add(np.where(np.arange(200) < 190, truth, 0), truth, task="classification"))


@pytest.mark.parametrize(
    ("metrics", "warned"),
    [
        ({"test/mae": 0.4455}, True),
        ({"test/mae": 0.4457}, False),
        ({"test/mae": 0.6, "test/corr": 0.906}, True),
        ({"test/mae": 0.6, "test/corr": 0.905}, False),
        ({"test/mae": 0.6, "test/acc7": 0.9787}, True),
        ({"valid/mae": 0.3}, False),
    ],
)
def test_results_too_good_to_be_true(add: AddRun, metrics: dict[str, float], warned: bool) -> None:
    found = fired(add(dataset="cmu_mosi", metrics=metrics))
    assert ("too good" in found) == warned
    assert "too good" not in fired(add(dataset="cmu_mosi", metrics=metrics, planted=True))
    assert "too good" not in fired(add(dataset="mine", metrics=metrics))


def test_a_copy_of_the_labels_has_one_warning(add: AddRun) -> None:
    assert list(fired(add(TRUTH, dataset="cmu_mosi", metrics={"test/mae": 0.0, "test/corr": 1.0}))) == ["leak"]


@pytest.mark.parametrize(("second", "warned"), [(1.21, True), (1.19, False)])
def test_a_row_below_its_own_baseline(add: AddRun, second: float, warned: bool) -> None:
    found = fired(add(mae=1.0, seed=1), add(mae=second, seed=2))
    assert ("below baseline" in found) == warned
    if warned:
        assert found["below baseline"] == "defaults: mae 1.105 is worse than 1.100 of the baseline ridge joint"


def test_the_metric_that_selects_epochs_decides(add: AddRun) -> None:
    worse = {"test/mae": 1.3, "test/corr": 0.3}
    assert "below baseline" in fired(add(metrics=worse))
    assert "below baseline" not in fired(add(metrics=worse, monitor="valid/corr", mode="max"))
    assert "below baseline" in fired(add(metrics=worse, monitor="valid/loss")), "the first that tables show"
    assert "below baseline" not in fired(add(metrics=worse, baselines={}))


SOUND = [0.8, 0.8, 0.8]


@pytest.mark.parametrize(
    ("errors", "places"),
    [
        ([*SOUND, 1.101], [3]),
        ([*SOUND, 1.099], []),
        ([1.3, *SOUND, 1.2], [0, 4]),
        ([0.8, 0.8, 1.3, 1.3], []),  # half of them
        ([0.8, math.inf, 0.8], [1]),
        ([0.8, 1.3], []),  # too few
        ([0.76, 0.82, 0.90, 1.181], [3]),
        ([0.76, 0.82, 0.90, 1.179], []),
        ([0.75, 0.82, 0.89, 1.39], [3]),
        ([0.745, 0.82, 0.895, 1.39], []),
        ([1.259, 1.259, 1.259, 1.5], [3]),
        ([1.261, 1.261, 1.261, 1.5], []),
    ],
)
def test_collapsed_seeds(errors: list[float], places: list[int]) -> None:
    assert collapsed(errors, constant=1.4) == places


def test_a_collapsed_seed_is_named(add: AddRun) -> None:
    folders = [add(mae=mae, seed=seed) for seed, mae in enumerate([0.8, 0.81, 1.39, 0.82])]
    assert fired(*folders)["collapsed"] == "defaults, seed 2: mae 1.390, against 0.810 of the others"
    mixed = [run.model_copy(update={"configuration": {"a": str(run.seed)}}) for run in groups(*folders)[0].runs]
    spread = [replace(groups(*folders)[0], runs=tuple(mixed))]
    assert "collapsed" not in {one.rule for one in alarms(spread)}, "runs that differ in more than the seed"
    scores = [{"test/corr": corr} for corr in (0.7, 0.71, None)]
    of_corr = [add(seed=seed, metrics=found, monitor="valid/corr") for seed, found in enumerate(scores)]
    assert fired(*of_corr)["collapsed"] == "defaults, seed 2: corr –, against 0.705 of the others"


def false_alarms(num_seeds: int, spread: float) -> float:
    """The share of rows with a collapsed seed, where all vary normally by a share of what they gained."""
    draws = np.random.default_rng(num_seeds).normal(0.5, spread * 0.5, (TRIALS, num_seeds))
    return sum(bool(collapsed(errors, constant=1.0)) for errors in draws.tolist()) / TRIALS


def test_sound_seeds_rarely_collapse_and_the_page_says_how_rarely() -> None:
    rows = [[str(num), *(f"{false_alarms(num, spread):.1%}" for spread in SPREADS)] for num in (3, 5, 10)]
    assert table(PAGE, "seeds", "5 %") == rows
    tables_of_equals = np.random.default_rng(0).normal(size=(TRIALS, 2, 4, 3))
    share = sum(disagreement(valid, test) is not None for valid, test in tables_of_equals.tolist()) / TRIALS
    assert f"in {share:.1%} of simulated tables of four equal rows and three seeds" in PAGE


def test_code_that_no_commit_holds(add: AddRun) -> None:
    sound, changed, unknown = ({"commit": "a", "dirty": dirty} for dirty in (False, True, None))
    assert fired(add(git=sound, seed=1), add(git=unknown, seed=2)) == {}
    found = fired(add(git=sound, seed=1), add(git=changed, seed=2), add(git=changed, seed=3))
    assert found == {"uncommitted": "2 of 3 runs had changes that no commit holds (defaults)"}
    found = fired(add(git={"commit": "b"}, seed=1), add(git=sound, seed=2))
    assert found == {"commits": "runs of 2 git commits"}


def test_rows_of_different_numbers_of_seeds(add: AddRun) -> None:
    three = [add(seed=seed, overrides=("feedback=none",)) for seed in (1, 2, 3)]
    two = [add(seed=seed, overrides=("feedback=mmlatch",)) for seed in (1, 2)]
    assert fired(*three, *two) == {"seeds": "rows have 2 to 3 seeds, the fewest feedback=mmlatch"}
    two.append(add(seed=3, overrides=("feedback=mmlatch",)))
    assert fired(*three, *two) == {}
    rows = Shape(by=("hidden_dim",)).groups(map(read_run, [*three, *two[:2]]))[0]
    assert not alarms(rows)
    assert fired(*three, add(seed=NO_SEED, overrides=("fusion=other",))) == {}, "an import does not know its seeds"


def test_a_hard_part_of_own_folds_is_no_collapsed_seed(add: AddRun) -> None:
    data = {"fingerprint": "a" * 12, "store": "s", "num_folds": 3, "parts": "b" * 12}
    scores = [0.8, 0.81, 1.3]
    of_parts = [add(mae=mae, data={**data, "held_out": part}) for part, mae in enumerate(scores)]
    assert "collapsed" not in fired(*of_parts)
    assert "collapsed" in fired(*(add(mae=mae, seed=part, overrides=("a=1",)) for part, mae in enumerate(scores)))


@pytest.mark.parametrize(
    ("valid", "test", "warned"),
    [
        (0.1, 0.1, True),
        (0.1, -0.1, False),
        (0.1, 0.01, False),
        (0.01, 0.1, False),
        (0.0165, 0.0165, True),
        (0.016, 0.1, False),
    ],
)
def test_folds_that_disagree_on_the_best_row(add: AddRun, valid: float, test: float, warned: bool) -> None:
    """Of three seeds with deviation 0.01 two standard errors are 0.0163."""
    folders = [
        add(seed=seed, overrides=(f"feedback={name}",), metrics={"valid/mae": 0.9 + noise - sign * valid,
            "test/mae": 0.8 + noise + sign * test, "test/corr": 0.5})
        for name, sign in (("mmlatch", 1), ("none", 0)) for seed, noise in ((1, -0.01), (2, 0.0), (3, 0.01))
    ]  # fmt: skip
    found = fired(*folders)
    assert ("order" in found) == warned
    if warned:
        value = f"{0.8 + test:.3f}"
        assert found["order"] == (
            f"validation chooses feedback=mmlatch, whose test mae is {value}; that of feedback=none is 0.800"
        )
    assert "order" not in fired(*folders[:2], *folders[3:5]), "two seeds are too few"


def test_many_rows_of_a_kind_are_counted(add: AddRun) -> None:
    folders = [add(mae=1.3, overrides=(f"feedback=option_{number}",)) for number in range(5)]
    lines = [one.finding for one in alarms(groups(*folders)) if one.rule == "below baseline"]
    assert len(lines) == 4 and lines[-1] == "2 more rows of this kind"


@pytest.mark.parametrize(
    "content", ["", "id,fold\n1,test", "id,fold,target,prediction\n1,test,x,1", "\udcff", "id\n1,2", None]
)
def test_predictions_that_cannot_be_read_change_no_report(add: AddRun, outputs: Path, content: str | None) -> None:
    folder = add(noisy(0.0), mae=1.3)
    (folder / "predictions.csv").unlink()
    if content is not None:
        (folder / "predictions.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert list(fired(folder)) == ["below baseline"]
    huge = add([1e308, -1e308, *noisy()[2:]])
    assert fired(huge) == {}


def test_warnings_stand_below_reports_in_every_style_but_csv(add: AddRun, outputs: Path) -> None:
    add(mae=1.3)
    line = "warning: defaults: mae 1.300 is worse than 1.100 of the baseline ridge joint: train longer, choose other"
    for style in ("table", "markdown", "latex", "html"):
        page = tables.report(Selection(outputs), format=style)
        assert line in page and page.index("ridge joint") < page.index(line)
    assert "warning:" not in tables.report(Selection(outputs), format="csv")
    assert not tables.make_tables([read_run(next((outputs / "runs").iterdir()))])[0].foot


def test_predictions_are_read_once_and_not_kept(add: AddRun, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmsa.analysis import predictions

    read: list[Path] = []
    true = predictions.read_columns
    monkeypatch.setattr(predictions, "read_columns", lambda path: read.append(path) or true(path))
    for overrides in ((), ("feedback=mmlatch",)):
        add(noisy() + len(overrides), overrides=overrides)
    tables.report(Selection(outputs), Shape(reference="defaults"))
    assert len(read) == len(set(read)) == 2
    assert module.Stored()._read == {}
