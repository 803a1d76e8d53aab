"""MAG's pickle, alone or with the table of its words."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.mag_pickle import find, matches, read
from tests.readers.pickles import ALL, filled, read_file, write

WITHOUT_TEXT = ReadOptions(required=("audio", "visual"))


def content(words: Any = (2, 0, 1)) -> dict[str, Any]:
    """MOSI as MAG keeps it, one sample per fold."""
    count = len(words)
    return {
        name: [((np.array(words), filled(count, 47), filled(count, 74)), np.array([[1.4]]), f"{name}_v[{k}]")]
        for k, name in enumerate(("train", "dev", "test"))
    }


def test_the_pickle_alone_is_read_without_text(tmp_path: Path) -> None:
    prepared = read_file(write(tmp_path / "mosi.pkl", content()), WITHOUT_TEXT)
    assert prepared.ids == ["train_v[0]", "dev_v[1]", "test_v[2]"]
    assert prepared.folds == list(FOLDS)
    assert {m: ragged.width for m, ragged in prepared.features.items()} == {"audio": 74, "visual": 47}
    np.testing.assert_array_equal(prepared.features["audio"][1], filled(3, 74))
    np.testing.assert_allclose(prepared.targets["sentiment"], 1.4)
    assert prepared.words is None


def test_the_table_beside_it_gives_the_words(tmp_path: Path) -> None:
    write(tmp_path / "mosi.pkl", content())
    write(tmp_path / "word2id.pickle", OrderedDict(fine=0, film=1, a=2))
    files = find(tmp_path)
    assert files is not None
    assert read(files, WITHOUT_TEXT, silent).words == [["a", "fine", "film"]] * 3


def test_words_may_stand_in_the_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "mosi.pkl", content(words=("a", "fine", "film")))
    assert read_file(path, WITHOUT_TEXT).words == [["a", "fine", "film"]] * 3


def test_the_table_may_hold_bytes(tmp_path: Path) -> None:
    write(tmp_path / "mosi.pkl", {name.encode(): samples for name, samples in content().items()})
    write(tmp_path / "word2id.pickle", {b"fine": 0, b"film": 1, b"a": 2})
    files = find(tmp_path)
    assert files is not None
    assert read(files, WITHOUT_TEXT, silent).words == [["a", "fine", "film"]] * 3


def test_text_is_refused_since_there_are_no_vectors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vectors are not there.\n  type dataset.modalities=\[audio,visual\]"):
        read_file(write(tmp_path / "mosi.pkl", content()), ALL)


@pytest.mark.parametrize(
    "other", [{"train": [], "dev": []}, {"train": [1], "dev": [], "test": []}, [content()], {}, None]
)
def test_other_contents_are_not_mag_s(other: Any) -> None:
    assert matches(content())
    assert not matches(other)


def test_a_folder_is_mag_s_only_with_the_table_and_one_pickle(tmp_path: Path) -> None:
    write(tmp_path / "mosi.pkl", content())
    assert find(tmp_path) is None
    write(tmp_path / "word2id.pickle", ["a"])
    files = find(tmp_path)
    assert files is not None
    with pytest.raises(DataError, match="a table of numbers by word is required, got list"):
        read(files, WITHOUT_TEXT, silent)
    write(tmp_path / "other.pkl", content())
    assert find(tmp_path) is None
