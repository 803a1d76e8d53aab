"""Batches: nothing is lost, nothing leaks from another fold, and padding is zeros."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa.data.batches import Data, Fold
from mmsa.data.loading import Loading
from mmsa.data.normalise import CLIP, Standardisation
from mmsa.data.ragged import Ragged
from mmsa.data.store import Prepared, Store, write_store
from mmsa.errors import DataError

WIDTHS = {"text": 4, "audio": 3}


def prepared(num: int = 60, seed: int = 0, aligned: bool = True) -> Prepared:
    """Random utterances of odd lengths: an absent modality, steps without frames, a constant column, an outlier."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 30, num)
    features = {}
    for modality, width in WIDTHS.items():
        steps = lengths if aligned else lengths + random.integers(0, 3, num)
        sequences = [random.normal(5.0, 2.0, (n, width)).astype(np.float32) for n in steps]
        if modality == "audio":
            sequences[3] = np.zeros((0, width), np.float32)
            sequences[4][0] = 0.0
            for sequence in sequences:
                sequence[:, 2] = np.where(sequence.any(axis=1), 7.0, 0.0)
            sequences[5][0, 0] = 1e6
        features[modality] = Ragged.join(sequences)
    folds = ["train"] * (num - 20) + ["valid"] * 10 + ["test"] * 10
    targets = {"sentiment": random.normal(size=num).astype(np.float32)}
    ids = [f"v{i}[0]" for i in range(num)]
    return Prepared(ids, [f"v{i}" for i in range(num)], folds, targets, features)


def store_of(path: Path, rows: Prepared) -> Store:
    write_store(path, rows, dataset="made", sources={}, options={})
    return Store.open(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "made.h5", prepared())


def content(fold: Fold, row: int) -> dict[str, np.ndarray]:
    return {m: fold.vectors[m].steps(np.array([row]))[0] for m in fold.modalities}


def test_every_utterance_comes_once_an_epoch_in_an_order_of_the_seed(store: Store) -> None:
    fold = Data(store, ["text", "audio"]).fold("train")

    def order(seed: int) -> list[int]:
        batches = fold.shuffled(8, torch.Generator().manual_seed(seed))
        return [row for batch in batches for row in batch.rows.tolist()]

    assert Counter(order(1)) == Counter(range(len(fold)))
    assert order(1) == order(1) != order(2)
    assert Counter(row for batch in fold.batches(8) for row in batch.rows.tolist()) == Counter(range(len(fold)))


def test_a_batch_is_its_utterances_and_zeros(store: Store) -> None:
    fold = Data(store, ["text", "audio"]).fold("train")
    for batch in fold.shuffled(7, torch.Generator().manual_seed(0)):
        steps = max(int(n.max()) for n in batch.lengths.values())
        for modality in WIDTHS:
            assert batch.features[modality].shape == (len(batch.ids), steps, WIDTHS[modality])
        for index, row in enumerate(batch.rows.tolist()):
            assert batch.ids[index] == fold.ids[row]
            assert batch.targets["sentiment"][index] == fold.targets["sentiment"][row]
            for modality, values in content(fold, row).items():
                length = int(batch.lengths[modality][index])
                assert length == len(values)
                assert np.array_equal(batch.features[modality][index, :length].numpy(), values)
                assert not batch.features[modality][index, length:].any()


def test_utterances_of_similar_length_travel_together(tmp_path: Path) -> None:
    fold = Data(store_of(tmp_path / "large.h5", prepared(1020)), ["text"], Loading("none")).fold("train")
    computed = sum(batch.features["text"].shape[0] * batch.features["text"].shape[1] for batch in fold.batches(32))
    shuffled = list(fold.shuffled(32, torch.Generator().manual_seed(0)))
    trained = sum(batch.features["text"].shape[0] * batch.features["text"].shape[1] for batch in shuffled)
    assert trained < 1.1 * computed < 1.2 * fold.steps.sum()
    again = list(fold.shuffled(32, torch.Generator().manual_seed(1)))
    assert {tuple(sorted(b.ids)) for b in shuffled} != {tuple(sorted(b.ids)) for b in again}, "company changes"
    many = fold.shuffled(2, torch.Generator().manual_seed(0))  # an epoch of 500 batches has larger pools
    assert sum(b.features["text"].shape[0] * b.features["text"].shape[1] for b in many) < 1.015 * fold.steps.sum()


def test_normalisation_reads_the_train_fold_only(tmp_path: Path, store: Store) -> None:
    rows = prepared()
    test = np.repeat(np.asarray(rows.folds) != "train", rows.features["text"].lengths)
    rows.features["text"].values[test] += 1000.0
    other = store_of(tmp_path / "other.h5", rows)
    ours, theirs = (Data(s, ["text"]).fold("train") for s in (store, other))
    assert all(np.array_equal(content(ours, r)["text"], content(theirs, r)["text"]) for r in range(len(ours)))
    steps = np.concatenate([content(ours, row)["text"] for row in range(len(ours))])
    assert np.allclose(steps.mean(axis=0), 0, atol=1e-3) and np.allclose(steps.std(axis=0), 1, atol=1e-2)


def test_steps_without_frames_stay_zero_constants_vanish_and_outliers_are_clipped(store: Store) -> None:
    fold = Data(store, ["audio"]).fold("train")
    assert not content(fold, 4)["audio"][0].any()
    steps = np.concatenate([content(fold, row)["audio"] for row in range(len(fold))])
    assert not steps[:, 2].any()
    assert steps.max() == CLIP
    plain = Data(store, ["audio"], Loading("none")).fold("train")
    assert np.array_equal(content(plain, 6)["audio"], store.features["audio"][6])


def test_a_modality_without_any_frame_is_zeros() -> None:
    scale = Standardisation.of(lambda: [np.zeros((5, 2), np.float32)])
    assert not scale(np.zeros((3, 2), np.float32)).any()


def test_pooled_features_leave_out_steps_without_frames(store: Store) -> None:
    fold = Data(store, ["text", "audio"]).fold("train")
    pooled = fold.pooled()
    assert np.isnan(pooled["audio"][3]).all() and not np.isnan(pooled["text"]).any()
    assert np.allclose(pooled["audio"][4], content(fold, 4)["audio"][1:].mean(axis=0), atol=1e-5)


def test_an_absent_modality_has_length_zero(store: Store) -> None:
    batch = Data(store, ["text", "audio"]).fold("train").batch(np.array([3]))
    assert batch.lengths["audio"].tolist() == [0] and batch.lengths["text"].item() > 0
    assert batch.features["audio"].shape[1] == batch.features["text"].shape[1]


def test_alignment_is_seen(tmp_path: Path, store: Store) -> None:
    assert Data(store, ["text", "audio"]).aligned
    assert not Data(store_of(tmp_path / "free.h5", prepared(aligned=False)), ["text", "audio"]).aligned


def test_what_is_not_there_is_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(DataError, match=r"no visual[\s\S]*dataset.modalities=\[text\]"):
        Data(store, ["text", "visual"])
    rows = prepared()
    rows.folds = ["train"] * len(rows.ids)
    with pytest.raises(DataError, match="valid fold"):
        Data(store_of(tmp_path / "empty.h5", rows), ["text"]).fold("valid")


def test_no_utterance_is_lost_where_two_have_one_id(tmp_path: Path) -> None:
    rows = prepared()
    rows.ids[2] = rows.ids[5] = rows.ids[0]
    fold = Data(store_of(tmp_path / "twice.h5", rows), ["text"]).fold("train")
    named = fold.by_id(range(len(fold)))
    assert list(named.values()) == list(range(40))
    assert [named[name] for name in ("v0[0]", "v0[0] (2)", "v0[0] (3)", "v1[0]")] == [0, 2, 5, 1]


@pytest.mark.parametrize("normalize", ["train", "none"])
def test_what_happens_to_a_batch_does_not_happen_to_the_data(tmp_path: Path, normalize: str) -> None:
    store = store_of(tmp_path / "made.h5", prepared())
    fold = Data(store, ["text", "audio"], Loading(normalize)).fold("train")  # type: ignore[arg-type]
    rows = np.arange(8)
    first = fold.batch(rows)
    kept = {m: x.clone() for m, x in first.features.items()}
    for tensor in (*first.features.values(), *first.lengths.values(), *first.targets.values()):
        tensor.zero_()
    again = fold.batch(rows)
    assert all(torch.equal(again.features[m], kept[m]) for m in kept)
    assert int(again.lengths["text"].min()) > 0 and again.targets["sentiment"].any()


def test_every_modality_has_its_own_lengths(tmp_path: Path) -> None:
    """The originals take the lengths of the text for all."""
    rows = prepared(aligned=False)
    fold = Data(store_of(tmp_path / "free.h5", rows), ["text", "audio"]).fold("train")
    batch = fold.batch(np.arange(len(fold)))
    assert not torch.equal(batch.lengths["text"], batch.lengths["audio"])
    for modality in ("text", "audio"):
        expected = rows.features[modality].lengths[: len(fold)]
        assert batch.lengths[modality].tolist() == expected.tolist()
        assert batch.features[modality].shape[1] == expected.max()


def test_lengths_are_those_of_the_utterances_not_of_the_padded_batch(tmp_path: Path) -> None:
    rows = prepared()
    fold = Data(store_of(tmp_path / "made.h5", rows), ["text"]).fold("train")
    for batch in fold.batches(8):
        expected = rows.features["text"].lengths[batch.rows.numpy()]
        assert batch.lengths["text"].tolist() == expected.tolist()
    assert len(set(fold.lengths["text"].tolist())) > 5


def test_blocks_of_rows_give_the_statistics_and_means_of_the_whole_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = prepared(1000)
    wide = Ragged(np.tile(rows.features["text"].values, 64), rows.features["text"].offsets)
    store = store_of(tmp_path / "made.h5", replace(rows, features={**rows.features, "text": wide}))
    whole = Data(store, ["text", "audio"])
    means = whole.fold("train").pooled()
    monkeypatch.setattr("mmsa.data.ragged._BLOCK", 1 << 14)
    tracemalloc.start()
    data = Data(store, ["text", "audio"])
    pooled = data.fold("train").pooled()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * pooled["text"].nbytes + wide.values.nbytes / 16
    for modality in WIDTHS:
        ours, theirs = data.fitted.scales[modality], whole.fitted.scales[modality]
        assert np.array_equal(ours.mean, theirs.mean) and np.array_equal(ours.factor, theirs.factor)
        assert np.array_equal(pooled[modality], means[modality], equal_nan=True)
