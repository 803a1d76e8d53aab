from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import mmsa
from mmsa.analysis import evaluation, mask_words, masks
from mmsa.analysis.mask_words import WordMasks, chosen, worded
from mmsa.analysis.masks import kind_of, kinds_of, read_masks, study_masks
from mmsa.analysis.probe_figures import draw_mask_words, draw_masks
from mmsa.analysis.rendering import rendered
from mmsa.cli import command
from mmsa.corpus.planted import CLEAR_MEANING
from mmsa.data.batches import Data
from mmsa.dataset.synthetic import planted_truth
from mmsa.drawing import drawn
from mmsa.errors import ConfigError
from mmsa.trained import TrainedRun
from mmsa.types import Batch, Output

ALL = ("text", "audio", "visual")


@pytest.fixture(scope="module")
def folders(whole_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    outputs = tmp_path_factory.mktemp("outputs")
    quick = [f"paths.data={whole_corpus}", f"paths.outputs={outputs}", "tracking=none", "device=cpu", "hidden_dim=4"]
    quick += ["trainer.max_epochs=1", "trainer.batch_size=128", "fusion=concat", "feedback=mmlatch"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
        return [mmsa.run([*quick, f"seed={seed}"], quiet=True).folder for seed in (1, 2)]


@pytest.fixture(scope="module")
def loaded(folders: list[Path]) -> list[TrainedRun]:
    return [mmsa.load(folder) for folder in folders]


def other_data(run: TrainedRun) -> TrainedRun:
    """The run as on data without a planted truth."""
    data = copy.copy(run.data)
    data.store = replace(data.store, report={})
    return replace(run, data=data)


def test_a_mean_mask_is_over_the_steps_and_features_of_one_utterance(loaded: list[TrainedRun]) -> None:
    found = read_masks(loaded[0], "valid")
    fold = loaded[0].data.fold("valid")
    assert {name for name, _ in found} == set(fold.ids) and {m for _, m in found} == set(ALL)
    for row in (0, 7, len(fold) - 1):
        alone = fold.batch(np.array([row]))  # without padding and company
        with torch.no_grad():
            expected = loaded[0].model(alone).feedback
        for modality, mask in expected.items():
            ours = found[alone.ids[0], modality]
            assert ours.mean == pytest.approx(mask.double().mean().item(), abs=1e-6)
            assert ours.distance == pytest.approx((mask - 0.5).abs().double().mean().item(), abs=1e-6)


def test_padding_and_absent_modalities_have_no_mask(loaded: list[TrainedRun]) -> None:
    class Known(torch.nn.Module):
        def forward(self, batch: Batch) -> Output:
            mask = torch.full((*batch.features["audio"].shape[:2], 2), 0.25)
            mask[torch.arange(mask.shape[1])[None] >= batch.lengths["audio"][:, None]] = 100.0
            return Output({}, "sentiment", {}, {"audio": mask})

    class Gapped:
        def __init__(self, batches: list[Batch]) -> None:
            self._batches = batches

        def fold(self, name: str) -> Gapped:
            return self

        def batches(self, batch_size: int) -> list[Batch]:
            return self._batches

    batch = next(loaded[0].data.fold("valid").batches(6))
    batch.lengths = {**batch.lengths, "audio": torch.tensor([0, 1, 2, 1, 1, 0])}
    run = replace(loaded[0], model=Known(), data=Gapped([batch]))  # type: ignore[arg-type]
    found = read_masks(run, "valid")
    assert set(found) == {(name, "audio") for name in batch.ids[1:5]}
    assert {(mask.mean, mask.distance) for mask in found.values()} == {(0.25, 0.25)}


def test_contradicting_and_agreeing_utterances_are_both_clear(loaded: list[TrainedRun]) -> None:
    truths, kinds = planted_truth(), kinds_of(loaded[0], "test")
    test = {name for name in truths if name.startswith("test")}
    assert set(kinds["contradicting"]) == {name for name in test if truths[name].contradicts}
    assert not set(kinds["contradicting"]) & set(kinds["agreeing"]) and min(map(len, kinds.values())) > 30
    for name in kinds["agreeing"]:
        truth = truths[name]
        assert not truth.silent and not truth.mocking and np.sign(truth.voice) == np.sign(truth.meaning)
        assert min(abs(truth.voice), abs(truth.meaning)) >= CLEAR_MEANING
    assert not any(kind_of(truths[name]) for name in test if truths[name].silent)


def test_the_difference_is_over_seeds_or_over_the_utterances_of_one_run(loaded: list[TrainedRun]) -> None:
    study = study_masks(loaded, "test")
    (group,) = study.groups
    single = [study_masks([run], "test") for run in loaded]
    alone = [one.difference(one.groups[0], "audio") for one in single]
    each = [study.values(group.runs[0], "audio", kind) for kind in ("contradicting", "agreeing")]
    welch = stats.ttest_ind(*each, equal_var=False).confidence_interval(0.95)
    assert alone[0] is not None and alone[1] is not None
    assert (alone[0].low, alone[0].high) == pytest.approx((welch.low, welch.high))
    together = study.difference(group, "audio")
    assert together is not None and together.num == 2
    assert together.mean == pytest.approx((alone[0].mean + alone[1].mean) / 2)
    per_utterance = [study.utterance_means(group, "audio", kind).mean() for kind in study.kinds]
    assert together.mean == pytest.approx(per_utterance[0] - per_utterance[1])


def test_the_command_writes_masks_differences_and_a_picture(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(["evaluate", *map(str, folders), "--masks", "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "planted data" in printed and "contradicting minus agreeing" in printed and "2 seeds" in printed
    with (tmp_path / "out" / "masks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "seed", "id", "kind", "modality", "mean", "distance"]
    assert {row["run"] for row in rows} == {folder.name for folder in folders}
    content = json.loads((tmp_path / "out" / "masks.json").read_text())
    (group,) = content["groups"]
    of_run = [
        [float(row["mean"]) for row in rows if (row["run"], row["kind"], row["modality"]) == (run, kind, "text")]
        for run in (folders[0].name,)
        for kind in ("contradicting", "agreeing")
    ]
    told = group["modalities"]["text"]["mean"]
    assert told["kinds"]["contradicting"][0] == pytest.approx(np.mean(of_run[0]))
    assert told["difference_of_each_run"][0]["mean"] == pytest.approx(np.mean(of_run[0]) - np.mean(of_run[1]))
    assert (tmp_path / "out" / "masks.png").read_bytes().startswith(b"\x89PNG")
    assert "| audio |" in (tmp_path / "out" / "masks.md").read_text()
    shown = printed.partition("drawn over their words: ")[2].splitlines()[0].split(", ")
    assert len(shown) == 4 and set(shown) <= {row["id"] for row in rows}
    svg = (tmp_path / "out" / "mask_words.svg").read_text()
    assert all(name in svg for name in shown) and "means over seeds" in svg
    assert {path.suffix for path in (tmp_path / "out").glob("mask_words.*")} == {".pdf", ".svg", ".png"}


def test_a_kind_of_one_utterance_swamps_no_other(loaded: list[TrainedRun]) -> None:
    study = study_masks([loaded[0]], "test")
    many, one = study.kinds["contradicting"], study.kinds["agreeing"][:1]
    few = replace(study, kinds={"many": many, "one": one, "none": ()})
    for panel in draw_masks(few).subfigs[0].axes:
        shares = np.concatenate([patch.get_xy()[:, 1] for patch in panel.patches])  # type: ignore[attr-defined]
        assert 0 < shares.max() < 0.7
        marks = [line.get_xdata() for line in panel.lines if line.get_marker() == "|"]
        assert [len(np.asarray(places)) for places in marks] == [1, 1] and np.isnan(marks[1]).all()  # type: ignore[arg-type]
    run, masks = loaded[0].folder, study.masks[loaded[0].folder]
    diverged = {place: mask._replace(mean=np.nan) for place, mask in masks.items() if place[1] == "text"}
    panel, *_ = draw_masks(replace(study, masks={run: {**masks, **diverged}})).subfigs[0].axes
    assert [text.get_text() for text in panel.texts] == ["no utterance"]


def test_the_mask_of_a_word_is_that_of_the_model_over_features(loaded: list[TrainedRun]) -> None:
    fold = loaded[0].data.fold("test")
    names = [fold.ids[20], fold.ids[3]]
    study = study_masks(loaded, "test", names)
    assert [one.name for one in study.drawn] == names
    for one, place in zip(study.drawn, (20, 3), strict=True):
        for run in loaded:
            with torch.no_grad():
                expected = run.model(fold.batch(np.array([place]))).feedback
            for modality, mask in expected.items():
                means = mask[0].double().mean(dim=1).numpy()
                assert one.means[run.folder][modality] == pytest.approx(means, abs=1e-6)
        words = (loaded[0].data.store.words or [])[int(fold.rows[place])]
        assert list(one.words or []) == list(words) and one.of_words == set(ALL)
    figure = draw_mask_words(study)
    text, *_ = figure.axes[0].images[0].get_array().tolist()  # type: ignore[union-attr]
    both = [study.drawn[0].means[run.folder]["text"] for run in loaded]
    assert text == pytest.approx(np.mean(both, axis=0)[:24].tolist())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(ALL)


def test_the_utterances_that_are_drawn_are_typical_or_named(loaded: list[TrainedRun]) -> None:
    fold = loaded[0].data.fold("test")
    kinds = kinds_of(loaded[0], "test")
    found = chosen(fold, kinds, [])
    steps = dict(zip(fold.ids, fold.steps.tolist(), strict=True))
    assert len(found) == 4 and found[0] in kinds["contradicting"] and found[-1] in kinds["agreeing"]
    for name, kind in zip(found[::2], kinds.values(), strict=True):
        assert abs(steps[name] - np.median([steps[one] for one in kind])) <= 1
    assert chosen(fold, {"all": (), "one": (fold.ids[0],)}, []) == [fold.ids[0]]
    assert chosen(fold, kinds, [fold.ids[5], fold.ids[0], fold.ids[5]]) == [fold.ids[5], fold.ids[0]]


def test_steps_without_words_are_drawn_as_steps(loaded: list[TrainedRun]) -> None:
    run = loaded[0]
    data = copy.copy(run.data)
    data.store = replace(data.store, words=None)
    study = study_masks([replace(run, data=data)], "test", [data.fold("test").ids[0]])
    assert study.drawn[0].words is None
    titles = [panel.get_title(loc="left") for panel in draw_mask_words(study).axes[:3]]
    assert [title.rpartition("· ")[2] for title in titles] == [f"{m}: steps without words" for m in ALL]
    for words in (["one"], ["one"] * 200):
        data.store = replace(data.store, words=[words for _ in data.store.ids])  # the source does not align them
        assert worded(replace(run, data=data), data.fold("test"), data.fold("test").ids[0]).words is None


def test_words_beyond_the_longest_length_have_no_mask(loaded: list[TrainedRun]) -> None:
    run = loaded[0]
    data = Data(run.data.store, ALL, replace(run.data.loading, max_length=2))
    fold = data.fold("test")
    found = worded(replace(run, data=data), fold, fold.ids[0])
    assert found == (run.data.store.words[int(fold.rows[0])][:2], set(ALL))  # type: ignore[index]
    other = Data(run.data.store, ALL, replace(run.data.loading, resample="audio"))
    assert worded(replace(run, data=other), fold, fold.ids[0]).words is None


def test_long_and_odd_words_and_absent_modalities_are_drawn(loaded: list[TrainedRun]) -> None:
    run = loaded[0].folder
    (group,) = study_masks([loaded[0]], "test").groups
    words = [*"今天", "$x^2$", "\x00<b>", "a" * 40, *(f"word{k}" for k in range(125))]
    means = {"text": np.linspace(0, 1, 130), "audio": np.zeros(0), "visual": np.full(130, np.nan)}
    odd = WordMasks("$\\frac$ <id>", ", label 1", words, frozenset(ALL), {run: means})
    unaligned = {"text": np.array([0.5]), "audio": np.full(375, 0.4), "visual": np.zeros(0)}
    other = WordMasks("short", "", ["word"], frozenset({"text"}), {run: unaligned})
    figure = mask_words.draw_mask_words([group], [odd, other], ["cmu_mosi"])
    assert "word90" in drawn(figure, "svg").decode()
    panels = figure.axes[:-1]
    titles = [panel.get_title(loc="left") for panel in panels]
    assert titles[3].endswith("words 73 to 96 of 130, the rest is left out")
    assert titles[4:] == ["short", "short · audio: steps without words", "short · visual: steps without words"]
    shown = [label.get_text() for panel in panels for label in panel.get_xticklabels()]
    assert shown[:5] == ["今", "天", "$x^2$", "\\x00<b>", f"{'a' * 13}…"] and len(shown) == 96 + 1 + 2 + 1
    image = panels[0].images[0].get_array()
    assert np.ma.is_masked(image[1]) or np.isnan(image[1]).all()  # type: ignore[index, call-overload]


def test_utterances_are_asked_for_by_ids_that_the_fold_has(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studies: list[masks.MaskStudy] = []
    monkeypatch.setattr(
        evaluation, "write_masks", lambda study, folder: studies.append(study) or [folder / "masks.csv"]
    )
    with pytest.raises(ConfigError, match="--utterance nobody: the test fold has no such utterance") as refused:
        command(["evaluate", str(folders[0]), "--masks", "--utterance", "nobody"])
    again = str(refused.value).partition("type --utterance '")[2].partition("'")[0]
    with pytest.raises(ConfigError, match=r"type --masks$"):
        command(["evaluate", str(folders[0]), "--utterance", again])
    command(["evaluate", str(folders[0]), "--utterance", again, "--masks"])
    assert [one.name for study in studies for one in study.drawn] == [again]


def test_other_data_are_shown_by_the_sign_of_the_label(loaded: list[TrainedRun]) -> None:
    study = study_masks([other_data(run) for run in loaded], "test")
    fold = loaded[0].data.fold("test")
    labels = dict(zip(fold.ids, fold.targets["sentiment"], strict=True))
    assert list(study.kinds) == ["negative", "neutral", "positive"]
    assert {kind: {np.sign(labels[name]) for name in names} for kind, names in study.kinds.items()} == {
        "negative": {-1.0},
        "neutral": {0.0},
        "positive": {1.0},
    }
    assert study.difference(study.groups[0], "text") is None
    assert "positive" in draw_masks(study).legends[0].get_texts()[2].get_text()
    shown = rendered(masks.make_tables(study))
    assert "negative" in shown and "minus" not in shown
