"""A GloVe file becomes the text features of a corpus: each word its vector, others zeros, all of it reported."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa import build, cli, parts
from mmsa.compose import compose
from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.data.prepare import describe
from mmsa.data.store import PAUSE, Store
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.errors import ConfigError, DataError
from mmsa.readers.glove import embed_words, read_vectors
from tests.dataset.corpora import Tiny, Video, tiny_sequences, write_corpus
from tests.readers.test_mmsa_pickle import content, write
from tests.test_messages import mosi_folder

VECTORS = {"very": [0.5, -1.0, 2e-3], "good": [1.0, 2.0, 3.0], "not": [-1.0, 0.0, 4.0]}


def glove_file(path: Path, lines: Sequence[str]) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    """Vectors of three of the four words of Tiny."""
    return glove_file(tmp_path / "glove.3d.txt", [f"{w} {' '.join(map(str, v))}" for w, v in VECTORS.items()])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Tiny without text features."""
    sequences = tiny_sequences()
    del sequences["text"]
    write_corpus(tmp_path / "source", sequences)
    return tmp_path / "source"


def test_the_last_numbers_are_the_vector_and_the_token_is_all_before(tmp_path: Path) -> None:
    lines = ["the 1 2", ". . 3 4", "at name@domain.com 5 6", "1.5 7 8", "été -9e-1 +.5", "a\u00a0b 2 3", "the 0 0"]
    path = glove_file(tmp_path / "g.txt", lines)
    tokens = ["the", ". .", "at name@domain.com", "1.5", "été", "a\u00a0b", "absent"]
    vectors, width = read_vectors(path, tokens)
    assert width == 2
    assert {token: vector.tolist() for token, vector in vectors.items()} == {
        "the": [1, 2],
        ". .": [3, 4],
        "at name@domain.com": [5, 6],
        "1.5": [7, 8],
        "été": [np.float32(-0.9), 0.5],
        "a\u00a0b": [2, 3],
    }
    assert all(vector.dtype == np.float32 for vector in vectors.values())


def test_line_ends_of_other_systems_and_a_missing_last_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_bytes(b"a 1 2\r\nb 3 4 \nc 5 6")
    vectors, _ = read_vectors(path, "abc")
    assert [vectors[token].tolist() for token in "abc"] == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("damaged", "required"),
    [
        ("b 1", "a token and 2 numbers"),
        ("", "a token and 2 numbers"),
        ("b 1 2 3", "a token and 2 numbers"),
        ("b 1 x", "finite numbers"),
        ("b 1 nan", "finite numbers"),
        ("b inf 1", "finite numbers"),
        ("a 1 1e60", "finite numbers"),
        ("a 1 1.2.3", "numbers"),
        ("a 1 ", "a token and 2 numbers"),
    ],
)
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, damaged: str, required: str) -> None:
    path = glove_file(tmp_path / "g.txt", ["the 1 2", ". . 3 4", damaged, "c 5 6"])
    with pytest.raises(DataError, match=f"g.txt, line 3: {required}") as refused:
        read_vectors(path, ["a", "c"])
    _said, hint = str(refused.value).splitlines()
    assert "type dataset.glove=FILE" in hint


@pytest.mark.parametrize("first", ["400000 300", "the", "the x y", "\ufeff", "the nan 1", "PK\x03\x04 \x00"])
def test_what_is_no_glove_file_is_refused_at_its_first_line(tmp_path: Path, first: str) -> None:
    path = glove_file(tmp_path / "g.txt", [first, "the 1 2"])
    with pytest.raises(DataError, match="line 1: a token and the numbers of its vector"):
        read_vectors(path, ["the"])
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="line 1"):
        read_vectors(tmp_path / "empty.txt", ["the"])


def test_a_word_is_looked_up_as_it_stands_then_lower_cased(tmp_path: Path) -> None:
    path = glove_file(tmp_path / "g.txt", ["us 1 1", "US 2 2", "paris 3 3", "Rome 4 4", "sp 9 9"])
    vectors, report = embed_words([["US", "us", "Us"], ["Paris", "rome"], [PAUSE, "rome"]], path)
    assert vectors.values[:, 0].tolist() == [2, 1, 1, 3, 0, 0, 0]
    assert vectors.offsets.tolist() == [0, 3, 5, 7] and vectors.values.dtype == np.float32
    assert report == {
        "tokens": 6,
        "tokens_found": 4,
        "types": 5,
        "types_found": 4,
        "most_frequent_absent": [("rome", 2)],
    }
    with pytest.raises(DataError, match="none of the 1 words"):
        embed_words([["rome"]], path)


def test_text_features_become_the_vectors_of_the_words(
    source: Path, stores: Path, glove: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Tiny(str(source), glove=str(glove)).prepare(stores)
    assert capsys.readouterr().err == f"Preparing tiny from source (text, audio, visual) in {stores}\n"
    assert list(store.features) == ["text", "audio", "visual"]
    assert store.words == [["very", "good"], ["not", "bad"]] * 3
    np.testing.assert_array_equal(
        store.features["text"].values[:4], np.array([*VECTORS.values(), [0, 0, 0]], np.float32)
    )
    assert store.report["glove"]["tokens_found"] == 9 and store.report["files"]["glove"] == glove.name
    lines = describe(store, {})
    assert "word vectors of glove.3d.txt: 9 of 12 words (75.0%), 3 of 4 different ones (75.0%)" in lines
    assert "most frequent without: bad 3" in lines
    assert len(lines) <= 14
    assert Data(store, ["text", "audio"]).aligned


def test_pauses_that_are_kept_get_no_vector(source: Path, stores: Path, glove: Path) -> None:
    with open(glove, "a") as file:
        file.write("sp 1 1 1\n")
    store = Tiny(str(source), keep_pauses=True, glove=str(glove)).prepare(stores)
    assert store.words is not None and store.words[0] == ["very", PAUSE, "good"]
    assert not store.features["text"][0][1].any() and store.report["glove"]["tokens"] == 12


def test_the_source_need_not_have_text_features_and_its_own_are_not_read(
    source: Path, stores: Path, glove: Path
) -> None:
    store = Tiny(str(source), glove=str(glove)).prepare(stores)
    (source / "TINY_Vectors.csd").write_bytes(b"damaged")
    assert Tiny(str(source), glove=str(glove)).prepare(stores).path == store.path
    assert set(store.sources) == {"words", "audio", "visual", "labels", "glove"}


def test_the_files_content_makes_the_store_and_its_name_alone_finds_it_again(
    source: Path, stores: Path, glove: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text: dict[str, Video] = tiny_sequences()["text"]
    write_corpus(source, {"text": text})
    own = Tiny(str(source)).prepare(stores)
    store = Tiny(str(source), glove=str(glove)).prepare(stores)
    other = glove_file(tmp_path / "other.txt", ["good 1 2"])
    second = Tiny(str(source), glove=str(other)).prepare(stores)
    assert len({own.fingerprint, store.fingerprint, second.fingerprint}) == 3
    with monkeypatch.context() as patched:
        patched.setattr("mmsa.data.prepare._sha256", lambda *_: pytest.fail("a known file is hashed again"))
        patched.setattr("mmsa.dataset.dataset.embed_words", lambda *_: pytest.fail("the vectors are read again"))
        assert Tiny(glove=str(glove)).prepare(stores).path == store.path
        assert Tiny(glove=str(other)).prepare(stores).path == second.path
        assert Tiny().prepare(stores).path == own.path
        assert Tiny(str(source), glove=str(glove)).prepare(stores).path == store.path
    moved = glove.rename(tmp_path / "moved.txt")
    assert Tiny(glove=str(moved)).prepare(stores).path == store.path
    glove_file(glove, ["good 5 6"])
    with pytest.raises(DataError, match=r"No prepared Tiny[\s\S]*mmsa prepare tiny --source FOLDER --glove"):
        Tiny(glove=str(glove)).prepare(stores)


def test_words_of_no_known_step_and_files_that_are_not_there_are_refused(
    source: Path, stores: Path, glove: Path, tmp_path: Path
) -> None:
    pickled = write(tmp_path, content())
    with pytest.raises(DataError, match=r"is a pickle[\s\S]*type dataset.glove=null, or dataset.source=FOLDER"):
        Tiny(str(pickled), glove=str(glove)).prepare(stores)
    for place in (str(source), None):
        stores.mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"dataset.glove=nowhere.txt: no such file"):
            Tiny(place, glove="nowhere.txt").prepare(stores)
    with pytest.raises(ConfigError, match=r"dataset.glove: not an option of the chosen dataset, but of .*cmu_mosi"):
        compose(["dataset.glove=glove.txt"])


def test_trained_vectors_may_be_those_of_glove(source: Path, stores: Path, glove: Path) -> None:
    store = Tiny(str(source), glove=str(glove)).prepare(stores)
    table = Data(store, ["text"], Loading("none", word_vectors="trained")).tables["text"]
    batch = Data(store, ["text"], Loading("none", word_vectors="trained")).fold("test").batch(np.arange(2))
    assert table[batch.features["text"]].reshape(4, 3).tolist() == [
        *torch.tensor(list(VECTORS.values())).tolist(),
        [0, 0, 0],
    ]


def test_the_command_sets_the_file_and_prints_what_was_found_and_what_to_type(
    stores: Path, glove: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = mosi_folder(tmp_path / "mosi", without="text")
    cli.command(["prepare", "cmu_mosi", "--source", str(source), "--glove", str(glove), "--data", str(stores)])
    printed = capsys.readouterr().out.splitlines()
    assert sum("word vectors of glove.3d.txt: 9 of 12 words (75.0%)" in line for line in printed) == 1
    typed = shlex.split(printed[-1].partition("train on it: ")[2])
    cfg = compose(typed[2:])
    parts.check_node(cfg, "dataset")
    dataset = build.build_dataset(cfg)
    assert (dataset.glove, dataset.source) == (str(glove), str(source))
    assert dataset.prepare(stores).path == next(stores.glob("*.h5"))


@pytest.fixture
def mosi_vectors(csd_folder: Path, tmp_path: Path) -> Callable[[Store], Path]:
    """Writes a GloVe file of the vectors that a store holds."""

    def written(store: Store) -> Path:
        said = [word for words in store.words or [] for word in words]
        vector_of = dict(zip(said, store.features["text"].values, strict=True))
        lines = [f"{word} {' '.join(str(v) for v in vector)}" for word, vector in vector_of.items() if vector.any()]
        return glove_file(tmp_path / "real.txt", lines)

    return written


def test_the_shared_folders_vectors_come_back_from_a_glove_file(
    csd_folder: Path, stores: Path, mosi_vectors: Callable[[Store], Path]
) -> None:
    own = CmuMosi(str(csd_folder)).prepare(stores, progress=False)
    again = CmuMosi(str(csd_folder), glove=str(mosi_vectors(own))).prepare(stores, progress=False)
    assert again.words == own.words and again.features["text"].width == 300
    np.testing.assert_array_equal(again.features["text"].values, own.features["text"].values)
    assert 0.9 < again.report["glove"]["tokens_found"] / again.report["glove"]["tokens"] < 1.0
