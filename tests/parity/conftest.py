"""Every golden file of the kinds that a test names becomes a test of its own."""

from __future__ import annotations

import pytest

from tests.parity.golden_files import golden_files, kinds


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise `golden_file` by the kinds of the mark `golden("kind", ...)`."""
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    assert kinds().keys() >= set(marker.args), f"no module of parity tests states {marker.args} in GOLDEN"
    files = golden_files(metafunc.config.getoption("--golden"), marker.args)
    absent = pytest.param(None, id="none", marks=pytest.mark.skip(reason=f"no golden file {marker.args}"))
    metafunc.parametrize("golden_file", [pytest.param(path, id=path.stem) for path in files] or [absent])
