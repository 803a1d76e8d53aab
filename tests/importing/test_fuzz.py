"""A file of predictions that somebody has damaged is imported, or refused in a few lines, and nothing else happens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsa import cli
from mmsa.data.store import Store
from mmsa.record import RunRecord
from tests.fuzzing import NAMES, RAW, spoil
from tests.importing.conftest import imports, write
from tests.test_hostile_results import KINDS, STYLES, TABLE, answer, damaged, reported

NAMED = ("id", "prediction", "seed", "fold")


def door(file: Path, outputs: Path, *more: str) -> Callable[[], None]:
    return lambda: cli.command(["import", "synthetic", str(file), *more, f"paths.outputs={outputs}", "tracking=none"])


@pytest.fixture
def outputs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs with the store, in which nothing is drawn or fitted."""
    monkeypatch.setattr("mmsa.settling.write_figures", lambda folder, record: [])
    monkeypatch.setattr("mmsa.importing.run.fit_beside", lambda *given: {})
    (tmp_path / "outputs" / "data").mkdir(parents=True)
    shutil.copy(store.path, tmp_path / "outputs" / "data")
    return tmp_path / "outputs"


@pytest.mark.parametrize("count", [20, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_damaged_file_is_imported_or_refused_in_a_few_lines(
    count: int, outputs: Path, test_ids: list[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    file = write(tmp_path / "x.csv", [(name, i % 5 - 2, 1, "test") for i, name in enumerate(test_ids)], NAMED)
    whole, refused = file.read_bytes(), 0
    np.savez(
        tmp_path / "x.npz",
        **{
            name: np.array([row.split(",")[i] for row in whole.decode().splitlines()[1:]])
            for i, name in enumerate(NAMED)
        },
    )
    arrays = (tmp_path / "x.npz").read_bytes()
    for number in range(count):
        binary = number % 5 == 4
        path = tmp_path / ("y.npz" if binary else "y.csv")
        path.write_bytes(arrays if binary else whole)
        if binary:
            damaged = bytearray(arrays)
            damaged[int(rng.integers(0, len(arrays)))] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(damaged)
        else:
            spoil(path, rng, *TABLE)
        refused += "error:" in answer(tmp_path, door(path, outputs, *(["--partial"] if number % 3 else [])))
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    assert count / 4 < refused < count
    for folder in imports(outputs):
        record = RunRecord.read(folder)
        assert record.status == "finished" and all(name.startswith("test/") for name in record.metrics)
    assert "error:" not in reported(outputs, "table")
    assert not list((outputs / "runs").glob(".*")) and sorted(path.name for path in tmp_path.iterdir()) == [
        "outputs",
        "x.csv",
        "x.npz",
    ]


@pytest.mark.parametrize("share", [24, pytest.param(1, marks=pytest.mark.slow)])
def test_a_name_or_an_id_is_text(share: int, outputs: Path, test_ids: list[str], tmp_path: Path) -> None:
    rows = [(name, 0) for name in test_ids]
    file, odd = write(tmp_path / "x.csv", rows), tmp_path / "y.csv"
    for number, name in enumerate([*NAMES, *(raw[:3000] for raw in RAW)]):
        if number % share:
            continue
        answer(tmp_path, door(file, outputs, "--name", name))
        write(odd, [(name, 0), *rows[1:]])
        assert "error:" in answer(tmp_path, door(odd, outputs))
        write(odd, [(rows[0][0], name), *rows[1:]])
        answer(tmp_path, door(odd, outputs))
    for style in ("table", "csv", "html", "latex", "markdown"):
        assert "error:" not in reported(outputs, style)


@pytest.mark.parametrize("count", [10, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_damaged_folder_of_an_import_is_read_or_left_out(
    count: int, outputs: Path, test_ids: list[str], tmp_path: Path
) -> None:
    for name, ids in (("whole", test_ids), ("part", test_ids[::2])):
        door(write(tmp_path / f"{name}.csv", [(one, 0) for one in ids]), outputs, "--partial")()
    (part,) = [folder for folder in imports(outputs) if folder.name.endswith("part-imported")]
    files = {name: KINDS[name] for name in ("result.json", "config.yaml", "predictions.csv")}
    for number, _ in enumerate(damaged(part, files, count, seed=5)):
        style = STYLES[number % len(STYLES)]
        assert "whole (imported)" in reported(outputs, style, *(["--metrics", "mae"] if number % 2 else []))
