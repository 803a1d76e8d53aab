"""Maximum length, clipping and resampling: what a run reads of a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsa import build
from mmsa.compose import compose
from mmsa.data.batches import Data
from mmsa.data.inputs import resample
from mmsa.data.loading import Loading
from mmsa.data.normalise import Standardisation
from mmsa.data.ragged import Ragged
from mmsa.data.store import PAUSE, Store
from mmsa.errors import ConfigError
from tests.data.test_batches import prepared, store_of
from tests.data.test_word_pieces import Characters, worded
from tests.dataset.corpora import Tiny


def kept(store: Store, modality: str, row: int, most: int) -> np.ndarray:
    return np.asarray(store.features[modality][row])[:most]


@pytest.mark.parametrize("most", [1, 3, 10_000])
def test_the_first_steps_are_read_and_make_the_statistics(tmp_path: Path, most: int) -> None:
    store = store_of(tmp_path / "made.h5", prepared())
    data = Data(store, ["text", "audio"], Loading(max_length=most))
    assert data.num_cut == sum(len(store.features["text"][row]) > most for row in range(len(store.ids)))
    train = [row for row, fold in enumerate(store.folds) if fold == "train"]
    for modality in ("text", "audio"):
        scale = Standardisation.of([kept(store, modality, row, most) for row in train].__iter__)
        fold = data.fold("train")
        batch = fold.batch(np.arange(len(fold)))
        for place, row in enumerate(train):
            steps = kept(store, modality, row, most)
            assert batch.lengths[modality][place] == len(steps)
            assert np.array_equal(batch.features[modality][place, : len(steps)].numpy(), scale(steps))
            assert not batch.features[modality][place, len(steps) :].any()


def test_a_mapping_cuts_the_modalities_that_it_names(tmp_path: Path) -> None:
    store = store_of(tmp_path / "made.h5", prepared(aligned=False))
    whole, cut = (Data(store, ["text", "audio"], Loading(max_length=m)).fold("train") for m in (None, {"audio": 2}))
    assert np.array_equal(cut.lengths["text"], whole.lengths["text"])
    assert np.array_equal(cut.lengths["audio"], np.minimum(whole.lengths["audio"], 2))
    assert whole.lengths["audio"].max() > 2
    assert np.array_equal(whole.pooled()["text"], cut.pooled()["text"])
    assert not np.array_equal(whole.pooled()["audio"], cut.pooled()["audio"]), "baselines read no more than the model"


def test_words_are_cut_as_their_vectors(tmp_path: Path) -> None:
    store = worded(tmp_path / "made.h5", pause=True)
    assert store.words is not None
    loads = [Loading(max_length=3), Loading("none", word_vectors="trained", max_length=3)]
    pieces = Data(store, ["audio", "text"], loads[0], {"text": Characters()}).fold("train").batch(np.arange(6))
    numbers = Data(store, ["audio", "text"], loads[1]).fold("train").batch(np.arange(6))
    for batch in (pieces, numbers):
        assert batch.lengths["text"].tolist() == [min(3, len(store.words[row])) for row in range(6)]
    said = [sum(len(word) for word in store.words[row][:3] if word != PAUSE) for row in range(6)]
    assert pieces.pieces["text"].sum(dim=(1, 2)).tolist() == said


@pytest.mark.parametrize("normalize", ["train", "utterance"])
def test_clipping_is_at_the_bound_that_is_asked(tmp_path: Path, normalize: Any) -> None:
    rows = prepared()
    rows.features["audio"].values[:: rows.features["audio"].lengths[0]] *= 1e4  # the first step of most utterances
    store = store_of(tmp_path / "made.h5", rows)
    free, bound = (Data(store, ["audio"], Loading(normalize, clip)).fold("train") for clip in (None, 0.5))
    free_values, values = (fold.batch(np.arange(len(fold))).features["audio"].numpy() for fold in (free, bound))
    assert np.abs(free_values).max() > 0.5
    assert np.array_equal(values, np.clip(free_values, -0.5, 0.5))


@pytest.mark.parametrize(
    ("steps", "onto", "expected"),
    [
        ([1, 2, 3, 4], 2, [1.5, 3.5]),
        ([1, 2, 3], 2, [1.5, 2.5]),  # the middle one lies in both halves
        ([1, 2], 4, [1, 1, 2, 2]),
        ([1, 2, 3], 3, [1, 2, 3]),
        ([1, 0, 3, 0, 0, 0], 3, [1, 3, 0]),  # without frames: not counted, and zero where there is nothing else
        ([7, 8, 9], 1, [8]),
    ],
)
def test_every_step_of_the_common_axis_is_the_mean_of_its_share(
    steps: list[float], onto: int, expected: list[float]
) -> None:
    values = np.array(steps, np.float32)[:, None]
    around = np.full((5, 1), 100, np.float32)  # another utterance on either side
    together = np.concatenate([around, values, around])
    found = resample(together, np.array([5, len(steps), 0, 5]), np.array([2, onto, 0, 1]))
    assert found.dtype == np.float32
    assert found.ravel().tolist() == pytest.approx([100, 100, *expected, 100])


def test_resampled_modalities_have_one_axis_whatever_the_batch(tmp_path: Path) -> None:
    rows = prepared(aligned=False)
    store = store_of(tmp_path / "made.h5", rows)
    assert not Data(store, ["text", "audio"]).aligned
    data = Data(store, ["text", "audio"], Loading(resample="text"))
    assert data.aligned
    fold = data.fold("train")
    assert not fold.lengths["audio"][3], "absent, as it was"
    assert np.array_equal(np.delete(fold.lengths["text"], 3), np.delete(fold.lengths["audio"], 3))
    together = fold.batch(np.arange(8))
    alone = fold.batch(np.array([5]))
    steps = int(alone.lengths["audio"])
    assert np.array_equal(together.features["audio"][5, :steps].numpy(), alone.features["audio"][0].numpy())
    own = Data(store, ["text", "audio"]).fold("train").batch(np.array([5]))
    expected = resample(own.features["audio"][0].numpy(), own.lengths["audio"].numpy(), np.array([steps]))
    assert np.array_equal(alone.features["audio"][0].numpy(), expected)
    assert np.array_equal(alone.features["text"][0].numpy(), own.features["text"][0].numpy())
    pooled, as_it_is = fold.pooled()["audio"], Data(store, ["text", "audio"]).fold("train").pooled()["audio"]
    assert np.array_equal(pooled, as_it_is, equal_nan=True)


@pytest.mark.parametrize("most", [3, {"text": 3}])
def test_the_common_axis_is_cut_and_not_what_is_averaged(tmp_path: Path, most: Any) -> None:
    store = store_of(tmp_path / "made.h5", prepared(aligned=False))
    for normalize in ({"text": "none"}, "none"):  # audio by the statistics of all its steps, or as it is
        whole, short = (
            Data(store, ["text", "audio"], Loading(normalize, resample="text", max_length=m)).fold("train")  # type: ignore[arg-type]
            for m in (None, most)
        )
        of_whole, of_short = whole.batch(np.arange(9)), short.batch(np.arange(9))
        for modality in ("text", "audio"):
            assert torch.equal(of_short.lengths[modality], of_whole.lengths[modality].clamp(max=3))
            assert torch.equal(of_short.features[modality], of_whole.features[modality][:, :3])
        assert np.array_equal(short.pooled()["audio"], whole.pooled()["audio"], equal_nan=True)


def test_resampling_goes_round_a_missing_modality(tmp_path: Path) -> None:
    rows = prepared(aligned=False)
    silent = {m: [np.asarray(ragged[row]) for row in range(len(rows.ids))] for m, ragged in rows.features.items()}
    silent["text"][0] = silent["text"][0][:0]
    silent["audio"][1] = silent["audio"][1][:0]
    rows = replace(rows, words=None, features={m: Ragged.join(values) for m, values in silent.items()})
    store = store_of(tmp_path / "made.h5", rows)
    data = Data(store, ["text", "audio"], Loading(resample="text", max_length=2))
    fold = data.fold("train")
    assert data.aligned
    assert fold.lengths["text"][:2].tolist() == [0, min(2, len(silent["text"][1]))]
    assert fold.lengths["audio"][:2].tolist() == [min(2, len(silent["audio"][0])), 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": {"voice": 3}}, "dataset.max_length names voice"),
        ({"max_length": {"audio": 3}, "resample": "text"}, "type dataset.max_length=50, which"),
        ({"resample": "voice"}, "type dataset.resample=text"),
        ({"resample": "audio", "modalities": ["text"]}, "the run loads text"),
        ({"resample": "audio", "word_vectors": "trained"}, "type dataset.resample=text"),
    ],
)
def test_what_cannot_be_loaded_is_refused_before_any_data(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Tiny(modalities=options.pop("modalities", ["text", "audio", "visual"]), loading=Loading(**options))


@pytest.mark.parametrize("option", ["max_length=0", "max_length={text: 0}", "max_length=-1", "clip=0", "clip=ten"])
def test_options_out_of_range_are_refused(option: str) -> None:
    cfg = compose([f"dataset.{option}"])
    with pytest.raises(ConfigError, match=option.partition("=")[0]):
        build.check(cfg)


def test_pieces_are_not_averaged(tmp_path: Path) -> None:
    store = store_of(tmp_path / "made.h5", prepared(aligned=False))
    with pytest.raises(ConfigError, match=r"type dataset.resample=text"):
        build.check(compose(["dataset.resample=audio", "encoder/text=bert", "encoder.text.name=/nowhere"]))
    with pytest.raises(ConfigError, match=r"type dataset.resample=text"):
        Data(store, ["text", "audio"], Loading(resample="audio"), {"text": Characters()})
