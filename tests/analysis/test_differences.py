from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import mmsa
from mmsa import cli
from mmsa.analysis import predictions
from mmsa.analysis.differences import Difference, differences, note
from mmsa.analysis.predictions import Predictions
from mmsa.analysis.runs import Group, Run, read_run
from mmsa.analysis.significance import LEVEL, Interval, holm
from mmsa.data.naming import EMOTIONS
from mmsa.errors import ConfigError, DataError
from mmsa.run_folder import write_predictions
from mmsa.training.emotion_metrics import emotion_errors
from mmsa.training.metrics import Score, classification_metrics, regression_metrics
from tests.records import record

METRICS = ("mae", "acc7", "acc2_non0", "corr", "f1_non0")
AddRun = Callable[..., Path]
AddRow = Callable[..., Group]
SIZES = [9, 4, 14, 7, 11, 5, 8, 12, 6, 10, 3, 9, 13, 7, 8]
VIDEO = np.repeat(np.arange(len(SIZES)), SIZES)
IDS = [f"v{video}[{segment}]" for segment, video in enumerate(VIDEO)]


@dataclass(frozen=True)
class Ids:
    """What `write_predictions` reads of a fold."""

    ids: Sequence[str]
    name: str = "test"

    @property
    def videos(self) -> list[str]:
        return [name.partition("[")[0] for name in self.ids]

    def __len__(self) -> int:
        return len(self.ids)


@pytest.fixture
def truth() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.round(np.clip(rng.normal(size=len(SIZES))[VIDEO] + rng.normal(size=len(VIDEO)), -3, 3) * 3) / 3


@pytest.fixture
def add_row(add_run: AddRun) -> AddRow:
    """A row of runs with these predictions, seed -> values, and the metrics that they have."""

    def add(
        label: str,
        predictions: dict[int, np.ndarray],
        truth: np.ndarray,
        ids: Sequence[str] = IDS,
        score: Score = regression_metrics,
        columns: Sequence[str] = (),
        **changed: object,
    ) -> Group:
        folders = []
        for seed, values in predictions.items():
            metrics = {f"test/{name}": value for name, value in score(values, truth).items()} | {"test/loss": 1.0}
            known = {name: None if math.isnan(value) else value for name, value in metrics.items()}
            folder = add_run(1.0, seed, (f"fusion={label}",), **{"metrics": known} | changed)
            other = Ids([f"valid{name}" for name in ids], "valid"), truth, 0 * values
            write_predictions(folder / "predictions.csv", [other, (Ids(ids), truth, values)], columns)
            folders.append(folder)
        return Group(label, tuple(map(read_run, folders)))

    return add


def made_of(truth: np.ndarray, spread: float, seed: int, seeds: Sequence[int] = (1, 2, 3)) -> dict[int, np.ndarray]:
    """Of several seeds, which share what varies by video."""
    rng = np.random.default_rng(seed)
    common = 0.3 * rng.normal(size=len(SIZES))[VIDEO]
    return {
        s: 0.7 * truth + common + 0.1 * rng.normal(size=len(SIZES))[VIDEO] + spread * rng.normal(size=len(truth))
        for s in seeds
    }


def by_metric(found: Sequence[Difference]) -> dict[str, Difference]:
    return {one.metric: one for one in found}


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def test_a_clear_difference_is_marked_in_its_direction(add_row: AddRow, truth: np.ndarray) -> None:
    good, bad = (add_row(name, made_of(truth, w, n), truth) for n, (name, w) in enumerate([("a", 0.3), ("b", 2.0)]))
    found = by_metric(differences([good, bad], "a", METRICS))
    for metric, one in found.items():
        assert one.marked and one.better is False and one.remark == "" and (one.row, one.reference) == ("b", "a")
        assert one.difference.mean == pytest.approx(
            np.mean(
                [
                    b.metrics[f"test/{metric}"] - a.metrics[f"test/{metric}"]
                    for a, b in zip(good.runs, bad.runs, strict=True)
                ]
            )
        )
        assert one.difference.low < one.difference.mean < one.difference.high
        assert one.over_seeds.mean == pytest.approx(one.difference.mean) and one.p < one.adjusted
        assert (one.num_seeds, one.num_videos, one.num_utterances) == (3, 15, len(IDS))
        assert one.seeds_needed is not None and one.effect.low < one.effect.mean < one.effect.high
    assert {one.test for one in found.values()} == {"flips and bootstrap", "bootstrap"}
    (worse,) = differences([bad, good], "b", ["mae"])
    assert worse.difference.mean == -found["mae"].difference.mean and worse.better
    assert differences([good, bad], "a", METRICS) == [*found.values()]
    order = np.random.default_rng(1).permutation(len(IDS))
    shuffled = {seed: values[order] for seed, values in made_of(truth, 2.0, 1).items()}
    other = add_row("b", shuffled, truth[order], [IDS[place] for place in order])
    for one in differences([other, good], "a", METRICS):
        assert (one.p, one.num_videos) == (pytest.approx(found[one.metric].p), 15), "rows of files in any order"


def test_the_columns_over_seeds_are_those_of_scipy(add_row: AddRow, truth: np.ndarray) -> None:
    rows = [add_row(name, made_of(truth, 1.0, n), truth) for n, name in enumerate("ab")]
    (one,) = differences(rows, "a", ["corr"])
    first, second = ([run.metrics["test/corr"] for run in row.runs] for row in rows)
    theirs = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (one.over_seeds.low, one.over_seeds.high) == pytest.approx((theirs.low, theirs.high))


def test_the_sign_flips_of_one_seed_are_those_of_scipy(add_row: AddRow, truth: np.ndarray) -> None:
    """With one seed the flips and the bootstrap agree; of two small p the larger counts."""
    keep = VIDEO < 9
    ids = [name for name, kept in zip(IDS, keep, strict=True) if kept]
    rows = [add_row(n, {1: made_of(truth, s, 3)[1][keep]}, truth[keep], ids) for n, s in (("a", 0.8), ("b", 1.0))]
    (one,) = differences(rows, "a", ["mae"])
    values = [np.abs(made_of(truth, s, 3)[1] - truth)[keep] for s in (1.0, 0.8)]
    by_video = np.bincount(VIDEO[keep], values[0] - values[1])
    theirs = stats.permutation_test((by_video,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert one.p >= theirs - 1e-12 and one.p == pytest.approx(theirs, abs=0.06)
    assert math.isnan(one.over_seeds.low) and math.isnan(one.effect.mean) and one.seeds_needed is None
    assert "1 seed: the tests are about these trained models" in "\n".join(note([one]))


def test_equal_predictions_have_no_difference(add_row: AddRow, truth: np.ndarray) -> None:
    values = made_of(truth, 1.0, 0)
    found = differences([add_row("a", values, truth), add_row("b", values, truth)], "a", METRICS)
    for one in found:
        assert (one.difference.mean, one.difference.low, one.difference.high, one.p) == (0, 0, 0, 1)
        assert not one.marked and one.better is None and one.seeds_needed is None


def test_all_pairs_are_one_family(add_row: AddRow, truth: np.ndarray) -> None:
    rows = [add_row(name, made_of(truth, 1.0, n, seeds=(1, 2)), truth) for n, name in enumerate("abc")]
    found = differences(rows, None, ["mae", "corr"])
    assert [(one.row, one.reference) for one in found[::2]] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert [one.adjusted for one in found] == holm([one.p for one in found]) != [one.p for one in found]
    assert "differs from its reference: p <= 0.05 after Holm over 6 comparisons" in note(found)[0]
    assert f"{len(IDS)} utterances, 15 videos, 2 seeds" in note(found)[0]
    alone = by_metric(differences(rows[:2], "a", ["mae"]))["mae"]
    assert alone.p == found[0].p and alone.difference == found[0].difference, "other rows change nothing but Holm"
    with pytest.raises(DataError, match=r"no row is 'd'.\n  name one of 'a', 'b', 'c'"):
        differences(rows, "d", METRICS)


def test_only_what_both_have_is_compared_and_said(add_row: AddRow, truth: np.ndarray) -> None:
    every = add_row("every", made_of(truth, 0.5, 0, seeds=(1, 2, 3)), truth)
    half = VIDEO < 7
    ids = [name for name, kept in zip(IDS, half, strict=True) if kept]
    values = {seed: p[half][::-1] for seed, p in made_of(truth, 1.5, 1, seeds=(2, 3, 4)).items()}
    part = add_row("part", values, truth[half][::-1], ids[::-1])
    (one,) = differences([every, part], "every", ["mae"])
    assert (one.num_seeds, one.num_videos, one.num_utterances) == (2, 7, int(half.sum()))
    assert one.remark == f"only 2 seeds of 3 shared; {int((~half).sum())} utterances are not in all runs and left out"
    wanted = [np.abs(values[s][::-1] - truth[half]).mean() - np.abs(made_of(truth, 0.5, 0)[s] - truth)[half].mean()
              for s in (2, 3)]  # fmt: skip
    assert one.difference.mean == pytest.approx(np.mean(wanted))
    assert f"part against every: {one.remark}" in note([one])
    whole = add_row("whole", made_of(truth, 0.6, 2), truth)
    (alone,), (beside, again) = (differences(rows, "every", ["mae"]) for rows in ([every, whole], [every, whole, part]))
    assert (beside.p, beside.difference) == (alone.p, alone.difference) and again.p == one.p
    assert f"{int(half.sum())} to {len(IDS)} utterances, 7 to 15 videos, 2 to 3 seeds" in note([beside, again])[0]


def test_rows_without_a_shared_seed(add_row: AddRow, truth: np.ndarray) -> None:
    single = add_row("single", {9: made_of(truth, 0.5, 0)[1]}, truth)
    three = add_row("three", made_of(truth, 0.5, 1, seeds=(1, 2, 3)), truth)
    others = add_row("others", made_of(truth, 0.5, 2, seeds=(4, 5)), truth)
    found = differences([three, single, others], "three", ["mae"])
    assert [one.num_seeds for one in found] == [3, 2]
    assert [one.remark for one in found] == [
        "a single run against each of 3 seeds",
        "no seed is shared: paired in their order",
    ]
    assert found[0].difference.mean == pytest.approx(
        single.runs[0].metrics["test/mae"] - np.mean([run.metrics["test/mae"] for run in three.runs])
    )


def test_what_is_not_defined_is_not_tested_nor_counted(add_row: AddRow, truth: np.ndarray) -> None:
    rows = [add_row("model", made_of(truth, 0.5, 0), truth), add_row("constant", {1: truth * 0 + 0.2}, truth)]
    nan = {seed: np.where(np.arange(len(truth)) == 3, np.nan, p) for seed, p in made_of(truth, 0.5, 1).items()}
    rows.append(add_row("diverged", nan, truth))
    found = differences(rows, "model", ["mae", "corr"])
    assert [math.isnan(one.p) for one in found] == [False, True, True, True]
    assert found[0].adjusted == found[0].p and found[0].marked
    assert all(one.test == "none" and not one.marked and one.better is None for one in found[1:])
    assert "over 1 comparison," in note(found)[0]
    assert note(found[1:2])[0] == "no difference could be tested"
    neutral = [add_row(name, made_of(truth, 0.5, n), 0 * truth) for n, name in enumerate("ab")]
    mae, polar = differences(neutral, "a", ["mae", "acc2_non0"])
    assert 0 < mae.p < 1 and math.isnan(polar.p) and math.isnan(polar.difference.mean)


def test_one_video_and_ids_that_name_none(add_row: AddRow, truth: np.ndarray) -> None:
    for ids, video in ((["v[1]", "v[2]", "v[3]"], 1), (["a", "b", "c"], 3)):
        rows = [add_row(n, {1: truth[:3] + d}, truth[:3], ids) for n, d in (("a", np.ones(3)), ("b", np.arange(3)))]
        (one,) = differences(rows, "a", ["mae"])
        assert one.num_videos == video and math.isnan(one.p) == (video == 1)
    assert any("each utterance counts as independent" in line for line in note([one]))


def test_videos_are_those_of_a_run_that_names_them(add_row: AddRow, truth: np.ndarray) -> None:
    rows = [add_row(name, made_of(truth, 0.5, n, seeds=(1,)), truth) for n, name in enumerate("ab")]
    paths = [row.runs[0].folder / "predictions.csv" for row in rows]
    former = re.sub(r"^([^,]*,[^,]*),[^,]*", r"\1", paths[0].read_text(), flags=re.MULTILINE)  # without videos
    paths[0].write_text(former)
    place = iter(range(10_000))
    other = re.sub(r"^([^,]*,test),[^,]*", lambda m: f"{m[1]},{next(place) // 30}", paths[1].read_text(), flags=re.M)
    paths[1].write_text(other)
    (one,) = differences(rows, "a", ["mae"])
    assert one.num_videos == math.ceil(len(IDS) / 30)


def test_an_id_that_occurs_twice_is_paired_in_its_order(add_row: AddRow) -> None:
    ids, label = ["v[1]", "v[1]", "w[1]"], np.array([1.0, 2.0, 0.0])
    rows = [add_row(n, {1: label + d}, label, ids) for n, d in (("a", np.array([1, 0, 0])), ("b", np.array([0, 1, 1])))]
    (one,) = differences(rows, "a", ["mae"])
    assert one.num_utterances == 3 and one.difference.mean == pytest.approx(1 / 3) and one.num_videos == 2


@pytest.mark.parametrize("kind", ["classes", "emotions"])
def test_classes_and_several_columns(kind: str, add_row: AddRow, truth: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    if kind == "classes":
        label = np.digitize(truth, [-0.5, 0.5])
        about: dict[str, object] = {"score": classification_metrics, "task": "classification"}
        metrics = ["accuracy", "f1_weighted", "f1_macro", "recall_macro"]
        made = [{s: np.where(rng.random(len(label)) < w, label, 1) for s in (1, 2, 3)} for w in (0.9, 0.2)]
    else:
        label = np.maximum(rng.normal(size=(len(truth), 6)), 0)
        about = {"score": emotion_errors, "columns": EMOTIONS}
        metrics = ["mae", "corr_emotions", "corr_sad", "mae_sad"]
        made = [{s: label + w * rng.normal(size=label.shape) for s in (1, 2, 3)} for w in (0.3, 2.0)]
    rows = [add_row(name, values, label, **about) for name, values in zip("ab", made, strict=True)]
    for one in differences(rows, "a", metrics):
        assert one.marked and one.better is False and one.remark == "" and one.num_videos == 15
        values = [[run.metrics[f"test/{one.metric}"] for run in row.runs] for row in rows]
        assert one.difference.mean == pytest.approx(np.mean(values[1]) - np.mean(values[0]))


def test_without_predictions_the_seeds_alone_are_tested(add_row: AddRow, truth: np.ndarray) -> None:
    rows = [add_row(name, made_of(truth, 0.2 + n, n), truth) for n, name in enumerate("ab")]
    loss, mae = differences(rows, "a", ["loss", "mae"])
    assert loss.p == 1 and loss.remark == "loss: not from the predictions" and mae.num_videos == 15
    first, second = ([run.metrics["test/mae"] for run in row.runs] for row in rows)
    path = rows[0].runs[0].folder / "predictions.csv"
    text = path.read_text()
    for spoiled in (None, "", "id,fold,target,prediction\na[1],test,1,x\n", text.replace("prediction", "guess"), "\0"):
        path.unlink(missing_ok=True)
        if spoiled is not None:
            path.write_text(spoiled)
        (one,) = differences(rows, "a", ["mae"])
        assert one.test == "t over seeds" and one.num_videos == 0 and str(path) in one.remark
        assert one.p == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert "paired on 3 seeds" in note([one])[0] and any(
        "paired t test over seeds alone" in line for line in note([one])
    )
    path.write_text(re.sub("(test,[^,]*,)", r"\g<1>9", text, count=1))  # other values than result.json was made of
    (one,) = differences(rows, "a", ["mae"])
    assert one.test == "t over seeds" or one.remark == "their targets differ"


def test_predictions_that_contradict_the_result_are_not_used(add_row: AddRow, truth: np.ndarray) -> None:
    values = made_of(truth, 0.5, 0)
    rows = [add_row("a", values, truth), add_row("b", made_of(truth, 0.5, 1), truth)]
    write_predictions(rows[1].runs[0].folder / "predictions.csv", [(Ids(IDS), truth, values[1])])
    (one,) = differences(rows, "a", ["mae"])
    assert (one.test, one.remark) == ("t over seeds", "mae: not from the predictions")


def test_other_targets_are_not_compared(add_row: AddRow, truth: np.ndarray) -> None:
    rows = [add_row("a", made_of(truth, 0.5, 0), truth), add_row("b", made_of(truth, 0.5, 1), truth * 2)]
    rows.append(add_row("c", made_of(truth, 0.5, 1), truth, [f"w{name}" for name in IDS]))
    found = differences(rows, "a", ["mae"])
    assert [one.remark for one in found] == ["their targets differ", "no utterance is in all runs"]
    assert all(math.isnan(one.p) and one.test == "none" for one in found)


def test_a_run_of_the_program_and_its_videos(small: list[str]) -> None:
    run = read_run(mmsa.run([*small, "trainer.max_epochs=1", "task=classification"], quiet=True).folder)
    rows = [Group(name, (run,)) for name in "ab"]
    found = differences(rows, "a", run.primary)
    num_test, table = run.data.utterances["test"], run.folder / "predictions.csv"
    assert found and all(one.p == 1 and one.num_utterances == num_test > one.num_videos > 1 for one in found)
    rows_of = list(csv.DictReader(io.StringIO(table.read_text())))
    assert found[0].num_videos == len({row["video"] for row in rows_of if row["fold"] == "test"})
    with table.open("w", newline="") as file:  # as a former version wrote it
        writer = csv.DictWriter(file, [name for name in rows_of[0] if name != "video"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows_of)
    assert found == differences(rows, "a", run.primary), "the ids of these data name their videos"


Truths = dict[Path, Predictions]


def simulated(rng: np.random.Generator, kind: str, folders: list[list[Path]]) -> Truths:
    """Two rows of one method on 31 videos of 8 to 39 utterances, whose errors have parts of the video and the seed.

    `permuted`: trained once per seed, and in half of the videos the rows are swapped. `retrained`: a seed changes also
    how far the predictions reach, as training does, and nothing else tells the rows apart. `better`: the second is.
    """
    sizes = rng.integers(8, 40, 31)
    video = np.repeat(np.arange(31), sizes)
    truth = np.clip(np.round(3 * (0.8 * rng.normal(size=31)[video] + 1.2 * rng.normal(size=len(video)))) / 3, -3, 3)
    rows = []
    for row in range(2):
        shared = 0.5 * rng.normal(size=31)
        slopes = 0.55 + (0.1 if kind == "retrained" else 0) * rng.normal(size=len(folders[row]))
        noise = 0.3 if kind == "better" and row else 1.0
        by_video = [shared + 0.3 * rng.normal(size=31) for _ in slopes]
        errors = [noise * (part[video] + rng.normal(size=len(video))) for part in by_video]
        rows.append([slope * truth + error for slope, error in zip(slopes, errors, strict=True)])
    if kind == "permuted":
        swapped = (rng.random(31) < 0.5)[video]
        rows = [[np.where(swapped, b, a) for a, b in zip(*pair, strict=True)] for pair in (rows, rows[::-1])]
    names = {(f"v{v}[{n}]", 0): n for n, v in enumerate(video)}
    pairs = zip(folders, rows, strict=True)
    return {f: Predictions(names, p, truth, {}) for places, made in pairs for f, p in zip(places, made, strict=True)}


def marks(kind: str, num: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many of the simulated comparisons each metric calls different, and how many families have a mark."""
    runs = [[Path(f"{row}{seed}") for seed in range(5)] for row in "ab"]
    rows = [
        Group(
            label, tuple(Run(**dict(record(seed=n)), folder=f, configuration={}, shown={}) for n, f in enumerate(row))
        )
        for label, row in zip("ab", runs, strict=True)
    ]
    counts = dict.fromkeys((*METRICS, "families"), 0)
    for simulation in range(num):
        made = simulated(np.random.default_rng(simulation), kind, runs)
        monkeypatch.setattr(predictions, "read_predictions", lambda folder, fold, made=made: made[folder])
        found = differences(rows, "a", METRICS)
        for one in found:
            counts[one.metric] += one.p <= LEVEL
        counts["families"] += any(one.marked for one in found)
    return counts


@pytest.mark.parametrize("kind", ["permuted", "retrained"])
def test_a_few_rows_of_one_method_are_hardly_ever_called_different(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(marks(kind, 12, monkeypatch).values()) <= 2
    if kind == "permuted":
        assert min(marks("better", 3, monkeypatch).values()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["permuted", "retrained"])
def test_no_more_differences_are_marked_than_the_level_allows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = marks(kind, 500, monkeypatch)
    print(kind, counts)
    assert max(counts.values()) <= LEVEL * 500


@pytest.mark.slow
def test_sign_flips_alone_call_rows_of_one_method_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the bootstrap over seeds stands beside them: a method is more than its trained models."""
    unknown = Interval(0.0, 0.0, 0.0, 1)
    monkeypatch.setattr("mmsa.analysis.differences.over_videos_and_seeds", lambda *given: (unknown, 0.0))
    counts = marks("retrained", 200, monkeypatch)
    print(counts)
    assert counts["mae"] > 1.5 * LEVEL * 200


def test_a_report_marks_what_differs_from_a_row(
    add_row: AddRow, truth: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {name: add_row(name, made_of(truth, w, n), truth) for n, (name, w) in enumerate([("a", 0.3), ("b", 2.0)])}
    outputs = str(rows["a"].runs[0].folder.parents[1])

    def reported(*more: str) -> str:
        cli.command(["report", "--outputs", outputs, "--metrics", "mae,corr", "--no-baselines", *more])
        return capsys.readouterr().out

    shown = reported("--reference", "fusion=a")
    of_a, of_b = (
        next(line for line in shown.splitlines() if line.lstrip().startswith(f"fusion={name}")) for name in "ab"
    )
    assert of_b.count("†") == 2 and "†" not in of_a, shown
    assert "† differs from fusion=a: p <= 0.05 after Holm over 2 comparisons, paired on 126 utterances, 15 videos" in (
        " ".join(shown.split())
    )
    assert reported("--reference", "fusion=a", "--format", "latex").count(r"\textsuperscript{\textdagger{}}") == 4
    assert reported("--reference", "fusion=a", "--format", "html").count("<sup>†</sup>") == 4
    lines = list(csv.DictReader(io.StringIO(reported("--reference", "fusion=a", "--format", "csv"))))
    one = differences([rows["a"], rows["b"]], rows["a"].label, ["mae", "corr"])[0]
    (line,) = (line for line in lines if line["kind"] == "difference" and line["metric"] == "mae")
    assert (line["label"], line["reference"], line["marked"]) == ("fusion=b", "fusion=a", "true")
    assert float(line["p_adjusted"]) == one.adjusted and float(line["difference"]) == one.difference.mean
    page = reported("--reference", "fusion=a", "--format", "markdown").replace("\\", "")
    assert f"{one.difference.text()}†" in page and one.effect.text(1) in page
    assert [line["kind"] for line in csv.DictReader(io.StringIO(reported("--format", "csv")))].count("difference") == 0
    pairs = reported("--pairs", "--percent")
    assert pairs.count("†") == 3 and "† differs from" in pairs.partition("differences from fusion=a")[2]
    add_row("c", made_of(truth, 1.0, 2), truth)
    pairs = reported("--pairs", "--format", "markdown")
    assert "differences of each pair of rows" in pairs and pairs.count(" against fusion=") == 3
    with pytest.raises(ConfigError, match="leave one of them out"):
        reported("--pairs", "--reference", "fusion=a")
    assert reported().count("†") == 0
    with pytest.raises(ConfigError, match=r"--reference c: there is no such row\.\n  the rows are: fusion=a; fusion=b"):
        reported("--reference", "c")
    with pytest.raises(ConfigError, match="leave --seeds and --by out"):
        reported("--reference", "fusion=a", "--seeds")
