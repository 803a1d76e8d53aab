"""Options and paths that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)  # the same examples in every run of the same test
settings.load_profile("repeatable")
os.environ["OMP_NUM_THREADS"] = "1"  # two threads that wait for each other on a busy machine are ten times slower
os.environ["HF_HUB_OFFLINE"] = "1"  # a test's model is made on the spot
os.environ.pop("MMSA_DATA", None)
os.environ.pop("MMSA_PACKAGES", None)

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


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of prepared data for all tests of a session."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def small(stores: Path, tmp_path: Path) -> list[str]:
    """Overrides of a small, quick, untracked run on the built-in corpus."""
    return [
        f"paths.data={stores}",
        f"paths.outputs={tmp_path / 'outputs'}",
        "tracking=none",
        "device=cpu",
        "hidden_dim=6",
        "trainer.max_epochs=2",
    ]
