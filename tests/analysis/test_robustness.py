from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import mmsa
from mmsa.analysis import corruption, robustness
from mmsa.analysis.comparison import agreement, comparable_groups, evaluated
from mmsa.analysis.corruption import WAYS, Condition, Corrupted, corrupt, dropped_steps
from mmsa.analysis.errors import read_errors, said_in
from mmsa.analysis.evaluation import write_robustness
from mmsa.analysis.rendering import rendered
from mmsa.analysis.robustness import Probe, difference, robustness_lines
from mmsa.analysis.runs import Group, read_run
from mmsa.analysis.significance import Interval
from mmsa.cli import command
from mmsa.earlier_run import store_of
from mmsa.errors import ConfigError, DataError
from mmsa.trained import TrainedRun

AddRun = Callable[..., Path]
ALL = ("text", "audio", "visual")
CLEAN = Condition("present", ALL)


@pytest.fixture(scope="module")
def folders(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two configurations of two seeds each, the one without feedback first."""
    outputs = tmp_path_factory.mktemp("outputs")
    quick = [f"paths.data={stores}", f"paths.outputs={outputs}", "tracking=none", "device=cpu", "hidden_dim=4"]
    quick += ["trainer.max_epochs=1", "trainer.batch_size=128", "fusion=concat"]
    kinds = [(f"feedback={feedback}", f"seed={seed}") for feedback in ("none", "static") for seed in (1, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
        return [mmsa.run([*quick, *kind], quiet=True).folder for kind in kinds]


@pytest.fixture(scope="module")
def loaded(folders: list[Path]) -> TrainedRun:
    return mmsa.load(folders[0])


@pytest.fixture
def one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption, "RATES", (0.6,))


def test_nothing_missing_is_the_clean_evaluation_bit_for_bit(loaded: TrainedRun) -> None:
    recorded = read_run(loaded.folder)
    clean, _ = loaded.evaluate("test")
    assert agreement(recorded, "test", clean) == "equal to result.json"
    for condition in (CLEAN, *(Condition(way, ALL, 0.0) for way in WAYS)):
        assert evaluated(loaded, Corrupted(loaded.model, condition), loaded.data.fold("test")) == clean
    assert evaluated(loaded, Corrupted(loaded.model, Condition("zero", ALL, 0.6)), loaded.data.fold("test")) != clean


def test_masks_are_shared_by_runs_and_do_not_depend_on_the_batches(folders: list[Path]) -> None:
    drawn = []
    for run, batch_size in ((mmsa.load(folders[0]), 50), (mmsa.load(folders[3]), 7)):
        dropped = {}
        for batch in run.data.fold("test").batches(batch_size):
            steps = dropped_steps(batch, "audio", "zero", 0.4)
            dropped |= {
                name: row[:n].tolist()
                for name, row, n in zip(batch.ids, steps, batch.lengths["audio"].tolist(), strict=True)
            }
        drawn.append(dropped)
    assert drawn[0] == drawn[1] and len(drawn[0]) > 50


def test_an_utterance_that_lacks_everything_is_still_predicted(loaded: TrainedRun) -> None:
    batch = next(loaded.data.fold("valid").batches(4))
    spoiled = corrupt(batch, Condition("present", ()))
    with torch.no_grad():
        assert torch.isfinite(loaded.model(spoiled).predictions["sentiment"]).all()


def test_the_command_probes_groups_and_pairs_their_seeds(
    folders: list[Path], one_rate: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(["evaluate", *map(str, folders), "--missing", "--output", str(tmp_path / "new" / "place")])
    printed = capsys.readouterr().out
    assert "planted data" in printed and "feedback=static against feedback=none, paired by seed (2 seeds)" in printed
    assert {path.name for path in (tmp_path / "new" / "place").iterdir()} == {
        "robustness.json",
        "robustness.md",
        "robustness.png",
    }
    content = json.loads((tmp_path / "new" / "place" / "robustness.json").read_text())
    assert [(run["group"], run["seed"]) for run in content["runs"]] == [
        ("feedback=none", 1),
        ("feedback=none", 2),
        ("feedback=static", 1),
        ("feedback=static", 2),
    ]
    for run, folder in zip(content["runs"], folders, strict=True):
        assert len(run["scores"]) == 7 + len(WAYS) * 4
        clean = run["scores"][0]
        assert tuple(clean["modalities"]) == ALL and tuple(run["clean"]["modalities"]) == ALL
        recorded = json.loads((folder / "result.json").read_text())["metrics"]
        assert clean["metrics"] == {name: recorded[f"test/{name}"] for name in clean["metrics"]}
    markdown = (tmp_path / "new" / "place" / "robustness.md").read_text()
    assert "| text+audio+visual 60 % |" in markdown and "| stretch: audio 60 % |" in markdown
    png = (tmp_path / "new" / "place" / "robustness.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 20_000


def test_one_run_is_written_into_its_folder_and_several_beside_the_runs(
    folders: list[Path], one_rate: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command(["evaluate", str(folders[0]), "--missing", "--fold", "valid"])
    content = json.loads((folders[0] / "robustness.json").read_text())
    assert content["fold"] == "valid" and content["differences"] == []
    assert "against" not in capsys.readouterr().out
    command(["evaluate", *map(str, folders[:2]), "--missing"])
    (made,) = (folders[0].parent.parent / "evaluations").iterdir()
    assert (made / "robustness.png").is_file()


def test_without_a_probe_the_recorded_score_is_computed_again(
    folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command(["evaluate", str(folders[0]), str(folders[2]), "--fold", "valid"])
    assert capsys.readouterr().out.count("equal to result.json") == 2
    result = json.loads((folders[1] / "result.json").read_text())
    result["metrics"]["test/corr"] += 0.25
    (folders[1] / "result.json").write_text(json.dumps(result))
    command(["evaluate", str(folders[1])])
    assert "differs from result.json, most in corr" in capsys.readouterr().out
    result["metrics"]["test/corr"] -= 0.25
    (folders[1] / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"data": {"fingerprint": "b", "store": "b.h5", "source": "b.pkl"}}, r"cmu_mosi \(b.pkl\), data b"),
        ({"task": "classification"}, "classification"),
    ],
)
def test_runs_that_predict_different_things_are_refused(
    add_run: AddRun, changed: dict[str, object], named: str
) -> None:
    first, second = add_run(0.7), add_run(0.8, 2, **changed)
    with pytest.raises(DataError, match=rf"{first.name}\n  {named} in .*{second.name}"):
        comparable_groups([first, second])
    third = add_run(0.8, 3, ("task.target=anger",))
    with pytest.raises(DataError, match=r"task.target"):
        comparable_groups([first, third])


def test_groups_stand_in_the_order_in_which_their_runs_are_named(add_run: AddRun) -> None:
    static = [add_run(0.7, seed, ("feedback=static", "optimizer.lr=1")) for seed in (1, 2)]
    none = [add_run(0.7, seed, ("feedback=none", "optimizer.lr=1")) for seed in (2, 1)]
    groups = comparable_groups([*none, *static])
    assert [(group.label, [run.seed for run in group.runs]) for group in groups] == [
        ("feedback=none", [1, 2]),
        ("feedback=static", [1, 2]),
    ]
    assert [group.label for group in comparable_groups(static)] == ["feedback=static optimizer.lr=1"]


def made_up(add_run: AddRun, scores: dict[str, list[tuple[int, float, float]]], metric: str = "mae") -> Probe:
    """Groups of runs with (seed, clean score, score without audio)."""
    spoiled = Condition("zero", ("audio",), 0.2)
    found = {}
    for label, runs in scores.items():
        for seed, clean, missing in runs:
            folder = add_run(clean, seed, (f"feedback={label}",), primary=[metric])
            found[folder] = {CLEAN: {metric: clean}, spoiled: {metric: missing}}
    return Probe("test", tuple(comparable_groups(found)), found)


def markdown(probed: Probe) -> str:
    return rendered([*robustness.make_tables(probed), *robustness.difference_tables(probed)], "markdown")


def test_differences_are_paired_by_seed_and_are_of_what_is_lost(add_run: AddRun) -> None:
    probed = made_up(
        add_run,
        {
            "none": [(1, 0.5, 1.0), (2, 0.6, 1.3), (9, 0.1, 0.1)],
            "static": [(2, 0.7, 1.2), (1, 0.5, 0.8), (7, 3.0, 9.0)],
        },
    )
    spoiled = Condition("zero", ("audio",), 0.2)
    (found,) = [difference(probed, group, [spoiled]) for group in probed.groups[1:]]
    assert found is not None and sorted(found.seeds) == [1, 2] and found.against == "feedback=none"
    assert found.lost.mean == pytest.approx((0.3 - 0.5 + 0.5 - 0.7) / 2)
    assert found.score.mean == pytest.approx((0.8 - 1.0 + 1.2 - 1.3) / 2)
    reference = stats.ttest_rel([0.8, 1.2], [1.0, 1.3]).confidence_interval(0.95)
    assert (found.score.low, found.score.high) == pytest.approx((reference.low, reference.high))
    assert difference(probed, probed.groups[1], [Condition("repeat", ("audio",), 0.2)]) is None


def test_what_is_lost_of_a_larger_is_better_metric_is_positive_too(add_run: AddRun) -> None:
    probed = made_up(add_run, {"none": [(1, 0.9, 0.4)], "static": [(1, 0.9, 0.7)]}, metric="corr")
    run = probed.groups[0].runs[0]
    assert probed.lost(run, Condition("zero", ("audio",), 0.2)) == pytest.approx(0.5)
    assert any("zeros: -0.300" in line for line in robustness_lines(probed))


def test_without_a_shared_seed_there_is_no_difference(add_run: AddRun) -> None:
    probed = made_up(add_run, {"none": [(1, 0.5, 1.0)], "static": [(2, 0.5, 1.0)]})
    assert robustness_lines(probed) == ["feedback=static shares no seed with feedback=none: no paired differences"]
    assert "shares no seed" in markdown(probed)


def test_a_condition_that_a_group_does_not_know_is_a_gap(add_run: AddRun, tmp_path: Path) -> None:
    """As the words of a run that reads word pieces."""
    probed = made_up(add_run, {"none": [(1, 0.5, 1.0)], "static": [(1, 0.5, 1.0)]})
    pieces = {folder: dict(list(found.items())[: 1 + n]) for n, (folder, found) in enumerate(probed.scores.items())}
    gapped = replace(probed, scores=pieces)
    assert "| audio 20 % | – | 1.000 |" in markdown(gapped)
    assert "text, audio, visual: word pieces" in markdown(gapped).replace("audio, text", "text, audio")
    assert len(write_robustness(gapped, tmp_path / "out")) == 3


def test_the_masks_of_a_run_without_feedback_are_refused_by_its_name(folders: list[Path]) -> None:
    with pytest.raises(ConfigError, match=rf"{folders[0].name}: this run has no feedback"):
        command(["evaluate", str(folders[0]), "--masks"])
    assert not (folders[0] / "masks.csv").exists()


def test_intervals_are_students_and_welchs() -> None:
    first, second = [0.1, 0.4, 0.35, 0.2], [0.0, 0.9, 0.3]
    ours, theirs = Interval.of(first), stats.ttest_1samp(first, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    ours = Interval.between(first, second)
    theirs = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    alone = Interval.of([0.5])
    assert alone.mean == 0.5 and math.isnan(alone.low) and alone.text() == "+0.500"
    assert Interval.of([0.5, math.nan]).text() == Interval.of([]).text() == "–"


def test_a_run_shows_its_errors_with_the_words_of_its_store(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(folders[0], tmp_path / "runs" / "copy"))
    (folder / "checkpoints" / "best.pt").unlink()  # no model is loaded
    command(["evaluate", str(folder), "--errors"])
    assert capsys.readouterr().out.startswith(f"written to {folder}: errors.html, confusion.pdf")
    run = read_run(folder)
    errors, store = read_errors(Group("row", (run,)), "test"), store_of(run)
    counts = errors.confusion()
    assert counts is not None
    assert np.diag(counts).sum() / counts.sum() == pytest.approx(run.metrics["test/acc7"])
    assert set(said_in(store, "test")) == set(errors.names)
    row = store.ids.index(errors.names[errors.worst()[0]][0])
    spoken = " ".join(word for word in (store.words or [])[row] if word != "sp")
    assert spoken in (folder / "errors.html").read_text() and spoken
    with pytest.raises(ConfigError, match="--output needs --missing, --masks or --errors"):
        command(["evaluate", str(folder), "--output", str(tmp_path)])
