"""The parts of a run, built from its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsa.build import build_dataset
from mmsa.compose import compose
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.errors import DataError
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
