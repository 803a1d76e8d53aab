"""MulT's pickles, aligned and not: the shared file is the shared corpus, and made ones come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.mult_pickle import matches
from mmsa.readers.restricted_pickle import load_pickle
from tests.conftest import existing
from tests.readers.pickles import filled, left_padded, padded, read_file, source_rows, write

AUDIO = [1, 3, 6, 25, 60]
VISUAL = [0, 2, 5, 10, 11, 12, 14, 17, 20, 21, 22, 24, 25, 29, 30, 31, 32, 36, 37, 40]
IDS = {fold: [[f"{fold}_{clip}".encode(), b"1.0", b"2.0"] for clip in (10, 9)] for fold in FOLDS}


@pytest.fixture(scope="module")
def sample(shared: Path) -> Path:
    return existing(shared / "data" / "pickles" / "mult_mosi_data.pkl")


@pytest.fixture(scope="module")
def prepared(sample: Path) -> Prepared:
    return read_file(sample)


def test_the_shared_file_is_recognised_and_has_its_counts(sample: Path, prepared: Prepared) -> None:
    assert matches(load_pickle(sample))
    assert [prepared.folds.count(fold) for fold in FOLDS] == [131, 53, 45]
    assert {m: ragged.width for m, ragged in prepared.features.items()} == {"text": 20, "audio": 5, "visual": 20}
    sides = {modality: dict.fromkeys(FOLDS, "left") for modality in ("text", "audio", "visual")}
    assert prepared.report["padding"] == sides
    assert prepared.report["dropped"] == {}
    assert prepared.report["non_finite"] == dict.fromkeys(sides, 0)


def test_the_shared_file_holds_the_shared_corpus(shared: Path, prepared: Prepared) -> None:
    rows = source_rows(shared)
    assert len(rows) == len(prepared.ids) == len(set(prepared.ids))
    for i, name in enumerate(prepared.ids):
        video, _, clip = name.removesuffix("]").rpartition("[")
        row = rows[f"{video}[{int(clip) - 1}]"]
        assert prepared.folds[i] == row["fold"]
        assert prepared.targets["sentiment"][i] == row["score"]
        np.testing.assert_array_equal(prepared.features["text"][i], row["text"][:, :20])
        np.testing.assert_array_equal(prepared.features["audio"][i], row["audio"][:, AUDIO])
        np.testing.assert_array_equal(prepared.features["visual"][i], row["visual"][:, VISUAL])


def test_the_shared_file_agrees_with_mmsa_s_of_the_same_utterances(sample: Path, mmsa_pickle: Path) -> None:
    """As the corpus states it: mmsa text[:, 1:n+1, :20] = mult text[:, 50-n:], and the labels agree."""
    mmsa, prepared = load_pickle(mmsa_pickle), read_file(sample)
    assert isinstance(mmsa, dict)
    row_of = {name: i for i, name in enumerate(prepared.ids)}
    for fold in FOLDS:
        part = mmsa[fold]
        for k, name in enumerate(part["id"].tolist()):
            i = row_of[name.replace("$_$", "[") + "]"]
            n = int(part["text_bert"][k, 1].sum()) - 2
            np.testing.assert_array_equal(prepared.features["text"][i], part["text"][k, 1 : n + 1, :20])
            np.testing.assert_array_equal(prepared.features["audio"][i], part["audio"][k, 1 : n + 1])
            assert prepared.targets["sentiment"][i] == part["regression_labels"][k]


def test_unaligned_modalities_keep_their_own_lengths(tmp_path: Path) -> None:
    content = left_padded(IDS, num_steps={"audio": 11, "vision": 13})
    content["train"]["audio"][0] = padded([filled(9, 3)], 11, "left")
    prepared = read_file(write(tmp_path / "mosi_data_noalign.pkl", content))
    assert prepared.ids == [f"{fold}[{clip}]" for fold in FOLDS for clip in (9, 10)]
    assert prepared.features["audio"].lengths.tolist() == [5, 9, 5, 3, 5, 3]
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3
    np.testing.assert_array_equal(prepared.features["audio"][1], filled(9, 3))
    assert prepared.targets["sentiment"].tolist() == [1.0, 0.0] * 3


def test_ids_of_mosei_are_numbered_by_start_and_its_seven_columns_are_read(tmp_path: Path) -> None:
    ids = {fold: [[f"{fold}-v", "9.5", "12"], [f"{fold}-v", "0.5", "9"]] for fold in FOLDS}
    labels = np.arange(7, dtype=np.float32)[None]
    prepared = read_file(write(tmp_path / "mosei_senti_data.pkl", left_padded(ids, labels)))
    assert prepared.ids == [f"{fold}-v[{k}]" for fold in FOLDS for k in (0, 1)]
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3  # the second row starts first
    assert prepared.report["ids"] == {"numbered_by_start": 6}
    assert prepared.targets["sentiment"].tolist() == [0.0] * 6
    np.testing.assert_array_equal(prepared.targets["emotions"], np.arange(1, 7)[None].repeat(6, axis=0))


def test_without_ids_every_row_is_a_video_of_its_own(tmp_path: Path) -> None:
    content = left_padded(IDS)
    for part in content.values():
        del part["id"]
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert prepared.ids == [f"{fold}-{i}[0]" for fold in FOLDS for i in (0, 1)]
    assert prepared.report["ids"] == {"absent": 6}


def test_iemocap_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="IEMOCAP file: its labels are four emotions"):
        read_file(write(tmp_path / "iemocap_data.pkl", left_padded(IDS, np.zeros((4, 2)))))
    with pytest.raises(DataError, match="IEMOCAP file"):
        read_file(write(tmp_path / "x.pkl", left_padded({fold: ["a[1]", "b[1]"] for fold in FOLDS}, np.zeros((4, 2)))))


def test_values_that_are_not_finite_become_zero_and_are_counted(tmp_path: Path) -> None:
    content = left_padded(IDS)
    content["valid"]["audio"][0, -1, :2] = [-np.inf, np.nan]
    content["test"]["labels"][1] = np.nan
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert prepared.report["non_finite"] == {"text": 0, "audio": 2, "visual": 0}
    assert prepared.report["non_finite_utterances"]["audio"] == ["valid[10]"]
    assert prepared.features["audio"][prepared.ids.index("valid[10]")][-1].tolist() == [0.0, 0.0, 9.0]
    assert prepared.report["dropped"] == {"label not finite": ["test[9]"]}


def test_a_modality_that_is_not_asked_for_may_be_absent(tmp_path: Path) -> None:
    content = left_padded(IDS)
    del content["test"]["vision"]
    path = write(tmp_path / "x.pkl", content)
    assert list(read_file(path, ReadOptions(required=("text",))).features) == ["text", "audio"]
    with pytest.raises(DataError, match=r"has no visual.\n  type dataset.modalities=\[text,audio\]"):
        read_file(path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("audio", np.zeros((3, 6, 3)), "as many ids, labels and rows"),
        ("audio", np.zeros((2, 6)), "an array of 3 axes is required"),
        ("text", [["a"]], "must hold numbers"),
        ("labels", np.zeros((2, 3)), "1 label column, or 7"),
        ("labels", [[1.0], [1.0, 2.0]], "labels must hold numbers .its rows differ in shape"),
        ("id", "ab", "one entry per utterance"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    content = left_padded(IDS)
    for part in content.values():
        part[key] = value
    with pytest.raises(DataError, match=said):
        read_file(write(tmp_path / "x.pkl", content))


def test_a_file_without_an_utterance_is_refused(tmp_path: Path) -> None:
    content = left_padded(IDS)
    for part in content.values():
        part.update({key: value[:0] for key, value in part.items()})
    with pytest.raises(DataError, match="no utterance is left"):
        read_file(write(tmp_path / "x.pkl", content))


def test_a_fold_that_does_not_tell_its_side_is_padded_as_the_others_are(tmp_path: Path) -> None:
    content = left_padded(IDS)
    for key in ("text", "audio", "vision"):
        content["test"][key][:] = 1
        content["test"][key][:, [0, -2, -1]] = 0  # silence at the end, longer than the padding
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert prepared.report["padding"]["text"] == dict.fromkeys(FOLDS, "left")
    assert prepared.features["text"].lengths.tolist() == [5, 3, 5, 3, 5, 5]


def test_a_file_that_does_not_tell_its_side_is_taken_as_padded_on_the_left(tmp_path: Path) -> None:
    content = left_padded(IDS)
    for part in content.values():
        for key in ("text", "audio", "vision"):
            part[key][:] = 1
            part[key][:, [0, -1]] = 0
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert prepared.report["padding"]["text"] == dict.fromkeys(FOLDS, "left (assumed)")
    assert prepared.features["text"].lengths.tolist() == [5] * 6


def test_rows_that_nobody_padded_keep_all_their_steps(tmp_path: Path) -> None:
    content = left_padded(IDS)
    steps = [np.concatenate([np.zeros((1, 3)), filled(n, 3), np.zeros((2, 3))]) for n in (1, 4)]
    for part in content.values():
        part["audio"] = steps
    prepared = read_file(write(tmp_path / "x.pkl", content))
    np.testing.assert_array_equal(prepared.features["audio"][1], steps[0])
    assert prepared.features["audio"].lengths.tolist() == [7, 4] * 3
    assert prepared.features["text"].lengths.tolist() == [5, 3] * 3


def test_folds_may_lack_ids_and_shape_their_labels_differently(tmp_path: Path) -> None:
    content = left_padded(IDS)
    del content["train"]["id"]
    content["test"]["labels"] = content["test"]["labels"].ravel()
    prepared = read_file(write(tmp_path / "x.pkl", content))
    assert prepared.ids == ["train-0[0]", "train-1[0]", "valid[9]", "valid[10]", "test[9]", "test[10]"]
    assert prepared.targets["sentiment"].tolist() == [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
