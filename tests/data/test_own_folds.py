"""Own folds: parts by video, equal for every run, and no leak between them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.data.own_folds import own_folds, own_folds_lines, parts_of
from mmsa.data.ragged import Ragged
from mmsa.data.store import FOLDS, Prepared, Store, write_store
from mmsa.errors import ConfigError, DataError

SIZES = {"a": 9, "b": 1, "c": 4, "d": 4, "e": 6, "f": 2, "g": 1, "h": 1, "i": 5, "j": 3}
VIDEOS = [video for video, size in SIZES.items() for _ in range(size)]


def prepared(order: np.ndarray, seed: int = 0) -> Prepared:
    """A store's content with random features of random lengths, whose folds are those of the source."""
    rng = np.random.default_rng(seed)
    num = len(VIDEOS)
    steps = [rng.normal(5, 2, (rng.integers(1, 6), 3)).astype(np.float32) for _ in range(num)]
    return Prepared(
        [f"{VIDEOS[row]}[{row}]" for row in order],
        [VIDEOS[row] for row in order],
        [FOLDS[min(2, place * 3 // num)] for place in range(num)],
        {"sentiment": rng.normal(size=num).astype(np.float32)[order]},
        {"text": Ragged.join([steps[row] for row in order])},
        [[f"w{row}"] * len(steps[row]) for row in order],
        {"canonical": {"train": 12}},
    )


def store_of(path: Path, content: Prepared) -> Store:
    write_store(path, content, dataset="made", sources={}, options={})
    return Store.open(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "made.h5", prepared(np.arange(len(VIDEOS))))


def ids_of(store: Store, fold: str) -> set[str]:
    return {name for name, of in zip(store.ids, store.folds, strict=True) if of == fold}


def test_every_utterance_is_tested_once_validates_once_and_no_video_is_split(store: Store) -> None:
    views = [own_folds(store, 4, held_out) for held_out in range(4)]
    for fold in ("test", "valid"):
        assert Counter(name for view in views for name in ids_of(view, fold)) == Counter(store.ids)
    for held_out, view in enumerate(views):
        assert ids_of(view, "valid") == ids_of(views[(held_out + 1) % 4], "test")
        fold_of = dict(zip(view.videos, view.folds, strict=True))
        assert [fold_of[video] for video in view.videos] == view.folds.tolist() and set(view.folds) == set(FOLDS)
        assert "canonical" not in view.report, "sizes of other folds"
    assert max(map(len, (ids_of(v, "test") for v in views))) <= min(map(len, (ids_of(v, "test") for v in views))) + 1
    assert store.parts is None and store.folds.tolist() == prepared(np.arange(len(VIDEOS))).folds and store.report


def test_the_parts_are_those_of_the_videos_alone(tmp_path: Path, store: Store) -> None:
    order = np.random.default_rng(1).permutation(len(VIDEOS))
    other = store_of(tmp_path / "other.h5", prepared(order, seed=3))
    for held_out in range(3):
        ours, theirs = (own_folds(one, 3, held_out) for one in (store, other))
        assert all(ids_of(ours, fold) == ids_of(theirs, fold) for fold in FOLDS) and ours.parts == theirs.parts
    hashes = {str(own_folds(store, num, held_out).parts) for num in (3, 4) for held_out in (0, 1)}
    assert len(hashes) == 4
    assert len({own_folds(store, num, held_out).parts.hash for num in (3, 4) for held_out in (0, 1)}) == 2  # type: ignore[union-attr]


def test_the_parts_are_the_same_in_every_version() -> None:
    """Runs of years share a table: whoever changes this, changes the name of the option too."""
    assert parts_of(VIDEOS, 3) == dict.fromkeys("aj", 0) | dict.fromkeys("ecbh", 1) | dict.fromkeys("idfg", 2)


@pytest.mark.parametrize("word_vectors", ["fixed", "trained"])
def test_nothing_of_the_other_folds_is_in_the_train_fold(tmp_path: Path, store: Store, word_vectors: str) -> None:
    """Features and labels of the test and validation parts may be anything: the train fold has equal bits."""
    spoiled = prepared(np.arange(len(VIDEOS)))
    elsewhere = own_folds(store, 3, 1).folds != "train"
    spoiled.features["text"].values[np.repeat(elsewhere, spoiled.features["text"].lengths)] += 1000
    spoiled.targets["sentiment"][elsewhere] += 7
    loading = Loading(num_folds=3, held_out=1, word_vectors=word_vectors)  # type: ignore[arg-type]
    ours, theirs = (Data(one, ["text"], loading) for one in (store, store_of(tmp_path / "spoiled.h5", spoiled)))
    batches = zip(*(data.fold("train").shuffled(4, torch.Generator().manual_seed(0)) for data in (ours, theirs)),
                  strict=True)  # fmt: skip
    for first, second in batches:
        read = [b.features["text"] for b in (first, second)]
        if word_vectors == "trained":
            read = [d.tables["text"][b.long()] for d, b in zip((ours, theirs), read, strict=True)]
        assert first.ids == second.ids and torch.equal(*read)
        assert torch.equal(first.targets["sentiment"], second.targets["sentiment"])
    assert not np.array_equal(*(data.fold("test").targets["sentiment"] for data in (ours, theirs)))
    assert np.array_equal(*(data.fold("train").pooled()["text"] for data in (ours, theirs)))
    plain = Data(store, ["text"]).fold("train")
    assert set(plain.ids) != set(ours.fold("train").ids), "the folds of the source are others"


def test_one_option_without_the_other_and_out_of_its_range_is_refused() -> None:
    def refusal(num_folds: int | None, held_out: int | None) -> str:
        with pytest.raises(ConfigError) as refused:
            Loading(num_folds=num_folds, held_out=held_out).check(["text"], ["text"])
        return str(refused.value)

    assert "type dataset.held_out=0, or -m dataset.held_out=0,1,2,3,4 for a run of each" in refusal(5, None)
    assert "needs the part that is the test fold, 0 to 4, not 5." in refusal(5, 5) and "not -1" in refusal(5, -1)
    assert "-m dataset.held_out='range(0,12)'" in refusal(12, None)
    assert "type dataset.num_folds=5 beside it, or dataset.held_out=null" in refusal(None, 2)
    assert "type dataset.num_folds=8 beside it" in refusal(None, 7)
    assert "dataset.num_folds=2: 3 parts or more are needed" in refusal(2, 0)
    for held_out in range(3):
        Loading(num_folds=3, held_out=held_out).check(["text"], ["text"])


def test_fewer_videos_than_parts_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match=r"num_folds=11 needs a video for each part, .* has 10\.\n.*num_folds=10"):
        own_folds(store, 11, 0)
    assert set(own_folds(store, 10, 9).folds) == set(FOLDS)
    with pytest.raises(DataError, match=r"has 2\.\n  leave dataset\.num_folds out"):
        own_folds(replace(store, videos=["a", *["b"] * (len(VIDEOS) - 1)]), 3, 0)


def test_a_line_names_the_parts_and_utterances_without_a_video(store: Store) -> None:
    view = own_folds(store, 5, 4)
    assert view.parts is not None and own_folds_lines(store) == []
    assert own_folds_lines(view) == [
        f"own folds by video: of parts 0 to 4, 4 is the test fold and 0 validates (parts {view.parts.hash})"
    ]
    alone = own_folds(replace(store, videos=store.ids), 5, 4)
    partly = own_folds(replace(store, report={"ids": {"own_video": 2, "absent": 1}}), 5, 4)
    for number, odd in ((len(VIDEOS), alone), (3, partly)):
        _, line = own_folds_lines(odd)
        assert (
            line.startswith(f"{number} utterances are videos of their own") and "one speaker may be in several" in line
        )
