"""A tiny corpus as computational sequences, and a folder for its stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.corpora import tiny_sequences, write_corpus


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "source", tiny_sequences())
    return tmp_path / "source"


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    return tmp_path / "stores"
