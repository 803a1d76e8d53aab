"""Every golden file of the families that a test module knows becomes a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


def golden_files(config: pytest.Config, *patterns: str) -> list[Path]:
    """The files of `--golden` whose stem matches one of the glob patterns, sorted."""
    folder: Path = config.getoption("--golden")
    return sorted({path for pattern in patterns for path in folder.glob(f"{pattern.removesuffix('.npz')}.npz")})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise `golden_file` by the patterns of the mark `golden("pattern", ...)`."""
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    files = golden_files(metafunc.config, *marker.args)
    absent = pytest.param(None, id="none", marks=pytest.mark.skip(reason=f"no golden file {marker.args}"))
    metafunc.parametrize("golden_file", [pytest.param(path, id=path.stem) for path in files] or [absent])
