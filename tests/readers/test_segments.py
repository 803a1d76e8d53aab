"""Sequences that the SDK has aligned are read as they are: entry by entry, without a second alignment."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.store import Prepared
from mmsa.errors import DataError
from mmsa.readers.computational_sequences import read_sequences
from tests.dataset.corpora import Tiny, Video, tiny_sequences, words, write_corpus

FOLDS = {"a": "train", "b": "valid", "c": "test"}


def aligned(prepared: Prepared) -> dict[str, dict[str, Video]]:
    """What was aligned, as the SDK writes it: an entry per utterance, with intervals that say nothing new."""
    times = {name: np.arange(2.0 * n).reshape(n, 2) for name, n in zip(prepared.ids, lengths(prepared), strict=True)}
    said = dict(zip(prepared.ids, prepared.words or [], strict=True))
    made = {"words": {name: words(*[(0, 1, word) for word in said[name]]) for name in said}}
    made |= {
        m: {name: (times[name], ragged[i]) for i, name in enumerate(said)} for m, ragged in prepared.features.items()
    }
    label = prepared.targets["sentiment"]
    return made | {"labels": {name: (np.array([[0.0, 1.0]]), label[i : i + 1, None]) for i, name in enumerate(said)}}


def lengths(prepared: Prepared) -> list[int]:
    return prepared.features["text"].lengths.tolist()


def same(one: Prepared, other: Prepared) -> None:
    assert (one.ids, one.videos, one.folds, one.words) == (other.ids, other.videos, other.folds, other.words)
    np.testing.assert_array_equal(one.targets["sentiment"], other.targets["sentiment"])
    for modality, ragged in one.features.items():
        np.testing.assert_array_equal(ragged.values, other.features[modality].values)
        np.testing.assert_array_equal(ragged.offsets, other.features[modality].offsets)


@pytest.mark.parametrize("keep_pauses", [True, False])
def test_what_was_aligned_is_read_as_if_it_were_aligned_here(tmp_path: Path, keep_pauses: bool) -> None:
    files = write_corpus(tmp_path / "source", tiny_sequences())
    whole = read_sequences(files, fold_of=FOLDS, keep_pauses=True)
    again = write_corpus(tmp_path / "aligned", aligned(whole))
    read = read_sequences(again, fold_of=FOLDS, keep_pauses=keep_pauses)
    expected = read_sequences(files, fold_of=FOLDS, keep_pauses=keep_pauses)
    same(read, expected)
    assert read.report.get("pauses_removed", 0) == expected.report["pauses_removed"]
    assert Tiny(str(tmp_path / "aligned")).prepare(tmp_path / "stores").ids == whole.ids


def test_a_modality_keeps_the_steps_of_its_own_and_what_is_lacking_is_named(tmp_path: Path) -> None:
    made = aligned(read_sequences(write_corpus(tmp_path, tiny_sequences()), fold_of=FOLDS, keep_pauses=True))
    audio = {name: (np.zeros((9, 2)), np.full((9, 3), i, np.float32)) for i, name in enumerate(made["audio"])}
    del audio["b[1]"]
    made["labels"]["b[0]"][1][0] = np.nan
    made["labels"]["x[0]"] = made["labels"]["a[0]"]
    made["visual"]["a[0]"] = np.zeros((0, 2)), np.zeros((0, 2), np.float32)
    prepared = read_sequences(write_corpus(tmp_path, made | {"audio": audio}), fold_of=FOLDS)
    assert prepared.ids == ["a[0]", "a[1]", "c[0]", "c[1]"]
    assert prepared.features["audio"].lengths.tolist() == [9] * 4
    assert prepared.features["text"].lengths.tolist() == [2] * 4, "without the pause of the first"
    assert prepared.features["visual"].lengths.tolist() == [0, 2, 2, 2]
    assert prepared.report["dropped"] == {"absent from audio": ["b[1]"], "label not finite": ["b[0]"]}
    assert prepared.report["skipped_videos"] == {"in no fold": ["x"]}


@pytest.mark.parametrize("role", ["words", "audio", "labels"])
def test_one_file_that_is_aligned_otherwise_is_named(tmp_path: Path, role: str) -> None:
    made = tiny_sequences()
    files = write_corpus(tmp_path, made)
    other = aligned(read_sequences(files, fold_of=FOLDS, keep_pauses=True))
    for mixed in (made | {role: other[role]}, other | {role: made[role]}):
        with pytest.raises(DataError, match=rf"{re.escape(str(files[role]))}(.|\n)*\n  type dataset\.source="):
            read_sequences(write_corpus(tmp_path, mixed), fold_of=FOLDS)


def test_several_rows_of_labels_in_an_utterance_are_refused(tmp_path: Path) -> None:
    made = aligned(read_sequences(write_corpus(tmp_path, tiny_sequences()), fold_of=FOLDS))
    made["labels"]["a[1]"] = np.zeros((2, 2)), np.ones((2, 1), np.float32)
    with pytest.raises(DataError, match=r"a\[1\] needs one row of labels, got 2"):
        read_sequences(write_corpus(tmp_path, made), fold_of=FOLDS)
