"""Which sequences are read, and which columns of labels become which targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsa.errors import ConfigError, DataError
from mmsa.readers.computational_sequences import find_sequences
from mmsa.readers.sequence_file import write_sequence
from tests.dataset.corpora import Tiny, frames, labels, tiny_sequences, write_corpus
from tests.readers.test_computational_sequences import read


def test_seven_label_columns_are_sentiment_and_six_emotions(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["labels"] = {video: labels((0, 2, 1.5, *range(6)), (2, 4, -2.0, *range(6))) for video in "abc"}
    prepared = read(tmp_path, sequences)
    np.testing.assert_array_equal(prepared.targets["sentiment"], [1.5, -2.0] * 3)
    np.testing.assert_array_equal(prepared.targets["emotions"], [list(range(6))] * 6)


def test_every_label_column_that_is_named_is_a_target(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    columns = tuple(f"trait {i}" for i in range(17))
    sequences["labels"] = {video: labels((0, 2, *range(17)), (2, 4, *range(17, 34))) for video in "abc"}
    prepared = read(tmp_path, sequences, label_columns=columns)
    assert tuple(prepared.targets) == columns
    for i, column in enumerate(columns):
        np.testing.assert_array_equal(prepared.targets[column], np.array([i, 17 + i] * 3, dtype=np.float32))
    with pytest.raises(DataError, match=r"2 label columns \(persuasive, vivid\) are required, got float32 \(2, 17\)"):
        read(tmp_path / "other", sequences, label_columns=("persuasive", "vivid"))
    assert list(read(tmp_path / "one", tiny_sequences(), label_columns=("vivid",)).targets) == ["vivid"]


def test_a_sequence_is_found_by_its_other_names_and_by_its_root_group(tmp_path: Path) -> None:
    files = write_corpus(tmp_path, tiny_sequences())
    old_audio = files["audio"].rename(tmp_path / "TINY_OldAudio.csd")
    renamed = files["visual"].rename(tmp_path / "download (1).csd")
    files["labels"].unlink()
    found = find_sequences(tmp_path, Tiny.sequences)
    assert found == {"words": files["words"], "text": files["text"], "audio": old_audio, "visual": renamed}


def test_a_sequence_is_chosen_by_its_name_or_that_of_its_root_group(tmp_path: Path) -> None:
    files = write_corpus(tmp_path, tiny_sequences())
    other = tmp_path / "download.csd"
    write_sequence(other, "TINY_OpenFace", {"a": frames(20, 9)})
    assert find_sequences(tmp_path, Tiny.sequences) == files
    for name in ("TINY_OpenFace", "download"):
        assert find_sequences(tmp_path, Tiny.sequences, {"visual": name}) == {**files, "visual": other}
    assert find_sequences(tmp_path, Tiny.sequences, {"audio": "TINY_Audio"}) == files


def test_a_choice_that_cannot_be_kept_says_what_is_there(tmp_path: Path) -> None:
    write_corpus(tmp_path, tiny_sequences())
    with pytest.raises(
        DataError, match=r"no sequence TINY_Facet[\s\S]*TINY_Labels, TINY_Vectors, TINY_Visual"
    ) as refused:
        find_sequences(tmp_path, Tiny.sequences, {"visual": "TINY_Facet"})
    assert "\n  type dataset.feature_sets={visual:NAME}" in str(refused.value)
    with pytest.raises(ConfigError, match=r"vision is none of words, text, audio, visual, labels"):
        find_sequences(tmp_path, Tiny.sequences, {"vision": "TINY_Visual"})
