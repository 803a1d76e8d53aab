"""Options and paths that all tests share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)  # the same examples in every run of the same test
settings.load_profile("repeatable")
os.environ["OMP_NUM_THREADS"] = "1"  # two threads that wait for each other on a busy machine are ten times slower
os.environ["HF_HUB_OFFLINE"] = "1"  # a test's model is made on the spot
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
os.environ.pop("MMSA_DATA", None)
os.environ.pop("MMSA_PACKAGES", None)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, default=SHARED / "golden", help="folder of the golden vectors")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip(f"needs a CUDA device, and PyTorch {torch.__version__} finds none")


def existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not here: it is data for tests that is not ours to redistribute")
    return path


def unavailable(what: str) -> NoReturn:
    """Skip a test for want of a program; under .ci/run, which installs it, fail it."""
    if os.environ.get("MMSA_CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> None:
    """Hydra takes 0.1 s for each of the thousand configurations that the tests ask for."""
    from tests.composition import remember

    remember()


@pytest.fixture(scope="session", autouse=True)
def making(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], None]]:
    """What makes a database: a second's work of MLflow, so those of the tests are copies of one, made once for all."""
    from filelock import FileLock

    from mmsa.tracking import database

    base = tmp_path_factory.getbasetemp()
    blank = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "blank" / "mlflow.db"
    make = database._make

    def copied(path: Path) -> None:
        blank.parent.mkdir(exist_ok=True)
        with FileLock(blank.with_suffix(".lock")):
            if not blank.exists():
                make(blank)
        shutil.copyfile(blank, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_make", copied)
        yield make


@pytest.fixture(scope="session", autouse=True)
def predictions_give_the_metrics() -> Iterator[None]:
    """The metrics of every run that a test makes in this process are those of its stored predictions."""
    from mmsa.record import RunRecord

    write = RunRecord.write
    checked: set[Path] = set()

    def write_and_check(record: RunRecord, folder: Path) -> None:
        write(record, folder)
        if record.status == "finished" and folder not in checked and (folder / "predictions.csv").exists():
            from tests.records import check_predictions

            check_predictions(record, folder)
            checked.add(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecord, "write", write_and_check)
        yield


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
def whole_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built-in corpus, for what is measured on it."""
    from mmsa.dataset.synthetic import Synthetic

    folder = tmp_path_factory.mktemp("whole")
    Synthetic().prepare(folder, progress=False)
    return folder


@pytest.fixture(scope="session")
def stores(whole_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of prepared data for all tests of a session: of the built-in corpus every fifth utterance."""
    from mmsa.data.ragged import Ragged
    from mmsa.data.store import Prepared, write_store
    from mmsa.dataset.synthetic import Synthetic

    folder = tmp_path_factory.mktemp("data")
    shutil.copytree(whole_corpus, folder, dirs_exist_ok=True)
    whole = Synthetic().prepare(folder, progress=False)
    rows = range(0, len(whole.ids), 5)
    every_fifth = Prepared(
        whole.ids[::5],
        whole.videos[::5],
        whole.folds[::5].tolist(),
        {name: target[::5] for name, target in whole.targets.items()},
        {name: Ragged.join([steps[row] for row in rows]) for name, steps in whole.features.items()},
        whole.words and whole.words[::5],
        whole.report,
    )
    write_store(whole.path, every_fifth, dataset=whole.dataset, sources=whole.sources, options=whole.options)
    return folder


@pytest.fixture(autouse=True)
def no_addresses() -> Iterator[None]:
    """What a test keeps in the environment is its own, and so is the pause of a worker's tracker."""
    from mmsa.secrets import VARIABLES
    from mmsa.tracking import pause

    yield
    for variable in (*VARIABLES.values(), pause.FAILED):
        os.environ.pop(variable, None)
    pause._sharing = None


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process draw no figures, which take longer than a small run."""
    monkeypatch.setattr("mmsa.journal.write_figures", lambda folder, record: [])


@pytest.fixture
def small(stores: Path, tmp_path: Path, undrawn: None) -> list[str]:
    """Overrides of a small, quick, untracked run on the built-in corpus, of which no figures are drawn."""
    return [
        f"paths.data={stores}",
        f"paths.outputs={tmp_path / 'outputs'}",
        "tracking=none",
        "device=cpu",
        "hidden_dim=6",
        "trainer.max_epochs=2",
        "trainer.keep_last=true",
    ]


def pytest_sessionfinish() -> None:
    from tests.warm import stop

    stop()
