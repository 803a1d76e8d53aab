"""How many steps an utterance has in MMSA's pickles: stated, told by the mask, or by the zeros, on either side."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.store import FOLDS
from tests.readers.test_mmsa_pickle import Content, content, read, read_made, unaligned


def test_each_modality_of_an_unaligned_pickle_keeps_its_own_length(tmp_path: Path) -> None:
    prepared = read_made(tmp_path, unaligned())
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3
    assert prepared.features["audio"].lengths.tolist() == [2, 7] * 3
    assert prepared.features["visual"].lengths.tolist() == [9, 4] * 3
    assert prepared.features["audio"][1][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert prepared.report["padding"]["audio"] == dict.fromkeys(FOLDS, "right")


def test_a_stated_length_of_zero_is_an_absent_modality_and_one_beyond_the_array_the_whole(tmp_path: Path) -> None:
    made = unaligned()
    made["train"]["audio_lengths"] = [0, 1000]
    prepared = read_made(tmp_path, made)
    assert prepared.features["audio"].lengths.tolist()[:2] == [8, 0]
    made["train"]["text_bert"][0, 1] = 0
    made["train"]["vision_lengths"][0] = 0
    assert read_made(tmp_path, made).report["dropped"] == {"no steps": ["train[10]"]}


def test_unaligned_arrays_without_lengths_end_at_their_last_step(tmp_path: Path) -> None:
    made = unaligned()
    for part in made.values():
        del part["audio_lengths"], part["vision_lengths"]
        part["audio"][0, 3] = 0  # a gap
    prepared = read_made(tmp_path, made)
    assert {m: ragged.lengths.tolist()[:2] for m, ragged in prepared.features.items()} == {
        "text": [5, 3],
        "audio": [2, 7],
        "visual": [9, 4],
    }


def test_a_modality_without_lengths_beside_one_that_has_them_is_not_cut_as_the_text_is(tmp_path: Path) -> None:
    made = unaligned()
    for part in made.values():
        del part["audio_lengths"]
        part["audio"] = np.ones((2, 6, 3)) * (np.arange(6) < np.array([[6], [1]]))[:, :, None]  # as many steps as text
    assert read_made(tmp_path, made).features["audio"].lengths.tolist() == [1, 6] * 3


@pytest.mark.parametrize("made", [content(), unaligned()], ids=["aligned", "unaligned"])
def test_left_padding_is_found(tmp_path: Path, made: Content) -> None:
    right = read_made(tmp_path, made)
    for part in made.values():
        for key in ("text", "audio", "vision"):
            array, lengths = part[key], (part[key] != 0).any(axis=2).sum(axis=1)
            part[key] = np.stack([np.roll(row, len(row) - n, axis=0) for row, n in zip(array, lengths, strict=True)])
        part["text_bert"] = part["text_bert"][:, :, ::-1]
    left = read_made(tmp_path, made)
    assert left.report["padding"]["text"] == dict.fromkeys(FOLDS, "left")
    for modality, ragged in right.features.items():
        np.testing.assert_array_equal(left.features[modality].values, ragged.values)
        np.testing.assert_array_equal(left.features[modality].offsets, ragged.offsets)


def test_token_ids_may_have_their_channels_last(tmp_path: Path) -> None:
    made = content()
    for part in made.values():
        part["text_bert"] = part["text_bert"].transpose(0, 2, 1)
    assert read_made(tmp_path, made).features["audio"].lengths.tolist() == [5, 3] * 3


def test_only_arrays_that_are_all_as_long_as_the_text_are_cut_as_it_is(tmp_path: Path) -> None:
    made = unaligned()
    for part in made.values():
        del part["audio_lengths"], part["vision_lengths"]
        part["audio"] = np.ones((2, 6, 3)) * (np.arange(6) < np.array([[6], [1]]))[:, :, None]
    assert read_made(tmp_path, made).features["audio"].lengths.tolist() == [1, 6] * 3


def test_rows_that_nobody_padded_keep_all_their_steps(tmp_path: Path) -> None:
    made = content()
    steps = [np.array([[0.0], [1.0], [0.0]]), np.ones((7, 1))]
    for part in made.values():
        part["audio"] = steps
    prepared = read_made(tmp_path, made)
    assert prepared.features["audio"][1].tolist() == steps[0].tolist()
    assert prepared.features["audio"].lengths.tolist() == [7, 3] * 3
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3


def test_what_stated_lengths_leave_out_is_counted(tmp_path: Path) -> None:
    made = unaligned()
    made["train"]["audio_lengths"] = [5, 2]  # of 7 and 2
    prepared = read_made(tmp_path, made)
    assert prepared.features["audio"][1][:, 0].tolist() == [1, 2, 3, 4, 5]
    assert prepared.report["beyond_length"] == {"text": 0, "audio": 2, "visual": 0}
    assert prepared.report["beyond_length_utterances"] == {"text": [], "audio": [prepared.ids[1]], "visual": []}


def test_the_shared_unaligned_file_has_its_lengths_and_what_was_planted(shared: Path, mmsa_pickle: Path) -> None:
    path = mmsa_pickle.with_name("mmsa_unaligned_50.pkl")
    prepared, aligned = read(path), read(mmsa_pickle)
    assert (prepared.ids, prepared.folds, prepared.words) == (aligned.ids, aligned.folds, aligned.words)
    np.testing.assert_array_equal(prepared.targets["sentiment"], aligned.targets["sentiment"])
    np.testing.assert_array_equal(prepared.features["text"].values, aligned.features["text"].values[:, :20])
    folds = np.array(prepared.folds)
    assert [prepared.features["audio"].lengths[folds == fold].sum() for fold in FOLDS] == [3484, 1527, 958]
    assert prepared.report["non_finite"] == {"text": 0, "audio": 6, "visual": 0}
    source = pickle.loads(path.read_bytes())
    for fold, places in {"train": [(4, 3, 2), (4, 4, 2), (77, 0, 0)], "valid": [(10, 5, 1)]}.items():
        for row, step, column in places:
            assert source[fold]["audio"][row, step, column] == -np.inf
            i = prepared.ids.index(str(source[fold]["id"][row]).replace("$_$", "[") + "]")
            assert prepared.features["audio"][i][step, column] == 0
            assert len(prepared.features["visual"][i]) == source[fold]["vision_lengths"][row]
