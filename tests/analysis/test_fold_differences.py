"""Differences over own folds: the corrected resampled t test, and what it is not applied to."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from scipy import stats

from mmsa import cli
from mmsa.analysis.differences import Difference, differences, note
from mmsa.analysis.runs import Group, Run, read_run
from mmsa.analysis.significance import LEVEL, corrected_t_test
from mmsa.data.own_folds import parts_of
from mmsa.training.metrics import Score, regression_metrics
from tests.analysis.test_differences import by_metric
from tests.records import record

AddRow = Callable[..., Group]
Place = tuple[int, int]
NUM = 12
RATIO = 20 / 60


@pytest.fixture
def add_row(add_folds: Callable[..., list[Path]]) -> AddRow:
    """A row of runs on own folds, whose MAE by held-out part and seed is given."""

    def add(label: str, mae: dict[Place, float], **more: object) -> Group:
        return Group(label, tuple(map(read_run, add_folds(mae, (f"fusion={label}",), **more))))

    return add


def spread(rng: np.random.Generator, mean: float, folds: int = 5, seeds: int = 3) -> dict[Place, float]:
    return {(k, s): mean + 0.1 * k + 0.02 * rng.normal() for k in range(folds) for s in range(1, seeds + 1)}


def only(rows: list[Group], metric: str = "mae") -> Difference:
    (one,) = differences(rows, rows[0].label, [metric])
    return one


def test_p_and_interval_are_those_of_nadeau_and_bengio(add_row: AddRow) -> None:
    ours, theirs = spread(np.random.default_rng(0), 0.9), spread(np.random.default_rng(1), 0.8)
    one = only([add_row("a", theirs), add_row("b", ours)])
    values = [fmean(ours[k, s] - theirs[k, s] for s in (1, 2, 3)) for k in range(5)]
    error = stdev(values) * math.sqrt(1 / 5 + 20 / 60)
    assert one.p == pytest.approx(2 * stats.t.sf(fmean(values) / error, df=4))
    low, high = stats.t.interval(0.95, df=4, loc=fmean(values), scale=error)
    assert (one.difference.low, one.difference.mean, one.difference.high) == pytest.approx((low, fmean(values), high))
    assert (one.test, one.num_folds, one.num_seeds, one.num_utterances) == ("corrected t over folds", 5, 3, 100)
    over_seeds = [fmean(ours[k, s] - theirs[k, s] for k in range(5)) for s in (1, 2, 3)]
    assert one.over_seeds.mean == pytest.approx(one.difference.mean)
    assert one.effect.mean == pytest.approx(fmean(over_seeds) / stdev(over_seeds))
    assert one.marked and one.better is False


def test_without_a_correction_it_is_the_t_test_of_scipy() -> None:
    values = [0.1, 0.3, -0.05, 0.2, 0.15]
    interval, p = corrected_t_test(values, 0.0)
    theirs = stats.ttest_1samp(values, 0)
    assert p == pytest.approx(theirs.pvalue)
    assert (interval.low, interval.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    wider, larger = corrected_t_test(values, 0.25)
    assert larger > p and wider.low < interval.low
    assert math.isnan(corrected_t_test([0.1], 0.25)[1]) and corrected_t_test([0.0, 0.0], 0.25)[1] == 1
    assert all(math.isnan(corrected_t_test(values, 0.25)[1]) for values in ([0.2, 0.2], [0.2, math.nan]))


def test_the_note_names_the_test_and_what_it_rests_on(add_row: AddRow) -> None:
    rows = [add_row(name, spread(np.random.default_rng(n), 0.8)) for n, name in enumerate("ab")]
    text = "\n".join(note(differences(rows, "a", ["mae", "corr"])))
    assert "after Holm over 2 comparisons, paired on 100 utterances, 5 folds, 3 seeds" in text
    assert "mae, corr: corrected resampled t test (Nadeau and Bengio, 2003) over folds" in text
    assert "bootstrap" not in text and "other videos" not in text and "sign test" not in text


def test_pairs_are_of_one_fold_and_seed(add_row: AddRow) -> None:
    """A row that lacks folds or seeds is compared on what both have, and never across folds."""
    whole = spread(np.random.default_rng(0), 0.8)
    part = {place: mae + 0.1 for place, mae in whole.items() if place[0] != 2 and place != (0, 3)}
    one = only([add_row("whole", whole), add_row("part", part)])
    assert one.difference.mean == pytest.approx(0.1) and one.num_folds == 4 and one.num_utterances == 80
    assert one.remark.split("; ")[:2] == ["only 4 folds of 5 shared", "only 2 seeds of 3 shared"]
    assert math.isnan(one.over_seeds.mean) and one.seeds_needed is None, "folds of other seeds"
    others = {(k, s + 5): mae for (k, s), mae in whole.items()}
    assert "no seed is shared: paired in their order" in only([add_row("c", whole), add_row("d", others)]).remark
    left, right = ({(k, 1): 0.5 for k in folds} for folds in ((0, 1), (2, 3, 4)))
    none = only([add_row("left", left), add_row("right", right)])
    assert none.test == "none" and math.isnan(none.p) and none.remark == "no fold is shared"
    assert note([none]) == ["no difference could be tested", "right against left: no fold is shared"]


def write_folds(group: Group, score: Score, shift: float, ids: Callable[[int], list[str]]) -> Group:
    """Predictions of the test fold of each run, whose targets follow from the fold."""
    for run in group.runs:
        assert run.data.held_out is not None
        truth = np.random.default_rng(run.data.held_out).normal(size=NUM) + shift
        lines = ["id,fold,target,prediction"]
        lines += [
            f"{name},test,{value},{value + 0.5}" for name, value in zip(ids(run.data.held_out), truth, strict=True)
        ]
        (run.folder / "predictions.csv").write_text("\n".join(lines) + "\n")
    return group


def test_rows_of_other_utterances_or_targets_are_refused(add_row: AddRow) -> None:
    def ids(fold: int) -> list[str]:
        return [f"v{fold}[{n}]" for n in range(NUM)]

    def made(label: str, shift: float, name: Callable[[int], list[str]] = ids) -> Group:
        mae = spread(np.random.default_rng(len(label)), 0.8)
        return write_folds(add_row(label, mae), regression_metrics, shift, name)

    first = made("a", 0.0)
    same, reversed_ = made("bb", 0.0), made("r", 0.0, lambda fold: ids(fold)[::-1])
    assert only([first, same]).remark == "" and only([first, same]).test == "corrected t over folds"
    for other, told in (
        (made("ccc", 1.0), "their targets differ"),
        (reversed_, "their targets differ"),
        (made("dddd", 0.0, lambda fold: [f"w{name}" for name in ids(fold)]), "their utterances differ"),
    ):
        one = only([first, other])
        assert one.remark == told and math.isnan(one.p) and one.test == "none"
    assert "predictions.csv" in only([first, add_row("none", spread(np.random.default_rng(3), 0.8))]).remark


def test_of_one_shared_fold_the_utterances_are_resampled(add_row: AddRow) -> None:
    """They are a common sample, as of the folds of a source."""
    rows = []
    for label in "ab":
        group = add_row(label, {(3, s): 0.5 for s in (1, 2, 3)})
        rows.append(write_folds(group, regression_metrics, 0.0, lambda fold: [f"v{n // 3}[{n}]" for n in range(NUM)]))
    one = only(rows)
    assert (one.test, one.num_videos, one.num_folds, one.p) == ("flips and bootstrap", 4, 0, 1)


def test_without_numbers_of_utterances_nothing_is_tested(add_row: AddRow) -> None:
    for odd in ({}, {"train": 60}, {"train": -60, "test": 90}, {"train": 0, "test": 20}):
        rows = [add_row(name, spread(np.random.default_rng(n), 0.8), utterances=odd) for n, name in enumerate("ab")]
        assert only(rows).test == "none" and math.isnan(only(rows).p)


def test_a_report_marks_what_differs_over_folds(
    outputs: Path, add_row: AddRow, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, name in enumerate("ab"):
        add_row(name, spread(np.random.default_rng(n), 0.5 + n))
    cli.command(["report", "--outputs", str(outputs), "--metrics", "mae", "--no-baselines", "--reference", "fusion=a"])
    shown = capsys.readouterr().out
    (of_b,) = [line for line in shown.splitlines() if line.lstrip().startswith("fusion=b (")]
    assert "†" in of_b and "corrected resampled t test" in shown


def regressions(
    rng: np.random.Generator, num_folds: int, num_videos: int, better: float
) -> tuple[list[dict[str, float]], list[dict[str, float]], float]:
    """Two regressions on clustered videos: metrics by fold and seed, and the ratio of test to train utterances.

    Each reads 30 features of its own, drawn alike, so neither is better on average. They fit their train videos
    closely, so what two folds share of these shows in both. `better` gives the second a feature that is the label.
    """
    sizes = rng.integers(5, 20, num_videos)
    video, num = np.repeat(np.arange(num_videos), sizes), int(sizes.sum())
    features = [3 * rng.normal(size=(num_videos, 30))[video] + rng.normal(size=(num, 30)) for _ in range(2)]
    truth = 0.16 * sum(one.sum(axis=1) for one in features) + rng.normal(size=num_videos)[video] + rng.normal(size=num)
    features[1] = np.column_stack([features[1], better * truth])
    part_of = parts_of([f"v{n}" for n in video], num_folds)
    part = np.array([part_of[f"v{n}"] for n in video])
    scores: list[list[dict[str, float]]] = [[], []]
    num_test = num_train = 0
    for held_out in range(num_folds):
        test, train = part == held_out, ~np.isin(part, [held_out, (held_out + 1) % num_folds])
        num_test, num_train = num_test + int(test.sum()), num_train + int(train.sum())
        for row, read in enumerate(features):
            seen = read[train]
            weights = np.linalg.solve(seen.T @ seen + 1e-3 * np.eye(read.shape[1]), seen.T @ truth[train])
            for _ in range(2):  # seeds
                predicted = read[test] @ (weights + 0.003 * rng.normal(size=len(weights)))
                error, corr = np.abs(predicted - truth[test]).mean(), np.corrcoef(predicted, truth[test])[0, 1]
                scores[row].append({"test/mae": float(error), "test/corr": float(corr)})
    return scores[0], scores[1], num_test / num_train


def marks(num: int, num_folds: int = 5, num_videos: int = 40, better: float = 0.0) -> tuple[dict[str, int], int]:
    """How many simulated comparisons each metric calls different, and how many a plain t test over folds calls so."""
    counts, plain = {"mae": 0, "corr": 0, "families": 0}, 0
    for simulation in range(num):
        *rows, ratio = regressions(np.random.default_rng(simulation), num_folds, num_videos, better)
        groups = []
        for label, scores in zip("ab", rows, strict=True):
            runs = []
            for place, metrics in enumerate(scores):
                data = {"fingerprint": "a", "store": "a.h5", "parts": "p", "num_folds": num_folds}
                data |= {"held_out": place // 2, "utterances": {"train": 10_000, "test": round(10_000 * ratio)}}
                known = dict(record(seed=place % 2, metrics=metrics, data=data))
                runs.append(Run(**known, folder=Path(f"{label}{place}"), configuration={}, shown={}))
            groups.append(Group(label, tuple(runs)))
        found = by_metric(differences(groups, "a", ["mae", "corr"]))
        for metric, one in found.items():
            counts[metric] += one.p <= LEVEL
        counts["families"] += any(one.marked for one in found.values())
        values = np.array([b["test/mae"] - a["test/mae"] for a, b in zip(*rows, strict=True)])
        plain += int(stats.ttest_1samp(values.reshape(num_folds, 2).mean(axis=1), 0).pvalue <= LEVEL)
    return counts, plain


def test_a_few_equal_methods_are_hardly_ever_called_different() -> None:
    counts, plain = marks(25)
    assert max(counts.values()) <= 3 < plain
    assert min(marks(5, better=1.0)[0].values()) == 5


@pytest.mark.slow
def test_no_more_differences_are_marked_than_the_level_allows() -> None:
    """And the t test without the correction marks three times as many: it takes the folds for independent."""
    counts, plain = marks(500)
    print(counts, plain)
    assert max(counts.values()) <= LEVEL * 500 and plain > 3 * LEVEL * 500


@pytest.mark.slow
def test_with_many_folds_of_few_videos_the_correction_falls_short() -> None:
    counts, plain = marks(500, num_folds=10, num_videos=20)
    print(counts, plain)
    assert LEVEL * 500 < counts["mae"] <= 2 * LEVEL * 500 < 2 * counts["mae"] < plain
