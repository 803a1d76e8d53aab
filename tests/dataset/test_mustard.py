"""MUStARD: MultiBench's pickle trains, and says so where another file is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmsa
from mmsa.data.store import FOLDS
from mmsa.dataset.mustard import Mustard
from mmsa.doctor.examination import examine
from mmsa.errors import ConfigError, DataError
from tests.readers.pickles import left_padded, write


def sarcasm(folder: Path, ids: dict[str, list[str]] | None = None) -> Path:
    content = left_padded(
        ids or {fold: [f"{k}_60" for k in range(3 * place, 3 * place + 3)] for place, fold in enumerate(FOLDS)}
    )
    for part in content.values():
        part["labels"] = np.array([1, 0, 1]).reshape(3, 1)
    return write(folder / "sarcasm.pkl", content)


def test_its_pickle_is_prepared_and_classified(tmp_path: Path, small: list[str]) -> None:
    source = sarcasm(tmp_path)
    store = Mustard(str(source)).prepare(tmp_path / "stores")
    assert store.targets["sarcasm"].tolist() == [1.0, 0.0, 1.0] * 3
    assert store.report["canonical"] == {"test": 138}
    run = [*small, "dataset=mustard", f"dataset.source={source}", "dataset.doctor=warn"]
    result = mmsa.run([*run, "task=classification"], quiet=True)
    assert 0 <= result.metrics["test/accuracy"] <= 1
    assert len(result.predictions["test"]) == 3


def test_what_is_not_its_pickle_is_refused_with_what_to_type(tmp_path: Path) -> None:
    humor = sarcasm(tmp_path, {fold: [str(3 * place + k) for k in range(3)] for place, fold in enumerate(FOLDS)})
    with pytest.raises(DataError, match=r"labels of humor.*those of MUStARD are of sarcasm.\n  type dataset=ur_funny"):
        Mustard(str(humor)).prepare(tmp_path / "stores")
    with pytest.raises(DataError, match=r"is a folder without a known file. Did you mean dataset.source="):
        Mustard(str(tmp_path)).prepare(tmp_path / "stores")
    with pytest.raises(DataError, match=r"mmsa prepare mustard --source FILE"):
        Mustard().prepare(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"MUStARD has none.\n  type dataset.feature_sets={}"):
        Mustard(feature_sets={"visual": "OpenFace"})


def test_shows_in_every_fold_are_no_videos_that_leak(tmp_path: Path) -> None:
    source = sarcasm(
        tmp_path, {fold: [f"{show}_{60 + place}" for show in (1, 2, 3)] for place, fold in enumerate(FOLDS)}
    )
    store = Mustard(str(source)).prepare(tmp_path / "stores")
    assert "1_60[0]" in store.ids
    codes = {finding.code: finding.severity for finding in examine(store, Mustard(str(source))).findings}
    assert "video_leakage" not in codes and codes["ids_without_video"] == "note"
