"""MultiBench's pickles: the shared file is the shared corpus cut to 20 words, and made ones come back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers import mult_pickle
from mmsa.readers.multibench_pickle import matches
from mmsa.readers.restricted_pickle import load_pickle
from tests.conftest import existing
from tests.dataset.corpora import Tiny
from tests.readers.pickles import assert_same_rows, left_padded, read_file, source_rows, write

IDS = {fold: [f"{fold}[1]", f"{fold}[0]"] for fold in FOLDS}


@pytest.fixture(scope="module")
def sample(shared: Path) -> Path:
    return existing(shared / "data" / "pickles" / "multibench_mosi_raw.pkl")


@pytest.fixture(scope="module")
def prepared(sample: Path) -> Prepared:
    return read_file(sample)


def test_the_shared_file_is_recognised_and_has_its_counts(sample: Path, prepared: Prepared) -> None:
    content = load_pickle(sample)
    assert matches(content) and not mult_pickle.matches(content)
    assert [prepared.folds.count(fold) for fold in FOLDS] == [131, 53, 45]
    assert {m: ragged.width for m, ragged in prepared.features.items()} == {"text": 20, "audio": 74, "visual": 35}
    assert prepared.report["padding"]["text"] == dict.fromkeys(FOLDS, "left")
    assert prepared.report["dropped"] == {} and prepared.report["text_all_zero"] == []


def test_the_shared_file_holds_the_last_20_words_of_the_shared_corpus(shared: Path, prepared: Prepared) -> None:
    rows = source_rows(shared)
    assert sum(len(row["words"]) > 20 for row in rows.values()) == 24
    widths = {"text": 20, "audio": 74, "visual": 35}
    expected = {name: {m: row[m][-20:, :width] for m, width in widths.items()} for name, row in rows.items()}
    assert_same_rows(prepared, expected)
    assert prepared.targets["sentiment"].tolist() == [rows[name]["score"] for name in prepared.ids]
    assert prepared.folds == [rows[name]["fold"] for name in prepared.ids]


def test_seven_columns_are_sentiment_and_six_emotions(tmp_path: Path) -> None:
    for shape in ((7,), (1, 7)):
        labels = np.arange(7, dtype=np.float32).reshape(shape)
        prepared = read_file(write(tmp_path / "mosei_raw.pkl", left_padded(IDS, labels)))
        assert prepared.ids == [f"{fold}[{k}]" for fold in FOLDS for k in (0, 1)]
        assert prepared.targets["sentiment"].tolist() == [0.0] * 6
        np.testing.assert_array_equal(prepared.targets["emotions"], np.arange(1, 7)[None].repeat(6, axis=0))


@pytest.mark.parametrize(("ids", "name"), [((7, 12), "humor"), (("7", "12"), "humor"), (("1_60", "2_380"), "sarcasm")])
@pytest.mark.parametrize("low", [0, -1])
def test_two_classes_are_humor_or_sarcasm(tmp_path: Path, ids: Sequence[object], name: str, low: int) -> None:
    content = left_padded(dict.fromkeys(FOLDS, ids))
    for part in content.values():
        part["labels"] = np.array([1, low]).reshape(2, 1)
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert list(prepared.targets) == [name]
    by_length = dict(zip(prepared.features["text"].lengths.tolist(), prepared.targets[name].tolist(), strict=False))
    assert by_length == {3: 1.0, 5: 0.0}
    assert prepared.targets[name].dtype == np.float32


def test_labels_0_and_1_of_named_videos_are_sentiments(tmp_path: Path) -> None:
    assert list(read_file(write(tmp_path / "x.pkl", left_padded(IDS))).targets) == ["sentiment"]


def test_rows_without_text_are_kept_and_named_unless_nothing_is_there(tmp_path: Path) -> None:
    content = left_padded(IDS)
    content["train"]["text"][0] = 0
    for key in ("text", "audio", "vision"):
        content["test"][key][1] = 0
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert prepared.report["text_all_zero"] == ["train[1]"]
    assert prepared.report["dropped"] == {"no steps": ["test[0]"]}
    row = prepared.ids.index("train[1]")
    assert not prepared.features["text"][row].any()
    assert prepared.features["audio"][row].all()
    assert {ragged.lengths[row] for ragged in prepared.features.values()} == {3}  # aligned still


def test_a_fold_of_odd_width_is_named_and_the_other_modalities_are_read(tmp_path: Path) -> None:
    content = left_padded({fold: [f"{fold}_{i}" for i in range(3)] for fold in FOLDS})
    content["test"]["audio"] = content["test"]["audio"][..., :2]
    path, stores = write(tmp_path / "data.pkl", content), tmp_path / "stores"
    said = (
        r"lacks audio\. audio has 3 .* in 6 utterances; others, all in test, differ: test\[0\] has 2.*\[text,visual\]$"
    )
    for _ in range(2):  # the second time it is the store that says so
        with pytest.raises(DataError, match=said):
            Tiny(str(path)).prepare(stores, progress=False)
    assert set(Tiny(str(path), modalities=["text", "visual"]).prepare(stores).features) == {"text", "visual"}
