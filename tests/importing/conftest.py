from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import mmsa
from mmsa import cli
from mmsa.data.store import Store
from mmsa.dataset.synthetic import Synthetic
from mmsa.record import RunRecord

Imported = tuple[list[Path], str]
Do = Callable[..., Imported]


def write(path: Path, rows: Iterable[Sequence[object]], names: Sequence[str] = ("id", "prediction")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def imports(outputs: Path) -> list[Path]:
    """The folders of imports, in the order of their names."""
    runs = sorted((outputs / "runs").glob("*/result.json"))
    return [path.parent for path in runs if RunRecord.read(path.parent).is_import]


@pytest.fixture(scope="module")
def store(stores: Path) -> Store:
    return Synthetic().prepare(stores, progress=False)


@pytest.fixture
def test_ids(store: Store) -> list[str]:
    return [name for name, fold in zip(store.ids, store.folds, strict=True) if fold == "test"]


@pytest.fixture
def labels(store: Store) -> np.ndarray:
    return store.targets["sentiment"][store.folds == "test"]


@pytest.fixture(scope="module")
def trained(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the built-in corpus."""
    outputs = tmp_path_factory.mktemp("trained") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
        typed = [f"paths.data={stores}", f"paths.outputs={outputs}", "tracking=none", "device=cpu", "hidden_dim=6"]
        return mmsa.run([*typed, "trainer.max_epochs=1", "name=ours"], quiet=True).folder


@pytest.fixture
def do(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    """`mmsa import synthetic FILE …` without a tracker, figures and, unless asked for, baselines: its folders, and
    what it prints."""
    monkeypatch.setattr("mmsa.settling.write_figures", lambda folder, record: [])
    outputs = tmp_path / "outputs"

    def imported(file: Path, *more: str, baselines: bool = False) -> Imported:
        before = imports(outputs)
        out = io.StringIO()
        with redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
            if not baselines:
                patch.setattr("mmsa.importing.run.fit_beside", lambda *given: {})
            places = [f"paths.outputs={outputs}", "tracking=none"]
            cli.command(["import", "synthetic", str(file), "--data", str(stores), *more, *places])
        return [folder for folder in imports(outputs) if folder not in before], out.getvalue()

    return imported
