"""MISA's folders, and those of BBFN and MMIM: the shared folder is the shared corpus, and made ones come back."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.misa_pickle import find, read
from mmsa.readers.restricted_pickle import load_pickle
from tests.conftest import existing
from tests.readers.pickles import ALL, assert_same_rows, filled, padded, source_rows, write

WITHOUT_TEXT = ReadOptions(required=("audio", "visual"))
NAMES = {"train": "train", "valid": "dev", "test": "test"}


def prepared_from(folder: Path, options: ReadOptions = WITHOUT_TEXT) -> Prepared:
    files = find(folder)
    assert files is not None
    return read(files, options, silent)


def sample(num_words: int, label: Any, *rest: Any, lengths: tuple[Any, ...] = ()) -> tuple[Any, ...]:
    words = [f"w{k}" for k in range(num_words)]
    parts = (np.arange(num_words), filled(num_words, 2), filled(num_words, 3), words, *lengths)
    return (parts, np.array(label), *rest)


def folder_of(path: Path, samples: dict[str, list[Any]]) -> Path:
    for fold, name in NAMES.items():
        write(path / f"{name}.pkl", samples[fold])
    return path


@pytest.fixture(scope="module")
def shared_folder(shared: Path) -> Path:
    return existing(shared / "data" / "pickles" / "misa")


def test_the_shared_folder_has_its_counts_and_is_the_shared_corpus(shared: Path, shared_folder: Path) -> None:
    prepared = prepared_from(shared_folder)
    assert [prepared.folds.count(fold) for fold in FOLDS] == [131, 53, 45]
    assert {m: ragged.width for m, ragged in prepared.features.items()} == {"text": 300, "audio": 74, "visual": 47}
    del prepared.features["text"]  # random vectors: the folder has none
    rows = source_rows(shared)
    assert_same_rows(prepared, {name: {m: row[m] for m in ("audio", "visual")} for name, row in rows.items()})
    assert prepared.words == [rows[name]["words"] for name in prepared.ids]
    assert prepared.folds == [rows[name]["fold"] for name in prepared.ids]
    assert prepared.targets["sentiment"].tolist() == [rows[name]["score"] for name in prepared.ids]


def test_the_shared_folder_agrees_with_mmsa_s_of_the_same_utterances(shared_folder: Path, mmsa_pickle: Path) -> None:
    """As the corpus states it: misa acoustic[:, [1,3,6,25,60]] = mmsa audio[:, 1:n+1], and the labels agree."""
    mmsa, prepared = load_pickle(mmsa_pickle), prepared_from(shared_folder)
    assert isinstance(mmsa, dict)
    row_of = {name: i for i, name in enumerate(prepared.ids)}
    for fold in FOLDS:
        part = mmsa[fold]
        for k, name in enumerate(part["id"].tolist()):
            video, clip = name.split("$_$")
            i = row_of[f"{video}[{int(clip) - 1}]"]
            n = int(part["text_bert"][k, 1].sum()) - 2
            audio = prepared.features["audio"][i][:, [1, 3, 6, 25, 60]]
            np.testing.assert_array_equal(audio, part["audio"][k, 1 : n + 1])
            assert prepared.targets["sentiment"][i] == part["regression_labels"][k]


def write_vectors(path: Path, table: torch.Tensor, words: list[str]) -> None:
    """embedding_and_mapping.pt as MISA writes it: its table of words names a function of a module of its own."""
    module = ModuleType("create_dataset")
    exec("def return_unk():\n    return 0", module.__dict__)
    mapping = defaultdict(module.return_unk, {word: number for number, word in enumerate(words)})
    sys.modules["create_dataset"] = module
    try:
        torch.save((table, mapping), path)
    finally:
        del sys.modules["create_dataset"]


def made(tmp_path: Path) -> Path:
    return folder_of(tmp_path, {fold: [sample(4, [[1.5]], f"{fold}[0]")] for fold in FOLDS})


def test_with_the_word_vectors_beside_them_text_has_features(tmp_path: Path) -> None:
    table = torch.randn(4, 6)
    write_vectors(made(tmp_path) / "embedding_and_mapping.pt", table, ["w0", "w1", "w2", "w3"])
    prepared = prepared_from(tmp_path, ALL)
    assert list(prepared.features) == ["text", "audio", "visual"]
    np.testing.assert_array_equal(prepared.features["text"][1], table.numpy())
    assert prepared.words == [["w0", "w1", "w2", "w3"]] * 3


def test_words_are_looked_up_where_only_their_numbers_are_there(tmp_path: Path) -> None:
    samples = {fold: [((np.array([2, 0]), filled(2, 2), filled(2, 3)), 1.0, f"{fold}[0]")] for fold in FOLDS}
    write_vectors(folder_of(tmp_path, samples) / "embedding_and_mapping.pt", torch.ones(3, 2), ["a", "b", "c"])
    assert prepared_from(tmp_path, ALL).words == [["c", "a"]] * 3


def test_without_vectors_each_word_has_a_random_one_of_its_own_and_that_is_told(tmp_path: Path) -> None:
    prepared = prepared_from(made(tmp_path), ALL)
    words = [word for utterance in prepared.words or [] for word in utterance]
    assert prepared.report["drawn_vectors"] == len(set(words))
    vectors: dict[str, np.ndarray] = {}
    for word, vector in zip(words, prepared.features["text"].values, strict=True):
        np.testing.assert_array_equal(vectors.setdefault(word, vector), vector)
    assert len({vector.tobytes() for vector in vectors.values()}) == len(vectors)
    again = prepared_from(made(tmp_path / "again"), ALL)
    np.testing.assert_array_equal(again.features["text"].values, prepared.features["text"].values)


def test_numbers_of_words_alone_are_refused_with_what_to_type(tmp_path: Path) -> None:
    samples = {fold: [((np.array([2, 0]), filled(2, 2), filled(2, 3)), 1.0, f"{fold}[0]")] for fold in FOLDS}
    folder_of(tmp_path, samples)
    with pytest.raises(DataError, match=r"Put it there, or\n  type dataset.modalities=\[audio,visual\]"):
        prepared_from(tmp_path, ALL)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.ones(2, 2), "a pair of a tensor"),
        ((torch.ones(1, 1).expand(10**9, 10**6), {}), "larger than its numbers"),
        ((torch.ones(2, 6), {"w0": 0}), "word 2 of a table of 2 vectors"),
        ((torch.ones(2, 6), Path("x")), "it names pathlib"),
        (b"not a file of torch", "no file of torch.save"),
    ],
)
def test_other_files_of_tensors_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    path = made(tmp_path) / "embedding_and_mapping.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DataError, match=said):
        prepared_from(tmp_path)


def test_mmim_s_extra_lengths_cut_its_padding_and_seven_columns_are_emotions(tmp_path: Path) -> None:
    left = np.concatenate([np.zeros((3, 2), np.float32), filled(5, 2)])
    right = np.concatenate([filled(6, 3), np.zeros((2, 3), np.float32)])
    parts = (np.arange(4), left, right, ["a", "b", "c", "d"], 5, np.array([6]))
    labels = np.arange(7, dtype=np.float32)[None]
    prepared = prepared_from(folder_of(tmp_path, {fold: [(parts, labels, f"{fold}[2]")] for fold in FOLDS}))
    for i in range(3):
        np.testing.assert_array_equal(prepared.features["visual"][i], filled(5, 2))
        np.testing.assert_array_equal(prepared.features["audio"][i], filled(6, 3))
    assert prepared.targets["sentiment"].tolist() == [0.0] * 3
    assert prepared.targets["emotions"].tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]] * 3


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_of_mmim_s_padding_is_that_of_all_its_rows(tmp_path: Path, side: str, count: int) -> None:
    """Of one row the sound alone tells it, of two also the other row's face."""
    unseen = np.concatenate([np.zeros((3, 2)), filled(1, 2), np.zeros((3, 2))])  # as many steps as are padding
    seen, heard = filled(7, 2), filled(7, 3)
    samples = []
    for k, visual in enumerate((unseen, seen)[:count]):
        arrays = [padded([steps], 10, side)[0] for steps in (visual, heard)]
        samples.append(((np.arange(4), *arrays, ["a", "b", "c", "d"], 7, 7), np.array([[1.0]]), f"v[{k}]"))
    prepared = prepared_from(folder_of(tmp_path, dict.fromkeys(FOLDS, samples)))
    np.testing.assert_array_equal(prepared.features["visual"][0], unseen)
    np.testing.assert_array_equal(prepared.features["audio"][0], heard)


def test_where_no_row_tells_the_side_of_mmim_s_padding_it_is_the_left(tmp_path: Path) -> None:
    streams = [np.zeros((5, width)) for width in (2, 3)]
    for steps in streams:
        steps[2] = 1
    samples = [((np.arange(2), *streams, ["a", "b"], 3, 3), np.array([[1.0]]), "v[0]")]
    prepared = prepared_from(folder_of(tmp_path, dict.fromkeys(FOLDS, samples)))
    assert prepared.features["audio"][0].any(axis=1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "words",
    [np.array(["a", "caf\u00e9"]), [b"a", "café".encode()], np.array([[b"a"], ["café".encode()]]), ("a", "café")],
)
def test_words_may_be_bytes_and_arrays(tmp_path: Path, words: Any) -> None:
    parts = (np.arange(2), filled(2, 2), list(filled(2, 3)), words)
    made = folder_of(tmp_path, {fold: [(parts, 1.5, f"{fold}[0]".encode())] for fold in FOLDS})
    prepared = prepared_from(made, ALL)
    assert prepared.words == [["a", "café"]] * 3
    assert prepared.ids == [f"{fold}[0]" for fold in FOLDS]
    np.testing.assert_array_equal(prepared.features["audio"][2], filled(2, 3))


def test_a_sample_may_lack_its_segment_or_a_modality_and_a_fold_may_be_a_tuple_under_another_name(
    tmp_path: Path,
) -> None:
    samples = {fold: (sample(2, [[1.5]], f"{fold}[0]"), sample(3, [[-2.5]])) for fold in FOLDS}
    words, visual, _, said = sample(1, 0.0)[0]
    samples["train"] += (((words, visual, None, said), 0.5, "train[1]"),)
    write(tmp_path / "train.pkl", samples["train"])
    write(tmp_path / "val.pkl", samples["valid"])
    write(tmp_path / "test.pkl", samples["test"])
    prepared = prepared_from(tmp_path)
    assert prepared.ids[:3] == ["train[0]", "train[1]", "train-1[0]"]
    assert prepared.report["ids"] == {"absent": 3}
    assert prepared.features["audio"].lengths.tolist()[:3] == [2, 0, 3]
    assert prepared.targets["sentiment"].tolist()[:3] == [1.5, 0.5, -2.5]


def test_samples_of_ur_funny_have_no_segment_and_become_videos_of_their_own(tmp_path: Path) -> None:
    samples = {fold: [sample(2, [[1]]), sample(3, [[0]])] for fold in FOLDS}
    prepared = prepared_from(folder_of(tmp_path, samples))
    assert prepared.ids == [f"{fold}-{i}[0]" for fold in FOLDS for i in (0, 1)]
    assert prepared.targets["humor"].tolist() == [1.0, 0.0] * 3
    assert list(prepared.targets) == ["humor"]
    assert prepared.report["ids"] == {"absent": 6}


def test_a_label_0_or_1_of_a_named_segment_is_a_sentiment(tmp_path: Path) -> None:
    samples = {fold: [sample(2, [[1.0]], f"{fold}[0]")] for fold in FOLDS}
    assert list(prepared_from(folder_of(tmp_path, samples)).targets) == ["sentiment"]


def test_what_is_dropped_and_mended_is_reported(tmp_path: Path) -> None:
    samples = {fold: [sample(2, [[1.0]], f"{fold}[0]")] for fold in FOLDS}
    samples["train"] += [sample(0, [[1.0]], "train[1]"), sample(2, [[np.nan]], "train[2]")]
    samples["test"][0][0][1][1, 0] = np.inf
    prepared = prepared_from(folder_of(tmp_path, samples))
    assert prepared.report["dropped"] == {"no steps": ["train[1]"], "label not finite": ["train[2]"]}
    assert prepared.report["non_finite"] == {"text": 0, "audio": 0, "visual": 1}
    assert prepared.features["visual"][2].tolist() == [[1.0, 2.0], [0.0, 4.0]]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (7, "a tuple"),
        (((1, 2), 3, "a[0]"), "a tuple"),
        ((([0], [[1.0, 2.0]], [["x"]], ["a"]), 1.0, "a[0]"), "acoustic must hold numbers"),
        ((([0], [[1.0, 2.0]], [1.0], ["a"]), 1.0, "a[0]"), "an array of 2 axes"),
        (sample(2, [[1.0, 2.0]], "a[0]"), "as many columns"),
        (sample(2, [[1.0]], ""), "an id such as"),
        (sample(2, [[1.0]], "a[0]", lengths=(-1, 2)), "a length >= 0"),
    ],
)
def test_samples_of_another_form_are_refused(tmp_path: Path, odd: Any, said: str) -> None:
    samples = {fold: [sample(2, [[1.0]], f"{fold}[0]")] for fold in FOLDS}
    samples["test"].append(odd)
    with pytest.raises(DataError, match=said):
        prepared_from(folder_of(tmp_path, samples))


def test_a_modality_of_odd_width_is_left_out_and_the_odd_ones_are_named(tmp_path: Path) -> None:
    samples = {fold: [sample(2, [[1.0]], f"{fold}[{i}]") for i in range(2)] for fold in FOLDS}
    samples["test"][1] = (([0], [[1.0]], [[1.0] * 3], ["a"]), 1.0, "test[1]")
    prepared = prepared_from(folder_of(tmp_path, samples))
    assert "visual" not in prepared.features and "audio" in prepared.features
    assert re.fullmatch(
        r"has \d features per step in 5 utter.*, all in test, differ: test\[1\] has 1",
        prepared.report["uneven"]["visual"],
    )


def test_a_folder_without_a_fold_is_none_of_misa_s_and_another_content_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    write(tmp_path / "dev.pkl", {"a": 1})
    with pytest.raises(DataError, match=r"dev.pkl: MISA's layout, a list of .* got dict"):
        prepared_from(tmp_path)
    (tmp_path / "dev.pkl").unlink()
    assert find(tmp_path) is None
