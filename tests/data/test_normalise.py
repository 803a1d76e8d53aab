"""Normalisation by the train fold, within utterances, or none, and per modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa import build, parts
from mmsa.compose import compose
from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.data.normalise import CLIP, Standardisation, within_utterances
from mmsa.errors import ConfigError
from tests.data.test_batches import prepared, store_of
from tests.dataset.corpora import Tiny


def test_within_an_utterance_features_are_standardised_by_its_own_steps() -> None:
    steps = np.array([[1, 300.1], [3, 300.1], [5, 300.1], [7, 1], [9, -1]], np.float32)
    deviation = np.sqrt(8 / 3)  # of 1, 3, 5, over three steps, not two
    expected = [[-2 / (1e-6 + deviation), 0], [0, 0], [2 / (1e-6 + deviation), 0], [-1, 1], [1, -1]]
    normalised = within_utterances(steps, np.array([3, 2]))
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised, expected, atol=2e-6)
    assert not normalised[:3, 1].any(), "a constant feature is exactly 0"


def test_steps_without_frames_do_not_count_and_stay_zero() -> None:
    steps = np.array([[0, 0], [1, 2], [3, 2], [0, 0], [5, 5], [0, 0]], np.float32)
    normalised = within_utterances(steps, np.array([0, 4, 1, 0, 1]))
    np.testing.assert_allclose(normalised, [[0, 0], [-1, 0], [1, 0], [0, 0], [0, 0], [0, 0]], atol=2e-6)
    assert not within_utterances(np.zeros((2, 3), np.float32), np.array([2])).any()
    assert within_utterances(np.zeros((0, 3), np.float32), np.array([0])).shape == (0, 3)


def test_what_is_not_finite_becomes_zero_and_outliers_are_clipped() -> None:
    steps = np.ones((300, 3), np.float32)
    steps[0] = [1e6, np.inf, np.nan]
    normalised = within_utterances(steps, np.array([300]))
    assert normalised[0, 0] == CLIP
    assert not normalised[:, 1:].any()


def test_a_mapping_gives_each_modality_its_own_and_train_to_the_rest(tmp_path: Path) -> None:
    store = store_of(tmp_path / "made.h5", prepared())
    train = np.repeat(np.asarray(store.folds) == "train", store.features["text"].lengths)
    by_train = Standardisation.of(lambda: [np.asarray(store.features["text"].values[train])])(store.features["text"][6])
    for normalize in ("train", {"audio": "none"}, {"text": "train", "audio": "none", "visual": "utterance"}):
        batch = Data(store, ["text", "audio"], Loading(normalize)).fold("train").batch(np.array([6]))  # type: ignore[arg-type]
        assert np.array_equal(batch.features["text"][0].numpy(), by_train)
        if normalize != "train":
            assert np.array_equal(batch.features["audio"][0].numpy(), store.features["audio"][6])
    fold = Data(store, ["text", "audio"], Loading({"audio": "utterance"})).fold("train")
    alone, among = fold.batch(np.array([4])), fold.batch(np.array([9, 4, 3]))
    steps = int(alone.lengths["audio"])
    expected = within_utterances(store.features["audio"][4], np.array([steps]))
    assert np.array_equal(alone.features["audio"][0].numpy(), expected)
    assert np.array_equal(among.features["audio"][1, :steps].numpy(), expected)
    assert not among.features["audio"][1, steps:].any()


def test_the_baselines_read_features_that_say_something_where_utterances_are_normalised(tmp_path: Path) -> None:
    store = store_of(tmp_path / "made.h5", prepared())
    pooled, raw = (Data(store, ["text"], Loading(how)).fold("train").pooled() for how in ("utterance", "none"))  # type: ignore[arg-type]
    assert np.array_equal(pooled["text"], raw["text"])


@pytest.mark.parametrize(
    ("normalize", "said"),
    [
        ("minmax", "train, utterance or none"),
        ({"text": "minmax"}, "train, utterance or none"),
        ({"smell": "none"}, "names smell; the modalities are text, audio, visual"),
    ],
)
def test_what_is_no_normalisation_is_refused(normalize: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Tiny(loading=Loading(normalize))


def test_a_configuration_may_name_one_or_one_per_modality() -> None:
    cfg = compose(["dataset.normalize={text: none, audio: utterance, visual: utterance}"])
    parts.check_node(cfg, "dataset")
    assert build.build_dataset(cfg).loading.normalize == {"text": "none", "audio": "utterance", "visual": "utterance"}
    for wrong in ("dataset.normalize=minmax", "dataset.normalize={text: 3}", "dataset.normalize=null"):
        with pytest.raises(ConfigError, match=r"dataset\.normalize.*needs 'train', 'utterance' or 'none'"):
            parts.check_node(compose([wrong]), "dataset")
