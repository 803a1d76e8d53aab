"""A trained run is loaded from wherever its folder and its store are today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import mmsa
from mmsa import cli
from mmsa.data.ragged import Ragged
from mmsa.data.store import Prepared, write_store
from mmsa.errors import DataError
from tests.test_former import WRITTEN

STORE = "former-a16450e13cdd.h5"


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """A run whose folder was moved with the outputs: the places that its texts name are on no disk."""
    shutil.copytree(WRITTEN / "outputs", tmp_path / "moved")
    return tmp_path / "moved" / "runs" / "whole"


def is_as_recorded(folder: Path, data: Path | None = None) -> bool:
    recorded = json.loads((folder / "result.json").read_text())["metrics"]
    metrics, _ = mmsa.load(folder, data).evaluate("test")
    return metrics == pytest.approx({name: recorded[f"test/{name}"] for name in metrics}, nan_ok=True, abs=1e-6)


def test_the_store_of_a_moved_run_is_found_beside_it(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_as_recorded(moved)
    shown = repr(mmsa.load(moved))
    assert f" parameters, folder={str(moved)!r})" in shown and len(shown) < 60 + len(str(moved))
    cli.command(["evaluate", str(moved)])
    assert "differs" not in capsys.readouterr().out


def test_a_store_elsewhere_is_found_in_todays_folder_of_stores_or_is_named(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (moved.parents[1] / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"No store a16450e13cdd.*\n  type .*--data FOLDER"):
        mmsa.load(moved)
    assert is_as_recorded(moved, tmp_path / "elsewhere")
    cli.command(["evaluate", str(moved), "--data", str(tmp_path / "elsewhere")])
    assert "differs" not in capsys.readouterr().out
    monkeypatch.setenv("MMSA_DATA", str(tmp_path / "elsewhere"))
    assert is_as_recorded(moved)


def test_another_store_under_its_name_and_a_damaged_one_are_passed_over(moved: Path, tmp_path: Path) -> None:
    beside, elsewhere = moved.parents[1] / "data", tmp_path / "elsewhere"
    shutil.copytree(beside, elsewhere)
    targets, features = {"sentiment": np.zeros(1, "f4")}, {"text": Ragged.join([np.zeros((1, 1), "f4")])}
    other = Prepared(["v[0]"], ["v"], ["train"], targets, features)
    write_store(beside / STORE, other, dataset="former", sources={}, options={})
    assert is_as_recorded(moved, elsewhere)
    with pytest.raises(DataError, match="No store a16450e13cdd"):
        mmsa.load(moved)
    (beside / STORE).write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        mmsa.load(moved)
    (beside / STORE).rename(elsewhere / f"a-{STORE}")  # which comes first
    assert is_as_recorded(moved, elsewhere)
