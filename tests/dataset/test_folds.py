"""The standard folds, without the noise of the package that lists them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.folds import standard_folds
from mmsa.errors import DataError


def test_the_folds_have_the_published_sizes() -> None:
    mosi, mosei = CmuMosi().fold_of(Path()), CmuMosei().fold_of(Path())
    assert [list(mosi.values()).count(fold) for fold in ("train", "valid", "test")] == [52, 10, 31]
    assert [list(mosei.values()).count(fold) for fold in ("train", "valid", "test")] == [2249, 300, 678]
    assert "-NFrJFQijFE" not in mosei


def test_lists_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="52 videos in the train fold"):
        standard_folds("CMU_MOSI", {"train": 51, "valid": 10, "test": 31})


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install cmu-multimodal-sdk"):
        standard_folds("CMU_MOSI", {"train": 52, "valid": 10, "test": 31})


def test_reading_them_prints_nothing_and_imports_neither_the_package_nor_torch() -> None:
    program = """
import sys
from pathlib import Path
from mmsa.dataset.cmu_mosi import CmuMosi
CmuMosi().fold_of(Path())
assert not {"torch", "mmsdk"} & set(sys.modules), "imported"
"""
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
