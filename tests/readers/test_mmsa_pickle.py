"""MMSA's pickles of every kind are stripped to true lengths; what is damaged is refused by what it lacks."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.families import ReadOptions, read_file

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


def unaligned() -> Content:
    """The same, where audio has 7 and 2 steps of 8, and vision 4 and 9 of 9."""
    made = content()
    for part in made.values():
        for key, lengths, num_steps in (("audio", [7, 2], 8), ("vision", [4, 9], 9)):
            inside = np.arange(num_steps) < np.array(lengths)[:, None]
            part[key] = np.where(inside, np.arange(1.0, num_steps + 1), 0)[:, :, None].repeat(3, axis=2)
            part[f"{key}_lengths"] = lengths if key == "audio" else np.array(lengths)
    return made


def sims() -> Content:
    """CH-SIMS's layout: not aligned, labels per modality, ids and text of its own kind."""
    made = unaligned()
    for fold, part in made.items():
        part["id"] = np.array([f"video_{fold}$_$0010", f"video_{fold}$_$0009"])
        part["raw_text"] = ["我不想嫁给李茶 OK", "好"]
        part["regression_labels"] = [0.8, -0.2]
        part["annotations"] = ["Positive", "Negative"]
        for place, modality in enumerate("TAV"):
            part[f"regression_labels_{modality}"] = [0.1 * place, 0.2 * place]
    return made


def write(folder: Path, what: object) -> Path:
    path = folder / "aligned_50.pkl"
    path.write_bytes(pickle.dumps(what, protocol=4))
    return path


def read(path: Path, required: Sequence[str] = ("text", "audio", "visual")) -> Prepared:
    return read_file(path, ReadOptions(tuple(required)), silent)


def read_made(folder: Path, what: object, required: Sequence[str] = ("text", "audio", "visual")) -> Prepared:
    return read(write(folder, what), required)


def test_the_shared_file_has_its_utterances_and_lengths(mmsa_pickle: Path) -> None:
    prepared = read(mmsa_pickle)
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
    prepared = read_made(tmp_path, content())
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
    assert read_made(tmp_path, made).targets["sentiment"][:2].tolist() == [-2.0, 1.5]


def test_without_token_ids_the_trailing_zeros_of_all_modalities_are_padding(tmp_path: Path) -> None:
    made = content()
    for part in made.values():
        del part["text_bert"]
        part["text"][0, 2] = 0  # silence of one modality is no padding,
        part["text"][1, 1:3] = part["audio"][1, 1:3] = part["vision"][1, 1:3] = 0  # nor is a gap in the middle
        part["audio"][0, 2] = np.nan
        part["vision"][0, 2] = 0  # so that only a NaN is left in this step
    prepared = read_made(tmp_path, made)
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3
    assert read(tmp_path / "aligned_50.pkl", required=("text",)).features["text"].lengths[1] == 3


def test_every_modality_of_the_pickle_is_read_and_only_those_required_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    assert list(read(path, required=["audio"]).features) == ["text", "audio", "visual"]
    made = without(content(), "vision")
    made["train"]["vision"] = content()["train"]["vision"]  # a modality of one fold is none
    assert list(read_made(tmp_path, made, required=["audio"]).features) == ["text", "audio"]


def test_values_that_are_not_finite_become_zero_and_are_counted_within_the_length(tmp_path: Path) -> None:
    made = content()
    made["valid"]["audio"][0, :2, 1] = [np.nan, -np.inf]
    made["valid"]["audio"][0, 5, 1] = np.inf  # padding
    prepared = read_made(tmp_path, made)
    assert prepared.report["non_finite"] == {"text": 0, "audio": 2, "visual": 0}
    assert prepared.report["non_finite_utterances"]["audio"] == [prepared.ids[3]]
    assert prepared.features["audio"][3][:2, 1].tolist() == [0.0, 0.0]


def test_empty_utterances_and_missing_labels_are_dropped_and_reported(tmp_path: Path) -> None:
    made = content()
    made["train"]["text_bert"][0, 1] = 0
    made["test"]["regression_labels"][1] = np.nan
    prepared = read_made(tmp_path, made)
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


def test_labels_of_seven_columns_are_a_sentiment_and_six_emotions(tmp_path: Path) -> None:
    made = content()
    for part in made.values():
        part["regression_labels"] = np.arange(14.0).reshape(2, 1, 7)
    prepared = read_made(tmp_path, made)
    assert prepared.targets["sentiment"].tolist() == [7.0, 0.0] * 3
    assert prepared.targets["emotions"][1].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    made["test"]["regression_labels"] = [1.0, 2.0]
    with pytest.raises(DataError, match="same labels are required in every fold, got sentiment and sentiment, emo"):
        read_made(tmp_path, made)


def test_a_file_that_has_labels_under_another_name_too_is_mmsa_s(tmp_path: Path) -> None:
    made = having(content(), "labels", np.array([[9.0], [9.0]]))
    assert read_made(tmp_path, made).targets["sentiment"].tolist() == [-2.0, 1.5] * 3


@pytest.mark.parametrize("lacking", [FOLDS, FOLDS[2:]])
def test_without_ids_every_row_is_a_video_of_its_own(tmp_path: Path, lacking: Sequence[str]) -> None:
    made = content()
    for fold in lacking:
        made[fold]["id"] = None
    prepared = read_made(tmp_path, made)
    assert prepared.ids[-2:] == ["test-0[0]", "test-1[0]"]
    assert prepared.features["text"].lengths[-2:].tolist() == [3, 5]
    assert prepared.report["ids"] == {"absent": 2 * len(lacking)}
    assert ("train[10]" in prepared.ids) == ("train" not in lacking)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([b"GOOD FILM", "caf\u00c3\u00a9"], [["café"], ["GOOD", "FILM"]]),  # the second as Python 2 wrote it
        (np.array([["GOOD FILM"], ["NO"]]), [["NO"], ["GOOD", "FILM"]]),
        ([["GOOD", "FILM"], []], [[], ["GOOD", "FILM"]]),
        ([None, "NO"], [["NO"], []]),
    ],
)
def test_the_text_may_be_bytes_or_words_or_missing(tmp_path: Path, said: object, words: list[list[str]]) -> None:
    assert (read_made(tmp_path, having(content(), "raw_text", said)).words or [])[:2] == words


def test_a_modality_that_is_none_or_without_a_step_is_not_held(tmp_path: Path) -> None:
    made = having(content(), "audio", None)
    assert list(read_made(tmp_path, made, ["text"]).features) == ["text", "visual"]
    with pytest.raises(DataError, match=r"has no audio.\n  type dataset.modalities=\[text,visual\]"):
        read_made(tmp_path, made)
    for made in (having(content(), "audio", np.zeros((2, 6, 0))), having(unaligned(), "audio_lengths", [0, 0])):
        prepared = read_made(tmp_path, made, ["text"])
        assert list(prepared.features) == ["text", "visual"]
        assert prepared.report["without_steps"] == ["audio"]


def test_a_fold_without_rows_does_not_hinder_the_others(tmp_path: Path) -> None:
    made = content()
    made["valid"] = {key: [] for key in made["valid"]}
    prepared = read_made(tmp_path, made)
    assert prepared.folds == ["train", "train", "test", "test"]
    assert prepared.features["audio"].lengths.tolist() == [5, 3] * 2


def test_sims_has_a_target_per_modality_and_words_of_one_character(tmp_path: Path) -> None:
    prepared = read_made(tmp_path, sims())
    assert prepared.ids[:2] == ["video_train[9]", "video_train[10]"]
    assert {name: target[:2].tolist() for name, target in prepared.targets.items()} == {
        "sentiment": pytest.approx([-0.2, 0.8]),
        "sentiment_text": [0.0, 0.0],
        "sentiment_audio": pytest.approx([0.2, 0.1]),
        "sentiment_visual": pytest.approx([0.4, 0.2]),
    }
    assert all(target.dtype == np.float32 for target in prepared.targets.values())
    assert prepared.words is not None
    assert prepared.words[1] == [*"我不想嫁给李茶", "OK"]
    made = sims()
    del made["test"]["regression_labels_A"]  # of two folds is none
    assert set(read_made(tmp_path, made).targets) == {"sentiment", "sentiment_text", "sentiment_visual"}


@pytest.mark.parametrize(("key", "modality"), [("text", "text"), ("audio", "audio"), ("vision", "visual")])
def test_a_file_of_one_modality_holds_that_one(tmp_path: Path, key: str, modality: str) -> None:
    kept = {key, f"{key}_lengths", "id", "raw_text", "regression_labels", "annotations"}
    made = {fold: {k: v for k, v in part.items() if k in kept} for fold, part in unaligned().items()}
    prepared = read_made(tmp_path, made, [modality])
    assert list(prepared.features) == [modality]
    assert prepared.features[modality].lengths.tolist()[:2] == {"text": [5, 3], "audio": [2, 7]}.get(key, [9, 4])
    with pytest.raises(DataError, match=rf"has no .*\n  type dataset.modalities=\[{modality}\]"):
        read(tmp_path / "aligned_50.pkl")


def test_the_order_of_rows_and_further_keys_of_an_extraction_do_not_matter(tmp_path: Path) -> None:
    first = read_made(tmp_path, unaligned())
    made = unaligned()
    for fold, part in made.items():
        part.update({key: np.asarray(values)[::-1] for key, values in part.items()})
        part.update(align=np.array(["wav2vec", "wav2vec"]), mode=[fold, fold], text=part["text"].astype(np.float64))
    again = read_made(tmp_path, made)
    assert again.ids == first.ids and again.words == first.words and again.report == first.report
    np.testing.assert_array_equal(again.targets["sentiment"], first.targets["sentiment"])
    for modality, ragged in first.features.items():
        assert again.features[modality].values.dtype == np.float32
        np.testing.assert_array_equal(again.features[modality].values, ragged.values)


@pytest.mark.parametrize("width", [300, 768])
def test_widths_are_those_of_the_file(tmp_path: Path, width: int) -> None:
    made = content()
    for part in made.values():
        part["text"] = np.ones((2, 6, width), dtype=np.float32)
    assert read_made(tmp_path, made).features["text"].width == width


def test_numbers_beyond_float32_are_not_finite(tmp_path: Path) -> None:
    made = unaligned()
    made["train"]["audio"][0, 0, 0] = 1e300
    made["test"]["regression_labels"] = [1e300, 1.0]
    prepared = read_made(tmp_path, made)
    assert prepared.report["non_finite"]["audio"] == 1
    assert prepared.report["dropped"] == {"label not finite": ["test[10]"]}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ([(1, 2)], "a list of 1 tuple"),
        ({"train": {}, "test": {}}, "a dict of train, test, which is no known layout"),
        (without(content(), "regression_labels"), "fold train lacks regression_labels"),
        (without(content(), "vision"), r"has no visual.\n  type dataset.modalities=\[text,audio\]"),
        (having(content(), "audio", np.zeros((3, 6, 3))), "'audio': 3"),
        (having(content(), "audio", np.zeros((2, 6))), "3 axes"),
        (having(content(), "regression_labels", [1.0]), "'regression_labels': 1"),
        (having(content(), "text_bert", np.zeros((2, 6))), "text_bert of shape"),
        (having(content(), "id", "ab"), "one entry per utterance"),
        (having(content(), "raw_text", ["one"]), "'raw_text': 1"),
        (having(sims(), "regression_labels_A", np.zeros((2, 2))), "'regression_labels_A': 4"),
        (having(content(), "audio", "loud"), "audio must hold numbers"),
        (having(unaligned(), "audio_lengths", [3, -1]), "lengths"),
        (having(unaligned(), "audio_lengths", [3]), "lengths"),
        (having(unaligned(), "audio_lengths", [3, None]), "lengths"),
        (having(unaligned(), "audio_lengths", [3, 2.5]), r"fold train, audio: 2 lengths, whole .* got \[3.0, 2.5\]"),
        (having(content(), "audio", [np.ones((2, 3)), np.ones((3, 2))]), r"as many features per step .* got \[2, 3\]"),
        (
            having(content(), "audio", [np.ones((2, 3)), [[1.0, 2.0], [3.0]]]),
            "audio must hold numbers .its rows differ",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused_in_few_lines(tmp_path: Path, what: object, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        read_made(tmp_path, what)
    assert str(tmp_path) in str(refused.value)
    assert len(str(refused.value)) < 700
