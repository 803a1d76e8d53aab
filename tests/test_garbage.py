from __future__ import annotations

import gc
from typing import Any

import pytest

from mmsa.garbage import uncollected


def test_the_collector_looks_at_nothing_that_imports_make() -> None:
    passes: list[str] = []

    def note(phase: str, information: dict[str, Any]) -> None:
        passes.append(phase)

    gc.callbacks.append(note)
    try:
        with uncollected():
            made = [[number] for number in range(10 * gc.get_threshold()[0])]
        assert not passes
        assert not any(found is made[0] for found in gc.get_objects()), "frozen"
        assert gc.isenabled() and gc.get_freeze_count() > len(made)
        with pytest.raises(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.callbacks.remove(note)
        gc.unfreeze()
