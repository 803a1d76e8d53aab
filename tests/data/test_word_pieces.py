"""Words as pieces or as ids: nothing moves, nothing is lost, and each step keeps its word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.data.store import PAUSE, Store
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.errors import ConfigError, DataError
from mmsa.types import Pieces
from tests.data.test_batches import prepared, store_of
from tests.dataset.corpora import Tiny, tiny_sequences, write_corpus

START, END = 1, 2


class Characters:
    """A piece per character between a start and an end; cut after `most` pieces, if that is given."""

    pad_id = 7

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.calls = 0

    def __call__(self, utterances: Sequence[Sequence[str]]) -> list[Pieces]:
        self.calls += 1
        return [self._split(words) for words in utterances]

    def _split(self, words: Sequence[str]) -> Pieces:
        pairs = [(ord(sign), k) for k, word in enumerate(words) for sign in word][: self.most]
        ids, owners = zip((START, -1), *pairs, (END, -1), strict=True)
        return Pieces(np.array(ids), np.array(owners))


def worded(path: Path, aligned: bool = True, pause: bool = False) -> Store:
    """A store with a word per step of its text; row 3 has no word, and audio of its own steps where not aligned."""
    rows = prepared(aligned=aligned)
    random = np.random.default_rng(1)
    said = [
        ["".join(random.choice(list("abc"), random.integers(1, 5))) for _ in text] for text in rows.features["text"]
    ]
    if pause:
        said[0][0] = PAUSE
    else:
        said[3] = []
    rows.words = said
    return store_of(path, rows)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return worded(tmp_path / "worded.h5")


def words_in(batch_pieces: torch.Tensor, ids: torch.Tensor, row: int, count: int) -> list[str]:
    """The words that the pieces of one utterance spell."""
    return ["".join(chr(piece) for piece in ids[row][batch_pieces[row, k]].tolist()) for k in range(count)]


def test_the_pieces_of_a_word_spell_it_and_the_rest_is_padding(store: Store) -> None:
    data = Data(store, ["audio", "text"], tokenizers={"text": Characters()})
    assert data.modalities == ("audio", "text") and list(data.widths) == ["audio", "text"] and data.tables == {}
    for name in ("train", "test"):
        fold = data.fold(name)
        row_of = {row_id: row for row, row_id in enumerate(store.ids)}
        for batch in fold.shuffled(7, torch.Generator().manual_seed(0)):
            ids, pieces, lengths = batch.features["text"], batch.pieces["text"], batch.lengths["text"]
            assert (ids.dtype, pieces.dtype, lengths.dtype) == (torch.int64, torch.bool, torch.int64)
            assert list(batch.pieces) == ["text"]
            assert pieces.shape == (len(batch.ids), batch.features["audio"].shape[1], ids.shape[1])
            for row, row_id in enumerate(batch.ids):
                said = store.words[row_of[row_id]]  # type: ignore[index]
                assert lengths[row] == len(said)
                assert words_in(pieces, ids, row, len(said)) == said
                assert not pieces[row, len(said) :].any()
                used = sum(map(len, said)) + 2
                assert ids[row, 0] == START and ids[row, used - 1] == END and (ids[row, used:] == 7).all()
                assert not pieces[row, :, [0, *range(used - 1, ids.shape[1])]].any()


def test_a_fold_is_tokenised_once(store: Store) -> None:
    tokenizer = Characters()
    data = Data(store, ["text"], tokenizers={"text": tokenizer})
    assert tokenizer.calls == 0
    fold = data.fold("train")
    for _ in range(2):
        assert len(list(fold.batches(8))) == 5
    assert tokenizer.calls == 1


def test_words_beyond_what_the_tokenizer_kept_have_no_pieces(store: Store) -> None:
    folds = [Data(store, ["text"], tokenizers={"text": Characters(most)}).fold("train") for most in (None, 5)]
    whole, cut = (fold.batch(np.arange(6)) for fold in folds)
    longer = sum(sum(map(len, words[:-1])) >= 5 for words in store.words[:40] if words)  # type: ignore[index]
    assert [fold.num_cut for fold in folds] == [{"text": 0}, {"text": longer}] and longer
    assert torch.equal(whole.lengths["text"], cut.lengths["text"])
    assert cut.features["text"].shape[1] == 5 + 2
    assert cut.pieces["text"].shape[1] == whole.pieces["text"].shape[1]
    assert cut.pieces["text"].any(dim=2).sum(dim=1).max() <= 5 < cut.lengths["text"].max()
    kept = cut.pieces["text"].any(dim=2)
    assert (kept[:, :-1] >= kept[:, 1:]).all(), "words are lost at the end"


def test_an_utterance_without_words_is_absent_and_may_be_alone(store: Store) -> None:
    batch = Data(store, ["text"], tokenizers={"text": Characters()}).fold("train").batch(np.array([3]))
    assert batch.lengths["text"].tolist() == [0]
    assert batch.features["text"].tolist() == [[START, END]] and batch.pieces["text"].shape == (1, 1, 2)


def test_pauses_have_no_pieces(tmp_path: Path) -> None:
    store = worded(tmp_path / "paused.h5", pause=True)
    batch = Data(store, ["text"], tokenizers={"text": Characters()}).fold("train").batch(np.arange(1))
    said = store.words[0]  # type: ignore[index]
    assert batch.lengths["text"].item() == len(said) > 1
    ended = worded(tmp_path / "ended.h5")
    ended.words[0][-1] = PAUSE  # type: ignore[index]
    assert Data(ended, ["text"], tokenizers={"text": Characters()}).fold("train").num_cut == {"text": 0}
    assert words_in(batch.pieces["text"], batch.features["text"], 0, len(said)) == ["", *said[1:]]


def test_alignment_is_that_of_the_words(tmp_path: Path, store: Store) -> None:
    tokenizers = {"text": Characters()}
    assert Data(store, ["text", "audio"], tokenizers=tokenizers).aligned
    fewer = replace(store, words=[words[:-1] for words in store.words or []])
    assert Data(fewer, ["text", "audio"]).aligned and Data(fewer, ["text"], tokenizers=tokenizers).aligned
    assert not Data(fewer, ["text", "audio"], tokenizers=tokenizers).aligned
    free = worded(tmp_path / "free.h5", aligned=False)
    assert not Data(free, ["text", "audio"], tokenizers=tokenizers).aligned
    batch = Data(free, ["text", "audio"], tokenizers=tokenizers).fold("train").batch(np.arange(8))
    assert batch.pieces["text"].shape[1] == batch.lengths["text"].max()
    assert batch.features["audio"].shape[1] == batch.lengths["audio"].max()


def test_bucketing_and_steps_follow_the_words(store: Store) -> None:
    fold = Data(store, ["text"], tokenizers={"text": Characters()}).fold("train")
    counts = [len(words) for words in store.words or []][: len(fold)]
    assert fold.steps.tolist() == fold.lengths["text"].tolist() == counts
    lengths = [n for batch in fold.batches(4) for n in batch.lengths["text"].tolist()]
    assert lengths == sorted(counts)


def test_the_baselines_read_vectors_where_there_are_any(store: Store) -> None:
    tokenizers = {"text": Characters()}
    plain = Data(store, ["text", "audio"]).fold("train").pooled()
    both = Data(store, ["text", "audio"], tokenizers=tokenizers).fold("train").pooled()
    assert list(both) == list(plain) == ["text", "audio"]
    assert all(np.array_equal(both[m], plain[m], equal_nan=True) for m in plain)
    bare = replace(store, features={"audio": store.features["audio"]})
    data = Data(bare, ["text", "audio"], tokenizers=tokenizers)
    assert list(data.fold("train").pooled()) == ["audio"] and data.aligned
    only = Data(replace(store, features={}), ["text"], tokenizers=tokenizers).fold("train")
    assert only.pooled() == {} and len(list(only.batches(8))) == 5


def test_without_words_pieces_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match=r"encoder/text reads words[\s\S]*type encoder/text=bilstm, or dataset.source"):
        Data(replace(store, words=None), ["text"], tokenizers={"text": Characters()})


@pytest.mark.parametrize("normalize", ["train", "none"])
def test_looked_up_trained_vectors_are_the_fixed_ones(tmp_path: Path, normalize: str) -> None:
    rows = prepared()
    random = np.random.default_rng(2)
    vectors = {f"w{k}": random.normal(3.0, 2.0, 4).astype(np.float32) for k in range(40)} | {"w0": np.zeros(4)}
    rows.words = [[f"w{random.integers(40)}" for _ in text] for text in rows.features["text"]]
    rows.features["text"].values[:] = [vectors[word] for words in rows.words for word in words]
    store = store_of(tmp_path / "vectors.h5", rows)
    loads = (Loading(normalize, word_vectors=how) for how in ("fixed", "trained"))  # type: ignore[arg-type]
    fixed, trained = (Data(store, ["text", "audio"], loading) for loading in loads)
    table = trained.tables["text"]
    assert table.shape == (41, 4) and table.dtype == torch.float32 and not table[0].any()
    assert trained.widths == fixed.widths and trained.aligned and fixed.tables == {}
    for name in ("train", "valid", "test"):
        ours, theirs = trained.fold(name), fixed.fold(name)
        assert all(np.array_equal(ours.pooled()[m], theirs.pooled()[m], equal_nan=True) for m in ours.pooled())
        for looked_up, given in zip(ours.batches(8), theirs.batches(8), strict=True):
            ids = looked_up.features["text"]
            assert ids.dtype == torch.int64 and looked_up.pieces == {}
            assert torch.equal(table[ids], given.features["text"])
            assert torch.equal(looked_up.features["audio"], given.features["audio"])
            assert torch.equal(ids > 0, torch.arange(ids.shape[1])[None] < looked_up.lengths["text"][:, None])


def test_a_words_vector_is_that_of_its_first_occurrence_that_has_one(tmp_path: Path) -> None:
    rows = prepared()
    rows.words = [["same"] * len(text) for text in rows.features["text"]]
    rows.features["text"].values[0] = 0.0
    store = store_of(tmp_path / "same.h5", rows)
    table = Data(store, ["text"], Loading("none", word_vectors="trained")).tables["text"]
    assert np.array_equal(table[1].numpy(), rows.features["text"].values[1])


def test_trained_vectors_need_a_word_per_step_text_and_one_vector_per_word(store: Store) -> None:
    for words, held in ((None, "no words"), ([["one"]] * len(store.ids), "not one per step")):
        with pytest.raises(DataError, match=rf"{held}[\s\S]*type dataset.word_vectors=fixed"):
            Data(replace(store, words=words), ["text"], Loading(word_vectors="trained"))
    with pytest.raises(ConfigError, match=r"dataset.normalize=\{text: none\}"):
        Tiny(loading=Loading("utterance", word_vectors="trained"))
    with pytest.raises(ConfigError, match=r"dataset.modalities has none"):
        Tiny(modalities=["audio"], loading=Loading(word_vectors="trained"))
    with pytest.raises(ConfigError, match=r"choose fixed or trained"):
        Tiny(loading=Loading(word_vectors="frozen"))  # type: ignore[arg-type]
    Tiny(loading=Loading({"audio": "utterance"}, word_vectors="trained"))


def test_text_that_is_read_from_the_words_needs_no_vectors_in_the_source(tmp_path: Path) -> None:
    source, stores = tmp_path / "source", tmp_path / "stores"
    sequences = tiny_sequences()
    del sequences["text"]
    write_corpus(source, sequences)
    with pytest.raises(DataError, match=r"lacks text: .*dataset.glove=FILE.*dataset.modalities=\[audio,visual\]"):
        Tiny(str(source)).prepare(stores)
    store = Tiny(str(source)).reading_words(["text"]).prepare(stores)
    assert list(store.features) == ["audio", "visual"]
    assert Tiny().reading_words({"text": Characters()}).prepare(stores).path == store.path
    with pytest.raises(DataError, match=r"Go without: dataset.modalities=\[audio,visual\]"):
        Tiny().prepare(stores)
    batch = Data(store, ["text", "audio"], tokenizers={"text": Characters()}).fold("train").batch(np.arange(2))
    assert words_in(batch.pieces["text"], batch.features["text"], 0, 2) == ["very", "good"]
    (source / "TINY_Visual.csd").unlink()
    with pytest.raises(DataError, match=r"lacks visual: TINY_Visual.csd.*dataset.modalities=\[text,audio\]"):
        Tiny(str(source)).reading_words(["text"]).prepare(stores)


def test_the_shared_folder_in_pieces_and_with_trained_vectors(csd_folder: Path, tmp_path: Path) -> None:
    store = CmuMosi(str(csd_folder)).prepare(tmp_path / "stores", progress=False)
    modalities = ["text", "audio", "visual"]
    data = Data(store, modalities, tokenizers={"text": Characters()})
    assert data.aligned
    fold = data.fold("valid")
    said = dict(zip(store.ids, store.words or [], strict=True))
    batch = fold.batch(np.arange(20))
    for row, row_id in enumerate(batch.ids):
        spelled = words_in(batch.pieces["text"], batch.features["text"], row, len(said[row_id]))
        assert spelled == said[row_id]
    trained = Data(store, modalities, Loading(word_vectors="trained"))
    assert trained.tables["text"].shape == (len({word for words in said.values() for word in words}) + 1, 300)
    looked_up = trained.tables["text"][trained.fold("valid").batch(np.arange(20)).features["text"]]
    assert torch.equal(looked_up, Data(store, modalities).fold("valid").batch(np.arange(20)).features["text"])
