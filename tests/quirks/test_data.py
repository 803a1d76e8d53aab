"""Data without the originals' faults; docs/quirks.md says which fault each test would show."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsa.build import build_dataset
from mmsa.compose import compose
from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.errors import DataError
from tests.data.test_batches import prepared, store_of
from tests.dataset.corpora import Tiny, tiny_sequences, write_corpus


def test_a_data_set_is_named_never_guessed_from_a_path(tmp_path: Path) -> None:
    """A folder called mosi on the way to MOSEI turns it into MOSI in the original."""
    folder = tmp_path / "cmu-mosi" / "mosi" / "files"
    folder.mkdir(parents=True)
    dataset = build_dataset(compose(["dataset=cmu_mosei", f"dataset.source={folder}"]))
    assert isinstance(dataset, CmuMosei)
    with pytest.raises(DataError, match="CMU-MOSEI"):
        dataset.prepare(tmp_path / "stores", progress=False)
    write_corpus(folder, tiny_sequences())
    assert Tiny(str(folder)).prepare(tmp_path / "stores", progress=False).dataset == "tiny"


def test_preparing_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "source", tiny_sequences())
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network is asked for something"))
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("the network is asked for something"))
    assert len(Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False).ids) == 6
    (tmp_path / "source" / "TINY_Visual.csd").unlink()
    with pytest.raises(DataError, match="lacks visual"):
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)


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
