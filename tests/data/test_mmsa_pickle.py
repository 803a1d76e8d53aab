"""MMSA's aligned pickle is stripped to true lengths; other layouts are refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.readers.mmsa_pickle import read_aligned_pickle
from mmsa.errors import DataError

Content = dict[str, dict[str, Any]]


def content(num_steps: int = 6) -> Content:
    """Three folds of two utterances of 3 and 5 steps, padded to `num_steps`."""
    lengths = np.array([3, 5])
    inside = (np.arange(num_steps) < lengths[:, None])[:, :, None]
    return {
        fold: {
            "raw_text": np.array(["GOOD FILM", "NOT SO GOOD FILM"]),
            "text": np.where(inside, 1.0, 0.0).repeat(4, axis=2).astype(np.float32),
            "text_bert": np.stack([np.full((2, num_steps), 7), inside[:, :, 0], np.zeros((2, num_steps))], axis=1),
            "audio": np.where(inside, 2.0, 0.0).repeat(3, axis=2).astype(np.float32),
            "vision": np.where(inside, 3.0, 0.0).repeat(2, axis=2),
            "id": np.array([f"{fold}$_$10", f"{fold}$_$9"]),
            "regression_labels": np.array([1.5, -2.0], dtype=np.float32),
        }
        for fold in ("train", "valid", "test")
    }


def write(folder: Path, what: object) -> Path:
    path = folder / "aligned_50.pkl"
    path.write_bytes(pickle.dumps(what, protocol=4))
    return path


def test_the_shared_file_has_its_utterances_and_lengths(mmsa_pickle: Path) -> None:
    prepared = read_aligned_pickle(mmsa_pickle)
    assert [prepared.folds.count(fold) for fold in ("train", "valid", "test")] == [131, 53, 45]
    source = pickle.loads(mmsa_pickle.read_bytes())
    row = 0
    for fold in ("train", "valid", "test"):
        part = source[fold]
        masks = part["text_bert"][:, 1].sum(axis=1)
        by_id = {name.replace("$_$", "[") + "]": i for i, name in enumerate(part["id"].tolist())}
        for _ in range(len(masks)):
            i = by_id[prepared.ids[row]]
            assert prepared.targets["sentiment"][row] == part["regression_labels"][i]
            for modality, key in (("text", "text"), ("audio", "audio"), ("visual", "vision")):
                np.testing.assert_array_equal(prepared.features[modality][row], part[key][i, : masks[i]])
            row += 1
    assert row == len(prepared.ids)
    assert {m: ragged.width for m, ragged in prepared.features.items()} == {"text": 300, "audio": 5, "visual": 20}


def test_rows_are_ordered_by_clip_number_and_named_alike(tmp_path: Path) -> None:
    prepared = read_aligned_pickle(write(tmp_path, content()))
    assert prepared.ids[:2] == ["train[9]", "train[10]"]
    assert prepared.videos[:2] == ["train", "train"]
    assert prepared.words is not None
    assert prepared.words[0] == ["NOT", "SO", "GOOD", "FILM"]
    assert prepared.features["visual"].lengths.tolist() == [5, 3] * 3
    assert all((ragged.values != 0).all() for ragged in prepared.features.values())


@pytest.mark.parametrize("labels", [[1.5, -2.0], np.array([[1.5], [-2.0]]), np.array([1.5, -2.0], dtype=object)])
def test_labels_may_be_a_list_or_an_array(tmp_path: Path, labels: object) -> None:
    made = content()
    made["train"]["regression_labels"] = labels
    assert read_aligned_pickle(write(tmp_path, made)).targets["sentiment"][:2].tolist() == [-2.0, 1.5]


def test_without_token_ids_the_trailing_zeros_of_all_modalities_are_padding(tmp_path: Path) -> None:
    made = content()
    for part in made.values():
        del part["text_bert"]
        part["text"][0, 2] = 0  # silence of one modality is no padding,
        part["text"][1, 1:3] = part["audio"][1, 1:3] = part["vision"][1, 1:3] = 0  # nor is a gap in the middle
        part["audio"][0, 2] = np.nan
        part["vision"][0, 2] = 0  # so that only a NaN is left in this step
    prepared = read_aligned_pickle(write(tmp_path, made))
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3
    assert read_aligned_pickle(tmp_path / "aligned_50.pkl", required=("text",)).features["text"].lengths[1] == 3


def test_every_modality_of_the_pickle_is_read_and_only_those_required_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    assert list(read_aligned_pickle(path, required=["audio"]).features) == ["text", "audio", "visual"]
    made = without(content(), "vision")
    made["train"]["vision"] = content()["train"]["vision"]  # a modality of one fold is none
    assert list(read_aligned_pickle(write(tmp_path, made), required=["audio"]).features) == ["text", "audio"]


def test_values_that_are_not_finite_become_zero_and_are_counted_within_the_length(tmp_path: Path) -> None:
    made = content()
    made["valid"]["audio"][0, :2, 1] = [np.nan, -np.inf]
    made["valid"]["audio"][0, 5, 1] = np.inf  # padding
    prepared = read_aligned_pickle(write(tmp_path, made))
    assert prepared.report["non_finite"] == {"text": 0, "audio": 2, "visual": 0}
    assert prepared.report["non_finite_utterances"]["audio"] == 1
    assert prepared.features["audio"][3][:2, 1].tolist() == [0.0, 0.0]


def test_empty_utterances_and_missing_labels_are_dropped_and_reported(tmp_path: Path) -> None:
    made = content()
    made["train"]["text_bert"][0, 1] = 0
    made["test"]["regression_labels"][1] = np.nan
    prepared = read_aligned_pickle(write(tmp_path, made))
    assert prepared.report["dropped"] == {"no steps": ["train[10]"], "label not finite": ["test[9]"]}
    assert len(prepared.ids) == 4


def without(made: Content, key: str) -> Content:
    for part in made.values():
        del part[key]
    return made


def having(made: Content, key: str, value: object) -> Content:
    for part in made.values():
        part[key] = value
    return made


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ([(1, 2)], "got list"),
        ({"train": {}, "test": {}}, r"got \['test', 'train'\]"),
        (having(content(), "audio_lengths", [1, 2]), "unaligned layout, which is not readable yet"),
        (without(content(), "regression_labels"), "lacks regression_labels"),
        (having(without(content(), "regression_labels"), "labels", 0), "MulT"),
        (without(content(), "vision"), r"lacks visual. Go without: dataset.modalities=\[text,audio\]"),
        (having(content(), "audio", np.zeros((2, 9, 3))), "are required, got"),
        (having(content(), "regression_labels", [1.0]), "1 labels"),
        (having(content(), "text_bert", np.zeros((2, 6))), "text_bert of shape"),
        (having(content(), "id", ["a", "b"]), "got 'a'"),
        (having(content(), "audio", "loud"), "audio must hold numbers"),
    ],
)
def test_other_layouts_are_refused_by_what_they_lack(tmp_path: Path, what: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_aligned_pickle(write(tmp_path, what))


@pytest.mark.parametrize(
    "name", ["mmsa_unaligned_50", "mult_mosi_data", "multibench_mosi_raw", "misa/train", "ur_funny_v2/language_sdk"]
)
def test_the_other_shared_pickles_are_refused_in_one_message(shared: Path, name: str) -> None:
    with pytest.raises(DataError) as refused:
        read_aligned_pickle(shared / "data" / "pickles" / f"{name}.pkl")
    assert len(str(refused.value)) < 500
