"""Every family is recognised from its content, by one module; a data set that cannot use it says what it is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.batches import Data
from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS, Prepared
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.errors import DataError
from mmsa.readers import mag_pickle, mmsa_pickle, mult_pickle, multibench_pickle
from mmsa.readers.families import (
    ReadOptions,
    describe,
    read_file,
    read_folder,
    recognise_file,
    recognise_folder,
)
from mmsa.readers.restricted_pickle import load_pickle
from tests.dataset.corpora import Tiny
from tests.readers.pickles import filled, left_padded, write
from tests.readers.test_mmsa_pickle import content, sims, unaligned

FILES = (mmsa_pickle, multibench_pickle, mult_pickle, mag_pickle)


def samples(fold: str) -> list[Any]:
    """Two samples of MISA's layout, of 3 and 4 words."""
    return [
        (
            (np.arange(n), filled(n, 2), filled(n, 3, start=50.0), ["good", "bad", "film", "sp"][:n]),
            np.array([[label]], dtype=np.float32),
            f"{fold}[{i}]",
        )
        for i, (n, label) in enumerate([(3, 1.5), (4, -2.0)])
    ]


def mult() -> dict[str, Any]:
    return left_padded({fold: [[f"{fold}_{i}".encode(), b"0.0", b"1.0"] for i in (1, 2)] for fold in FOLDS})


def multibench() -> dict[str, Any]:
    return left_padded({fold: [f"{fold}[{i}]" for i in (0, 1)] for fold in FOLDS})


def mag() -> dict[str, Any]:
    return {fold: [(sample[0][:3], *sample[1:]) for sample in samples(fold)] for fold in ("train", "dev", "test")}


def misa_folder(folder: Path) -> Path:
    for fold in ("train", "dev", "test"):
        write(folder / f"{fold}.pkl", samples(fold))
    return folder


def ur_funny_folder(folder: Path) -> Path:
    """Six segments, two per fold, of 3 words each."""
    entries = range(1, 7)
    features = {"audio": 3, "visual": 2}
    for name, width in zip(("covarep", "openface"), features.values(), strict=True):
        write(
            folder / f"{name}_features_sdk.pkl",
            {i: {"punchline_features": filled(3, width), "context_features": [filled(2, width)]} for i in entries},
        )
    write(folder / "data_folds.pkl", {"train": [1, 2], "dev": [3, 4], "test": [5, 6]})
    write(folder / "humor_label_sdk.pkl", {i: i % 2 for i in entries})
    write(folder / "word_embedding_list.pkl", list(filled(4, 5)))
    language = {"punchline_sentence": "a b c", "punchline_embedding_indexes": [0, 1, 3]}
    context = {"context_sentences": ["d e"], "context_embedding_indexes": [[1, 2]]}
    write(folder / "language_sdk.pkl", dict.fromkeys(entries, language | context))
    return folder


MADE: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "MMSA aligned": (content, "MMSA"),
    "MMSA unaligned": (unaligned, "MMSA"),
    "CH-SIMS": (sims, "MMSA"),
    "MulT": (mult, "MulT"),
    "MultiBench": (multibench, "MultiBench"),
    "MAG": (mag, "MAG"),
}


@pytest.mark.parametrize("name", MADE)
def test_a_file_is_one_familys_and_no_others(name: str, tmp_path: Path) -> None:
    make, family = MADE[name]
    known = load_pickle(write(tmp_path / "x.pkl", make()))
    assert [module.FAMILY for module in FILES if module.matches(known)] == [family]
    prepared = read_file(tmp_path / "x.pkl", ReadOptions(), silent)
    assert prepared.report["family"] == recognise_file(make()).FAMILY == family
    assert prepared.report["folds"] == "those of the source"
    assert [prepared.folds.count(fold) for fold in FOLDS] == [2, 2, 2]


def wide_mmsa() -> dict[str, Any]:
    made = unaligned()
    for part in made.values():
        part.update({key: np.tile(part[key], 3000) for key in ("text", "audio", "vision")})
    return made


def long_mag() -> dict[str, Any]:
    words = [f"w{k % 7}" for k in range(500)]
    parts = (words, np.tile(filled(500, 1), 600), np.tile(filled(500, 1), 200))
    return {fold: [(parts, np.array([[1.5]]), f"{fold}[{i}]") for i in range(2)] for fold in ("train", "dev", "test")}


@pytest.mark.parametrize("make", [wide_mmsa, long_mag], ids=["padded", "samples"])
def test_a_pickle_is_prepared_in_blocks_beside_its_own_arrays(
    make: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recognise_file(make()).read(make(), ReadOptions(), silent)
    content = make()
    monkeypatch.setattr("mmsa.readers.rows._BLOCK", 1 << 14)
    tracemalloc.start()
    prepared = recognise_file(content).read(content, ReadOptions(folder=tmp_path), silent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(ragged.values.nbytes for ragged in whole.features.values()) / 2
    assert prepared.report == whole.report and list(prepared.features) == list(whole.features)
    for modality, ragged in whole.features.items():
        assert np.array_equal(prepared.features[modality].values, ragged.values)
        assert np.array_equal(prepared.features[modality].offsets, ragged.offsets)


@pytest.mark.parametrize(
    ("make", "family", "count"), [(misa_folder, "MISA", 6), (ur_funny_folder, "UR-FUNNY", 6)], ids=["MISA", "UR-FUNNY"]
)
def test_a_folder_is_known_by_its_files(make: Callable[[Path], Path], family: str, count: int, tmp_path: Path) -> None:
    folder = make(tmp_path / "source")
    whole = recognise_folder(folder)
    assert whole is not None
    assert family == whole[0].FAMILY
    prepared = read_folder(folder, ReadOptions(), silent)
    assert (len(prepared.ids), prepared.report["family"]) == (count, family)
    one = sorted(whole[1].values())[0]
    with pytest.raises(DataError, match=f"type dataset.source={folder}"):
        read_file(one, ReadOptions(), silent)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ([{}, {}, {}], "a list of 3 dict,"),
        ([(1, 2), "a"], "a list of 2 str and tuple,"),
        ([], "an empty list,"),
        ({"\x1b[2Jgone": 1}, r"a dict of \\x1b\[2Jgone,"),
        ({}, "an empty dict,"),
        ({"text": 1, "audio": 2}, "a dict of text, audio,"),
        ({i: i for i in range(99)}, "a dict of 0, 1, 2, 3, 4, 5, 6, 7, …,"),
        ({"train": [], "valid": 1, "test": {}}, "a dict of train, valid, test,"),
        (np.zeros((2, 3)), r"one object of type ndarray of shape \(2, 3\),"),
        (1.5, "one object of type float,"),
    ],
)
def test_what_is_no_familys_is_described(what: object, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.pkl", what)
    with pytest.raises(DataError, match=said) as refused:
        read_file(path, ReadOptions(), silent)
    assert str(path) in str(refused.value)
    assert all(module.FAMILY in str(refused.value) for module in FILES)
    assert describe(what) in str(refused.value)
    assert len(str(refused.value).replace(str(path), "")) < 340


def test_an_empty_folder_is_no_familys(tmp_path: Path) -> None:
    assert recognise_folder(tmp_path) is None
    with pytest.raises(DataError, match="no known family"):
        read_folder(tmp_path, ReadOptions(), silent)


def test_names_that_no_store_can_hold_are_refused(tmp_path: Path) -> None:
    made = content()
    made["test"]["id"] = ["a\0b$_$1", "c$_$2"]
    with pytest.raises(DataError, match="zero character"):
        read_file(write(tmp_path / "x.pkl", made), ReadOptions(), silent)


@pytest.mark.parametrize("name", MADE)
def test_a_data_set_reads_a_file_of_any_family(name: str, tmp_path: Path, stores: Path) -> None:
    path = write(tmp_path / "x.bin", MADE[name][0]())
    asked = ["audio", "visual"] if name == "MAG" else ["text", "audio", "visual"]
    store = Tiny(str(path), modalities=asked).prepare(stores)
    assert store.report["files"] == {"pickle": "x.bin"}
    data = Data(store, asked)
    assert data.aligned == (name not in ("MMSA unaligned", "CH-SIMS"))
    assert len(data.fold("train").batch(np.arange(2)).ids) == 2


def test_a_data_set_reads_a_folder_of_misa_and_its_words_may_get_vectors(
    tmp_path: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = misa_folder(tmp_path / "source")
    store = Tiny(str(folder), modalities=["audio", "visual"]).prepare(stores)
    assert store.report["files"] == {"train": "train.pkl", "valid": "dev.pkl", "test": "test.pkl"}
    Tiny(str(folder)).prepare(stores)
    assert "random" in capsys.readouterr().err
    glove = tmp_path / "glove.txt"
    glove.write_text("good 1 2\nfilm 3 4\n")
    whole = Tiny(str(folder), glove=str(glove)).prepare(stores)
    assert whole.features["text"][0].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert Data(whole, ["text", "audio", "visual"]).aligned


def test_options_that_would_do_nothing_are_refused(tmp_path: Path, stores: Path) -> None:
    glove = tmp_path / "glove.txt"
    glove.write_text("good 1 2\n")
    with pytest.raises(DataError, match="lacks it"):
        Tiny(str(write(tmp_path / "x.pkl", mult())), glove=str(glove)).prepare(stores)
    assert not list(stores.glob("*.h5"))


def test_labels_of_another_data_set_are_refused_by_its_name(tmp_path: Path, stores: Path) -> None:
    folder = ur_funny_folder(tmp_path / "source")
    with pytest.raises(DataError) as refused:
        Tiny(str(folder)).prepare(stores)
    said = str(refused.value)
    assert "UR-FUNNY's layout with labels of humor, and those of Tiny are of sentiment" in said and said.endswith(
        "  type dataset=ur_funny"
    )
    sarcasm = left_padded({fold: [f"{i}_1" for i in (1, 2)] for fold in FOLDS})
    with pytest.raises(DataError, match=r"labels of sarcasm.*\n  type dataset=mustard"):
        Tiny(str(write(tmp_path / "sarcasm.pkl", sarcasm))).prepare(stores)
    assert not list(stores.glob("*.h5"))


SHARED_FILES = {
    "mmsa_aligned_50.pkl": "MMSA",
    "mmsa_unaligned_50.pkl": "MMSA",
    "mult_mosi_data.pkl": "MulT",
    "multibench_mosi_raw.pkl": "MultiBench",
    "misa": "MISA",
}


@pytest.mark.parametrize("name", SHARED_FILES)
def test_the_shared_files_prepare(name: str, shared: Path, stores: Path) -> None:
    source = shared / "data" / "pickles" / name
    asked = ["audio", "visual"] if name == "misa" else ["text", "audio", "visual"]
    store = CmuMosi(str(source), modalities=asked).prepare(stores)
    assert store.report["utterances"] == {"train": 131, "valid": 53, "test": 45}
    assert store.report["family"] == SHARED_FILES[name]
    assert len(set(store.ids)) == 229


def test_the_shared_folder_of_ur_funny_is_not_taken_for_sentiments(shared: Path, stores: Path) -> None:
    folder = shared / "data" / "pickles" / "ur_funny_v2"
    with pytest.raises(DataError, match="type dataset=ur_funny"):
        CmuMosi(str(folder)).prepare(stores)
    prepared = read_folder(folder, ReadOptions(), silent)
    assert [prepared.folds.count(fold) for fold in FOLDS] == [24, 8, 8]
    assert prepared.targets["humor"].sum() == 19


def test_the_shared_layouts_hold_the_same_utterances(shared: Path) -> None:
    read: dict[str, Prepared] = {}
    for name in SHARED_FILES:
        source = shared / "data" / "pickles" / name
        read[name] = (read_folder if source.is_dir() else read_file)(source, ReadOptions(), silent)
    aligned, mult_file, misa = read["mmsa_aligned_50.pkl"], read["mult_mosi_data.pkl"], read["misa"]
    for prepared in read.values():
        assert prepared.videos == aligned.videos and prepared.folds == aligned.folds
        np.testing.assert_array_equal(prepared.targets["sentiment"], aligned.targets["sentiment"])
    assert mult_file.ids == aligned.ids  # both count from 1, the other two from 0
    assert misa.ids == read["multibench_mosi_raw.pkl"].ids
    for i in range(len(aligned.ids)):
        words = slice(1, len(aligned.features["text"][i]) - 1)  # without [CLS] and [SEP]
        np.testing.assert_array_equal(aligned.features["text"][i][words, :20], mult_file.features["text"][i])
        columns = misa.features["audio"][i][:, [1, 3, 6, 25, 60]]
        np.testing.assert_array_equal(columns, aligned.features["audio"][i][words])
        np.testing.assert_array_equal(columns, mult_file.features["audio"][i])
