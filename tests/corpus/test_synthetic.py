"""The built-in corpus is the same every time, has the planted properties, and its best reachable MAE is a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsa.build import build_task
from mmsa.compose import compose
from mmsa.corpus import planted
from mmsa.corpus.planted import MAX_WORDS, PAUSE, Truth, best_predictions, sentiment, vocabulary
from mmsa.corpus.planted_features import AUDIO_DIM, TEXT_DIM, VISUAL_DIM, draw_corpus
from mmsa.data.store import FOLDS, Store
from mmsa.dataset.ch_sims import ChSims
from mmsa.dataset.synthetic import Synthetic, best_reachable_mae, make_once, planted_truth
from mmsa.errors import ConfigError, DataError
from mmsa.readers.sequence_file import SequenceFile

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    Synthetic().prepare(folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return Synthetic().prepare(folder, progress=False)


@pytest.fixture(scope="module")
def truths(store: Store) -> list[Truth]:
    known = planted_truth()
    return [known[name] for name in store.ids]


def source_files(folder: Path) -> dict[str, bytes]:
    (source,) = folder.glob("synthetic-source-*")
    return {path.name: path.read_bytes() for path in sorted(source.iterdir())}


def test_made_again_by_another_process_the_files_have_equal_bits(folder: Path, store: Store, tmp_path: Path) -> None:
    code = "import sys, pathlib, mmsa.dataset.synthetic as s; s.Synthetic().prepare(pathlib.Path(sys.argv[1]), False)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)
    assert source_files(tmp_path) == source_files(folder)
    assert [path.name for path in tmp_path.glob("*.h5")] == [store.path.name]


def test_another_seed_draws_other_values() -> None:
    first, other = draw_corpus(0)[0], draw_corpus(1)[0]
    assert first.truths != other.truths


def test_sizes_lengths_and_labels_are_those_of_the_field(store: Store) -> None:
    assert len(store.ids) == len(set(store.ids)) >= 1000
    assert len(set(store.videos)) >= 80
    shares = {fold: np.mean(store.folds == fold) for fold in FOLDS}
    assert 0.6 < shares["train"] < 0.75 and shares["valid"] > 0.08 and shares["test"] > 0.15
    fold_of_video = dict(zip(store.videos, store.folds, strict=True))
    assert all(fold_of_video[video] == fold for video, fold in zip(store.videos, store.folds, strict=True))
    assert {name: ragged.width for name, ragged in store.features.items()} == {
        "text": TEXT_DIM,
        "audio": AUDIO_DIM,
        "visual": VISUAL_DIM,
    }
    lengths = store.features["text"].lengths
    assert 15 <= lengths.mean() <= 22 and lengths.max() <= MAX_WORDS
    assert lengths.mean() > np.median(lengths) and np.mean(((lengths - lengths.mean()) / lengths.std()) ** 3) > 0.5
    labels = store.targets["sentiment"]
    assert labels.min() == -3.0 and labels.max() == 3.0
    np.testing.assert_allclose(labels * 3, np.rint(labels * 3), atol=1e-5)


def test_the_store_holds_what_was_drawn(store: Store, truths: list[Truth]) -> None:
    assert store.ids == list(planted_truth())
    assert store.words == [[word for word in truth.words if word != PAUSE] for truth in truths]
    np.testing.assert_array_equal(store.targets["sentiment"], np.array([t.label for t in truths], np.float32))
    assert store.report["planted"] is True
    assert store.report["non_finite"]["audio"] > 0 and store.report["non_finite"]["visual"] == 0
    assert all(np.isfinite(ragged.values).all() for ragged in store.features.values())


def test_what_each_modality_says_alone_is_a_target_and_the_main_one_stays(store: Store, truths: list[Truth]) -> None:
    own = {
        "sentiment_text": [truth.meaning for truth in truths],
        "sentiment_audio": [truth.voice for truth in truths],
        "sentiment_visual": [truth.face for truth in truths],
    }
    assert list(store.targets) == ["sentiment", *own] == list(Synthetic().stated_kinds)
    assert set(own) <= set(ChSims.kinds), "named as there"
    for name, values in own.items():
        np.testing.assert_array_equal(store.targets[name], np.clip(values, -3, 3).astype(np.float32))
    assert max(map(abs, own["sentiment_audio"])) > 3, "some are clipped"
    of_mocked = np.array([truth.mocking for truth in truths])
    assert (store.targets["sentiment_text"][of_mocked] > 1).any(), "the words mean what they mean, mocked or not"
    for name, lacking in (("sentiment_audio", "silent"), ("sentiment_visual", "faceless")):
        assert not store.targets[name][[getattr(truth, lacking) for truth in truths]].any()
    for cfg in (compose(), compose(["task=classification"])):
        task = build_task(cfg)
        assert task.target == "sentiment"
        np.testing.assert_array_equal(task.select(store.targets), store.targets["sentiment"])


def test_pauses_are_zero_word_vectors_and_can_be_kept(folder: Path, truths: list[Truth]) -> None:
    kept = Synthetic(modalities=["text"], keep_pauses=True).prepare(folder, progress=False)
    assert kept.words == [list(truth.words) for truth in truths]
    pauses = np.array([word == PAUSE for words in kept.words for word in words])
    assert pauses.any()
    np.testing.assert_array_equal(kept.features["text"].values.any(axis=1), ~pauses)


def test_at_least_a_fifth_contradict_and_only_the_combination_is_right(store: Store, truths: list[Truth]) -> None:
    for fold in FOLDS:
        assert store.report["contradicting"][fold] >= 0.2
    contradicting = [truth for truth in truths if truth.contradicts]
    label, meaning, voice, face = (
        np.array([getattr(truth, name) for truth in contradicting]) for name in ("label", "meaning", "voice", "face")
    )
    law = np.array([truth.sentiment for truth in contradicting])
    best = np.abs(best_predictions(law)[0] - label).mean()
    assert np.mean(np.sign(law - face) == -np.sign(meaning)) > 0.85  # the words alone mean the opposite
    for partial in (meaning + face, voice + face):
        assert np.abs(np.clip(partial, -3, 3) - label).mean() > 3 * best


def test_silent_and_faceless_stretches_are_missing_frames(store: Store, truths: list[Truth]) -> None:
    for modality, absent, part in (("audio", "silent", "voice"), ("visual", "faceless", "face")):
        ragged = store.features[modality]
        empty = [~ragged[row].any(axis=1) for row in range(len(truths))]
        wholly = [truth for truth, steps in zip(truths, empty, strict=True) if steps.all()]
        assert len(wholly) >= 40
        assert all(steps.all() for truth, steps in zip(truths, empty, strict=True) if getattr(truth, absent))
        assert all(getattr(truth, part) == 0.0 for truth in truths if getattr(truth, absent))
        assert sum(0 < steps.sum() < len(steps) for steps in empty) >= 100


def test_the_frames_carry_the_planted_factors(store: Store, truths: list[Truth]) -> None:
    rows = range(len(truths))
    means = {name: np.stack([ragged[i].mean(axis=0) for i in rows]) for name, ragged in store.features.items()}

    def correlation(column: np.ndarray, factor: str) -> float:
        return float(np.corrcoef(column, [float(getattr(truth, factor)) for truth in truths])[0, 1])

    assert correlation(means["audio"][:, 0], "voice") > 0.9
    assert correlation(means["audio"][:, 3], "mocking") > 0.75
    assert correlation(means["visual"][:, 0], "face") > 0.9
    assert abs(correlation(means["audio"][:, 10], "voice")) < 0.15


def test_the_annotation_probabilities_are_exact() -> None:
    values = [-3.0, -1.3, 0.0, 0.5, 2.7]
    expected = best_predictions(values)[1]
    rng = np.random.default_rng(5)
    for value, prediction, error in zip(values, best_predictions(values)[0], expected, strict=True):
        opinions = value + rng.normal(0.0, planted.ANNOTATOR_SPREAD, (200_000, planted.NUM_ANNOTATORS))
        labels = np.clip(np.rint(opinions), -3, 3).mean(axis=1)
        assert np.abs(labels - prediction).mean() == pytest.approx(error, abs=0.005)
        others = [np.abs(labels - other).mean() for other in np.arange(-9, 10) / 3]
        assert error <= min(others) + 0.005


def test_no_knowledge_of_the_factors_beats_the_best_reachable_mae(store: Store, truths: list[Truth]) -> None:
    label = store.targets["sentiment"]
    law = np.array([truth.sentiment for truth in truths])
    best, expected = best_predictions(law)
    for fold in FOLDS:
        rows = store.folds == fold
        stated = best_reachable_mae()[fold]
        assert store.report["best_mae"][fold] == stated
        assert stated == pytest.approx(np.abs(best - label)[rows].mean(), abs=1e-6)
        assert stated == pytest.approx(expected[rows].mean(), abs=0.05)
    rng = np.random.default_rng(0)
    errors = [np.abs(law + rng.normal(0.0, noise, len(law)) - label).mean() for noise in (0.0, 0.2, 0.4, 0.8)]
    assert np.abs(best - label).mean() <= errors[0] and errors == sorted(errors)
    assert 0.2 < best_reachable_mae()["test"] < 0.35


def test_the_law_turns_mocked_words_round() -> None:
    assert sentiment(1.5, 0.2, 0.1, False) == pytest.approx(1.8)
    assert sentiment(1.5, 0.2, 0.1, True) == pytest.approx(1.5 * planted.MOCKED + 0.3)
    assert sentiment(2.0, 2.0, 2.0, False) == 3.0


def test_the_files_are_genuine_computational_sequences(folder: Path) -> None:
    (source,) = folder.glob("synthetic-source-*")
    names = {path.stem for path in source.glob("*.csd")}
    assert names == {name for (name,) in Synthetic.sequences.values()}
    counts = {}
    for name in names:
        with h5py.File(source / f"{name}.csd") as file:
            group = file[name]["data"]["test_003"]
            assert group["intervals"].shape == (len(group["features"]), 2)
            counts[name] = len(group["features"]), float(np.diff(group["intervals"][:3], axis=1).mean())
            assert {"root name", "alignment compatible"} <= set(file[name]["metadata"])
        with SequenceFile(source / f"{name}.csd") as sequence:
            assert sequence.name == name and len(sequence.videos) >= 80
    assert counts["Synthetic_Voice"][1] == pytest.approx(0.1) and counts["Synthetic_Face"][1] == pytest.approx(0.2)
    with h5py.File(source / "Synthetic_TimestampedWords.csd") as file:
        words = file["Synthetic_TimestampedWords/data/test_003/features"]
        assert words.dtype.kind == "S" and words.shape[1] == 1
        assert {word.decode() for word in words[:, 0]} <= {PAUSE, *vocabulary()}


def test_a_killed_maker_leaves_no_folder_of_the_final_name(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time, mmsa.dataset.synthetic as s\n"
        "def write(folder):\n"
        "    (folder / 'half.csd').write_text('half'); print('writing', flush=True); time.sleep(60)\n"
        "s.make_once(pathlib.Path(sys.argv[1]) / 'source', write)\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    with maker:
        assert maker.stdout is not None and maker.stdout.readline() == b"writing\n"
        maker.send_signal(signal.SIGKILL)
    assert not (tmp_path / "source").exists()
    (left,) = tmp_path.iterdir()
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    make_once(tmp_path / "source", lambda target: (target / "whole.csd").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert [path.name for path in (tmp_path / "source").iterdir()] == ["whole.csd"]


def test_a_failing_maker_leaves_nothing_and_a_slower_one_gives_way(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half.csd").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once(tmp_path / "source", fail)
    assert not list(tmp_path.iterdir())

    def overtaken(target: Path) -> None:
        (target / "mine").touch()
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "theirs").touch()

    make_once(tmp_path / "source", overtaken)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["source", "source/theirs"]


def test_a_source_and_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mmsa prepare synthetic"):
        Synthetic().prepare_source(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="modalities"):
        Synthetic(modalities=["smell"])
