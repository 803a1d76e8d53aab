"""Batches that are gathered on a device are those of the host, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmsa.data.batches import Data, Fold
from mmsa.data.loading import Loading
from mmsa.data.resident import near, resident
from mmsa.testing.training import same
from mmsa.types import Batch
from tests.data.test_batches import prepared, store_of

CPU = torch.device("cpu")
LOADINGS = {
    "by the train fold": Loading(),
    "by utterance, cut": Loading(normalize="utterance", max_length=9),
    "as they are": Loading(normalize="none"),
    "resampled": Loading(resample="audio", max_length=9),
}


def epoch(fold: Fold) -> list[Batch]:
    return [*fold.shuffled(7, torch.Generator().manual_seed(0)), *fold.batches(7)]


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)], ids=str)
@pytest.mark.parametrize("loading", LOADINGS)
def test_a_resident_fold_has_the_batches_of_the_host(tmp_path: Path, loading: str, device: torch.device) -> None:
    store = store_of(tmp_path / "made.h5", prepared(aligned=loading != "resampled"))
    fold = Data(store, ["text", "audio"], LOADINGS[loading]).fold("train")
    there = resident(fold, device)
    for ours, theirs in zip(epoch(there), epoch(fold), strict=True):
        assert ours.ids == theirs.ids and ours.features.keys() == theirs.features.keys()
        for m, values in ours.features.items():
            assert values.device.type == device.type and same(values.cpu(), theirs.features[m])
        for field in ("lengths", "targets"):
            assert same(getattr(ours, field), getattr(theirs, field))
    assert same(there.pooled()["text"], fold.pooled()["text"])


def test_folds_go_to_a_gpu_where_half_of_its_free_memory_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(store_of(tmp_path / "made.h5", prepared()), ["text", "audio"])
    folds = data.fold("train"), data.fold("valid")
    num_bytes = 4 * sum(int(fold.lengths["text"].sum() * 4 + fold.lengths["audio"].sum() * 3) for fold in folds)
    monkeypatch.setattr("mmsa.data.resident.resident", lambda fold, device: (fold, device))
    gpu = torch.device("cuda")
    for free, moved in ((2 * num_bytes, True), (2 * num_bytes - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert near(gpu, *folds) == [(fold, gpu) if moved else fold for fold in folds]
    assert near(CPU, *folds) == list(folds)
