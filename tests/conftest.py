"""Options and paths that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=SHARED / "golden", help="folder of the golden vectors")


def existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not here: it is data for tests that is not ours to redistribute")
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    return existing(SHARED)


@pytest.fixture(scope="session")
def csd_folder(shared: Path) -> Path:
    return existing(shared / "data" / "cmu-mosi-csd")


@pytest.fixture(scope="session")
def mmsa_pickle(shared: Path) -> Path:
    return existing(shared / "data" / "pickles" / "mmsa_aligned_50.pkl")
