from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mmsa.record import RunRecord
from mmsa.tracking.figures import run_title, write_figures
from tests.records import record


@pytest.fixture
def result() -> RunRecord:
    names = ["mean", "majority", "ridge text", "ridge audio", "ridge visual", "ridge joint"]
    scores = [1.31, 1.402, 0.92, 1.121, 1.263, 0.871]
    return record(
        name="feedback=mmlatch,regularizer=m3",
        best_epoch=6,
        metrics={"test/mae": 0.702, "valid/mae": 0.69},
        primary=["mae"],
        baselines={name: {"test/mae": score} for name, score in zip(names, scores, strict=True)},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    lines = ["epoch,train/loss,valid/loss,valid/mae,valid/corr"]
    for epoch in range(10):
        valid = 0.7 + 0.6 * np.exp(-epoch / 2) + 0.01 * max(epoch - 6, 0)
        lines.append(f"{epoch},{0.4 + 0.9 * np.exp(-epoch / 3):.4f},{valid:.4f},{valid - 0.02:.4f},")
    (tmp_path / "history.csv").write_text("\n".join(lines))
    rows = ["id,fold,target,prediction"]
    for number in range(300):
        target = generator.uniform(-3, 3)
        fold = "test" if number % 2 else "valid"
        rows.append(f"v[{number}],{fold},{target:.3f},{0.8 * target + generator.normal() * 0.6:.3f}")
    (tmp_path / "predictions.csv").write_text("\n".join(rows))
    return tmp_path


def test_three_figures_are_drawn_without_a_display(
    folder: Path, result: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # of another test
    drawn = write_figures(folder, result)
    assert [path.name for path in drawn] == ["learning_curves.png", "predictions.png", "baselines.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000 for path in drawn)
    assert "matplotlib.pyplot" not in sys.modules


def test_what_a_run_lacks_is_left_out(tmp_path: Path, folder: Path, result: RunRecord) -> None:
    result = result.model_copy(update={"baselines": {}})
    (folder / "predictions.csv").unlink()
    (folder / "history.csv").write_text("epoch,train/loss,valid/loss\n0,nan,\n")
    assert [path.name for path in write_figures(folder, result)] == ["learning_curves.png"]
    (folder / "history.csv").unlink()
    assert write_figures(folder, result) == []


def test_a_figure_says_what_data_it_shows(result: RunRecord) -> None:
    of_file = result.data.model_copy(update={"source": "x.pkl"})
    for changed, shown in (({"data": of_file}, "cmu_mosi (x.pkl)"), ({"planted": True}, "(planted data)")):
        assert run_title(result.model_copy(update=changed)) == f"{result.name}\n{shown}"


def test_signs_of_mathematics_in_a_name_are_only_signs(folder: Path, result: RunRecord) -> None:
    assert len(write_figures(folder, result.model_copy(update={"name": "a$b^$"}))) == 3
