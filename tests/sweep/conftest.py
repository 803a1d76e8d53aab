"""What the tests of sweeps share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Locks of the test's own: slots are shared by all sweeps of a user."""
    folder = tmp_path_factory.mktemp("locks")
    monkeypatch.setenv("MMSA_LOCKS", str(folder))
    yield folder
