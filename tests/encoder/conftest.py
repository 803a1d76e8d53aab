"""The tiny BERT that the tests of the text encoders share."""

from __future__ import annotations

import pytest

from tests.encoder import tiny


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny random BERT with its tokenizer."""
    return tiny.save_bert(tmp_path_factory.mktemp("bert"))
