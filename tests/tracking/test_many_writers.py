"""Processes that log side by side to one default tracking store lose nothing and never meet a locked database."""

from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.tracking.database import import_client
from mmsa.tracking.mlflow import MLflowTracker
from mmsa.tracking.tracker import RunInfo
from tests.records import record
from tests.warm import CONTEXT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own

METRICS = [f"{fold}/metric{number}" for fold in ("train", "valid") for number in range(10)]


@dataclass
class Written:
    """What a process wrote: the runs' first values and epochs by their ids, and how long each call took."""

    epochs: dict[str, tuple[float, int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)


def meet(barrier: Any) -> None:
    """Imports take seconds on a busy machine, and the writers are to write at the same time."""
    import_client()
    barrier.wait(240)


def write(outputs: Path, folder: Path, writer: int, epochs: int, seconds: float) -> Written:
    """Log runs of so many epochs as quickly as the tracker lets us, two whole ones and more until the time is over."""
    written = Written()
    deadline = time.monotonic() + seconds
    while (whole := len(written.epochs) < 2) or time.monotonic() < deadline:
        first = 1e6 * writer + 1e3 * len(written.epochs)  # no two values of a name are equal
        tracker = MLflowTracker(outputs, warn=written.warned.append)
        run_id = tracker.start(RunInfo(f"writer {writer}", folder, {"writer": writer}))
        if run_id is None:
            break
        epoch = 0
        while epoch < epochs and (whole or time.monotonic() < deadline):
            epoch += 1
            values = {name: first + epoch + number / 64 for number, name in enumerate(METRICS)}
            began = time.monotonic()
            tracker.log_epoch(values, epoch)
            written.seconds.append(time.monotonic() - began)
        tracker.finish(folder, record())
        written.epochs[run_id] = (first, epoch)
    return written


def write_side_by_side(outputs: Path, processes: int, epochs: int, seconds: float) -> list[Written]:
    folder = outputs / "run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    MLflowTracker(outputs, warn=pytest.fail).prepare()
    with ProcessPoolExecutor(processes, CONTEXT, meet, (CONTEXT.Barrier(processes),)) as pool:
        writers = [pool.submit(write, outputs, folder, number, epochs, seconds) for number in range(processes)]
        return [writer.result() for writer in writers]


def require_everything(outputs: Path, written: list[Written]) -> int:
    """Compare every run with the database and return the number of its rows."""
    epochs = {run_id: run for process in written for run_id, run in process.epochs.items()}
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:
        statuses = dict(connection.execute("SELECT run_uuid, status FROM runs"))
        query = "SELECT run_uuid, key, count(*), count(DISTINCT step), max(step), sum(value) FROM metrics GROUP BY 1, 2"
        logged = {(run_id, key): tuple(rest) for run_id, key, *rest in connection.execute(query)}
        query = "SELECT run_uuid, key, step, value FROM latest_metrics"
        latest = {(run_id, key): (step, value) for run_id, key, step, value in connection.execute(query)}
        (rows,) = connection.execute("SELECT count(*) FROM metrics").fetchone()
    assert statuses == dict.fromkeys(epochs, "FINISHED")
    every: dict[tuple[str, str], tuple[float, ...]] = {}
    last: dict[tuple[str, str], tuple[int, float]] = {}
    for run_id, (first, number) in epochs.items():
        for place, key in enumerate(METRICS if number else []):
            base = first + place / 64
            every[run_id, f"epochs/{key}"] = (number, number, number, number * base + number * (number + 1) / 2)
            last[run_id, f"epochs/{key}"] = (number, base + number)
    assert logged == every
    assert latest == last
    return int(rows)


def require_silence(written: list[Written], capfd: pytest.CaptureFixture[str]) -> None:
    assert [line for process in written for line in process.warned] == []
    assert capfd.readouterr() == ("", "")


def test_four_processes_lose_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = write_side_by_side(tmp_path / "outputs", processes=4, epochs=10, seconds=0)
    require_silence(written, capfd)
    assert require_everything(tmp_path / "outputs", written) == 4 * 2 * 10 * len(METRICS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_processes_lose_nothing_in_five_minutes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = write_side_by_side(tmp_path / "outputs", processes=8, epochs=30, seconds=300)
    require_silence(written, capfd)
    rows = require_everything(tmp_path / "outputs", written)
    seconds = np.array([one for process in written for one in process.seconds])
    runs = sum(len(process.epochs) for process in written)
    p50, p95, worst = np.quantile(seconds, [0.5, 0.95, 1.0])
    with capfd.disabled():
        print(f"\n8 processes, 300 s: {runs} runs, {len(seconds)} calls, {rows} rows; ", end="")
        print(f"seconds per call: p50 {p50:.3f}, p95 {p95:.3f}, worst {worst:.2f}")
