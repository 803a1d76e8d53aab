"""UR-FUNNY's folder, version 1 and 2: the shared folder is the shared corpus, and made ones come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsa
from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS, Prepared
from mmsa.dataset.ur_funny import UrFunny
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ur_funny import find, read
from tests.conftest import existing
from tests.readers.pickles import filled, left_padded, source_rows, write

WIDTHS = {"text": 300, "audio": 81, "visual": 371}
# Which utterances of the shared corpus the punchlines 1, 2, … are, as its README states.
PUNCHLINES = [
    f"{video}[{k}]"
    for video, count in (
        ("WKA5OygbEKI", 12),
        ("X3j2zQgwYgE", 11),
        ("ZAIRrfG22O0", 1),
        ("_dI--eQ6qVU", 4),
        ("bvLlb-M3UXU", 4),
        ("aiEXnCPZubE", 4),
        ("c5xsKMxpXnc", 4),
    )
    for k in range(count)
]


@pytest.fixture(scope="module")
def sample(shared: Path) -> Path:
    return existing(shared / "data" / "pickles" / "ur_funny_v2")


def prepared_from(folder: Path, context: bool = False, required: tuple[str, ...] = tuple(WIDTHS)) -> Prepared:
    files = find(folder)
    assert files is not None
    return read(files, ReadOptions(required=required, context=context), silent)


def widened(steps: np.ndarray, width: int) -> np.ndarray:
    return np.pad(steps, ((0, 0), (0, width - steps.shape[1])))


def test_the_shared_folder_has_its_counts(sample: Path) -> None:
    prepared = prepared_from(sample)
    assert [prepared.folds.count(fold) for fold in FOLDS] == [24, 8, 8]
    assert {m: ragged.width for m, ragged in prepared.features.items()} == WIDTHS
    assert set(prepared.ids) == {f"{segment}[0]" for segment in range(1, 41)}
    assert len(set(prepared.videos)) == 40
    assert list(prepared.targets) == ["humor"]
    assert prepared.targets["humor"].sum() == 19
    assert prepared.report["ids"] == {"own_video": 40}
    assert prepared.report["absent"] == dict.fromkeys(WIDTHS, 0)
    assert prepared.report["dropped"] == {}


def test_the_shared_punchlines_are_the_shared_corpus(shared: Path, sample: Path) -> None:
    rows, prepared = source_rows(shared), prepared_from(sample)
    assert prepared.words is not None
    for i, video in enumerate(prepared.videos):
        row = rows[PUNCHLINES[int(video) - 1]]
        assert prepared.words[i] == row["words"]
        assert prepared.targets["humor"][i] == (row["score"] >= 0)
        for modality, width in WIDTHS.items():
            np.testing.assert_array_equal(prepared.features[modality][i], widened(row[modality], width))


def test_the_shared_context_is_the_two_utterances_before(shared: Path, sample: Path) -> None:
    rows, alone, prepared = source_rows(shared), prepared_from(sample), prepared_from(sample, context=True)
    assert prepared.words is not None
    assert prepared.ids == alone.ids
    without = 0
    for i, name in enumerate(prepared.videos):
        video, _, k = PUNCHLINES[int(name) - 1].removesuffix("]").rpartition("[")
        said = [rows[f"{video}[{j}]"] for j in range(max(0, int(k) - 2), int(k) + 1)]
        without += len(said) == 1
        assert prepared.words[i] == [word for row in said for word in row["words"]]
        for modality, width in WIDTHS.items():
            expected = np.concatenate([widened(row[modality], width) for row in said])
            np.testing.assert_array_equal(prepared.features[modality][i], expected)
            np.testing.assert_array_equal(
                prepared.features[modality][i][-len(said[-1]["words"]) :], alone.features[modality][i]
            )
    assert without == 7
    assert prepared.report["context"] is True


def version_1(folder: Path, **changed: Any) -> Path:
    """Segments 1 to 6, two per fold: punchlines of two words after contexts of one sentence of one, and of none.

    Args:
        changed: content of a file in place of its own, by the file's name; None leaves it out.
    """
    segments = range(1, 7)
    contexts = {s: [[s % 4]] if s % 2 else [] for s in segments}
    streams = {}
    for name, width in (("covarep", 81), ("openface", 75)):
        steps = {s: filled(3, width, start=s) for s in segments}
        streams[f"{name}_features_sdk"] = {
            s: {"punchline_features": steps[s][1:].tolist(), "context_features": [steps[s][:1].tolist()] * (s % 2)}
            for s in segments
        }
    files: dict[str, Any] = {
        "data_folds": {"train": [1, 2], "dev": [3, 4], "test": [5, 6]},
        "humor_label_sdk": {s: s % 2 for s in segments},
        "word_embedding_indexes_sdk": {
            s: {"punchline_embedding_indexes": [3, 0], "context_embedding_indexes": contexts[s]} for s in segments
        },
        "word_embedding_list": list(filled(4, 5)),
        "word_list": ["fun", "is", "what", "no"],
    }
    for name, content in (files | streams | changed).items():
        if content is not None:
            write(folder / f"{name}.pkl", content)
    return folder


def test_version_1_is_read_by_its_word_numbers(tmp_path: Path) -> None:
    prepared = prepared_from(version_1(tmp_path))
    assert prepared.ids == [f"{segment}[0]" for segment in range(1, 7)]
    assert prepared.folds == [fold for fold in FOLDS for _ in range(2)]
    assert prepared.targets["humor"].tolist() == [1.0, 0.0] * 3
    assert prepared.words == [["no", "fun"]] * 6
    for i in range(6):
        np.testing.assert_array_equal(prepared.features["text"][i], filled(4, 5)[[3, 0]])
        np.testing.assert_array_equal(prepared.features["visual"][i], filled(3, 75, start=i + 1)[1:])
    whole = prepared_from(tmp_path, context=True)
    assert whole.words is not None and whole.words[:2] == [["is", "no", "fun"], ["no", "fun"]]
    assert whole.features["visual"].lengths.tolist() == whole.features["text"].lengths.tolist() == [3, 2] * 3
    np.testing.assert_array_equal(whole.features["audio"][0], filled(3, 81))


def test_without_the_words_of_the_numbers_there_are_only_vectors(tmp_path: Path) -> None:
    assert prepared_from(version_1(tmp_path, word_list=None)).words is None


def test_the_two_lists_are_told_by_content_whatever_their_names(tmp_path: Path) -> None:
    right = prepared_from(version_1(tmp_path / "right"))
    vectors, words = list(filled(4, 5)), ["fun", "is", "what", "no"]
    swapped = prepared_from(version_1(tmp_path / "swapped", word_embedding_list=words, word_list=vectors))
    assert swapped.words == right.words
    np.testing.assert_array_equal(swapped.features["text"].values, right.features["text"].values)
    numbered = prepared_from(version_1(tmp_path / "numbered", word_embedding_list=dict(enumerate(vectors))))
    np.testing.assert_array_equal(numbered.features["text"].values, right.features["text"].values)


def test_a_list_of_words_under_the_name_of_the_vectors_is_refused(tmp_path: Path) -> None:
    folder = version_1(tmp_path, word_embedding_list=["fun", "is", "what", "no"], word_list=None)
    with pytest.raises(DataError, match=r"holds words, and vectors are required: it is word_list\.pkl"):
        prepared_from(folder)


def test_a_modality_may_be_absent_as_a_file_or_of_a_segment(tmp_path: Path) -> None:
    version_1(tmp_path, covarep_features_sdk=None)
    with pytest.raises(DataError, match=r"has no audio.\n  type dataset.modalities=\[text,visual\]"):
        prepared_from(tmp_path)
    openface = {s: {"punchline_features": filled(2, 75).tolist(), "context_features": []} for s in range(2, 7)}
    version_1(tmp_path, covarep_features_sdk=None, openface_features_sdk=openface)
    prepared = prepared_from(tmp_path, required=("text",))
    assert prepared.report["absent"] == {"text": 0, "visual": 1}
    assert prepared.features["visual"].lengths.tolist() == [0, 2, 2, 2, 2, 2]


def test_keys_may_be_bytes_or_text_or_numbers_in_any_of_the_files(tmp_path: Path) -> None:
    plain = prepared_from(version_1(tmp_path / "plain"), context=True)
    indexes = {
        str(s).encode(): {
            b"punchline_embedding_indexes": np.array([[3], [0]]),
            b"context_embedding_indexes": [[s % 4]] * (s % 2),
        }
        for s in range(1, 7)
    }
    folder = version_1(
        tmp_path / "odd",
        data_folds={b"train": [1.0, 2.0], b"Validation": np.array([["3"], ["4"]]), b"test": {5, 6}},
        humor_label_sdk={str(s): [s % 2] for s in range(1, 7)},
        word_embedding_indexes_sdk=indexes,
        word_embedding_list={str(k): vector for k, vector in enumerate(filled(4, 5))},
        word_list=[b"fun", b"is", b"what", b"no"],
    )
    odd = prepared_from(folder, context=True)
    assert (odd.ids, odd.folds, odd.words) == (plain.ids, plain.folds, plain.words)
    assert odd.targets["humor"].tolist() == plain.targets["humor"].tolist()
    for modality, ragged in plain.features.items():
        np.testing.assert_array_equal(odd.features[modality].values, ragged.values)
        np.testing.assert_array_equal(odd.features[modality].offsets, ragged.offsets)


def test_what_a_file_does_not_say_of_a_segment_is_absent_and_counted(tmp_path: Path) -> None:
    openface = {
        s: {"punchline_features": None if s == 2 else filled(2, 75), "context_features": None} for s in range(1, 7)
    }
    prepared = prepared_from(version_1(tmp_path, openface_features_sdk=openface), context=True)
    assert prepared.report["absent"] == {"text": 0, "audio": 0, "visual": 1}
    assert prepared.report["without_context"] == {"text": 0, "audio": 0, "visual": 6}
    assert prepared.features["visual"].lengths.tolist() == [2, 0, 2, 2, 2, 2]
    assert prepared.features["audio"].lengths.tolist() == [3, 2] * 3


def test_a_segment_without_a_label_is_dropped_and_named(tmp_path: Path) -> None:
    prepared = prepared_from(version_1(tmp_path, humor_label_sdk=dict.fromkeys(range(2, 7), 1)))
    assert prepared.report["dropped"] == {"no label": ["1[0]"]}
    assert len(prepared.ids) == 5


def test_ids_that_name_a_video_keep_it(tmp_path: Path) -> None:
    openface = {
        f"{v}[{k}]": {"punchline_features": filled(2, 75), "context_features": []} for v in "abc" for k in (0, 1)
    }
    folds = {fold: [f"{v}[1]", f"{v}[0]"] for fold, v in (("train", "a"), ("dev", "b"), ("test", "c"))}
    folder = version_1(
        tmp_path,
        data_folds=folds,
        humor_label_sdk=dict.fromkeys(openface, 0),
        openface_features_sdk=openface,
        covarep_features_sdk=None,
        word_embedding_indexes_sdk=None,
    )
    prepared = prepared_from(folder, required=("visual",))
    assert prepared.ids == [f"{v}[{k}]" for v in "abc" for k in (0, 1)]
    assert prepared.videos == list("aabbcc")
    assert prepared.words is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data_folds": {"train": [1], "test": [2]}}, "train, dev and test are required; got a dict of train, test."),
        ({"data_folds": [1]}, "got a list of 1 int"),
        ({"data_folds": {"train": [1], "dev": [1], "test": [2]}}, "segment 1 is in train and in valid"),
        ({"data_folds": {"train": [1, 1], "dev": [2], "test": [3]}}, "segment 1 is in train twice"),
        ({"humor_label_sdk": [0, 1]}, "a dictionary by segment is required, got list"),
        ({"humor_label_sdk": dict.fromkeys(range(1, 7), "funny")}, "segment 1 must hold numbers"),
        ({"covarep_features_sdk": {1: {"context_features": []}}}, "segment 1: punchline_features is required"),
        ({"covarep_features_sdk": {1: {"punchline_features": [1.0]}}}, "an array of 2 axes"),
        ({"word_embedding_list": list(filled(3, 5))}, "word 3 of a list of 3 vectors"),
        ({"word_embedding_list": {1: [0.0]}}, "an entry for every number"),
        ({"word_embedding_list": 7}, "a list with an entry per word is required, got int"),
        ({"word_list": ["fun"]}, "word 3 of a list of 1 words"),
        (
            {"word_embedding_indexes_sdk": {1: {"punchline_embedding_indexes": [3, -1]}}},
            "word -1 of a list of 4 vectors",
        ),
        ({"data_folds": {"train": [7], "dev": [8], "test": [9]}}, "no utterance is left; dropped: no label 3"),
    ],
)
def test_contents_of_another_form_are_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        prepared_from(version_1(tmp_path, **changed))


def test_a_folder_without_labels_or_folds_is_none_of_ur_funny_s(tmp_path: Path) -> None:
    assert find(version_1(tmp_path / "a", humor_label_sdk=None)) is None
    assert find(version_1(tmp_path / "b", data_folds=None)) is None


def test_the_context_makes_another_store_and_an_open_choice_takes_the_right_one(tmp_path: Path) -> None:
    folder, stores = str(version_1(tmp_path / "source")), tmp_path / "stores"
    lengths = {
        context: UrFunny(folder, context=context).prepare(stores).features["text"].lengths.tolist()
        for context in (False, True)
    }
    assert lengths == {False: [2] * 6, True: [3, 2] * 3}
    for context, expected in lengths.items():
        store = UrFunny(context=context).prepare(stores)
        assert store.features["text"].lengths.tolist() == expected
        assert store.report["utterances"] == dict.fromkeys(FOLDS, 2)
        assert store.report["canonical"] == {"train": 10598, "valid": 2626, "test": 3290}
        assert list(store.targets) == ["humor"]


def test_another_layout_of_the_same_data_is_read_and_has_no_context(tmp_path: Path) -> None:
    content = left_padded({fold: [1 + 2 * k, 2 + 2 * k] for k, fold in enumerate(FOLDS)})
    path = write(tmp_path / "humor.pkl", content)
    assert UrFunny(str(path)).prepare(tmp_path / "stores").targets["humor"].tolist() == [0.0, 1.0] * 3
    with pytest.raises(DataError, match=r"dataset.context=true.*\n  type dataset.context=false"):
        UrFunny(str(path), context=True).prepare(tmp_path / "stores")


def test_what_is_no_source_is_refused_with_the_files_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without a known file.\nUR-FUNNY is read from a folder with data_folds.pkl"):
        UrFunny(str(tmp_path)).prepare(tmp_path / "stores")
    with pytest.raises(DataError, match=r"labels lie outside \[0, 1\]"):
        labels = dict.fromkeys(range(1, 7), 2)
        UrFunny(str(version_1(tmp_path / "a", humor_label_sdk=labels))).prepare(tmp_path / "stores")
    with pytest.raises(DataError, match=r"Type: mmsa prepare ur_funny .*dataset.context=true"):
        UrFunny(context=True).prepare(tmp_path / "none")


def test_a_run_classifies_humor_without_being_told_how(tmp_path: Path, small: list[str]) -> None:
    source = version_1(tmp_path / "source")
    result = mmsa.run(
        [*small, "dataset=ur_funny", f"dataset.source={source}", "dataset.context=true", "task=classification"],
        quiet=True,
    )
    assert set(result.predictions["test"].values()) <= {0.0, 1.0}
    assert "test/accuracy" in result.metrics
