"""Faults of methods, storages and trackers in whole sweeps, at their true length: `make test-slow ARGS=tests/sweep`."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mmsa.sweep import worker
from mmsa.sweep.storage import open_study
from tests.conftest import ROOT
from tests.outside import package
from tests.sweep.postgres import Server, ServerUnavailableError, empty_database
from tests.sweep.sweeps import LR, contents, make
from tests.sweep.test_demonstrations import study_of
from tests.sweep.test_sweep import points, wait_for
from tests.warm import Program, train, typed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
AWAY_SECONDS = 75.0


@pytest.fixture
def short(stores: Path, tmp_path: Path) -> list[str]:
    return [
        f"paths.data={stores}", f"paths.outputs={tmp_path / 'outputs'}", "device=cpu", "hidden_dim=4", "fusion=concat",
        "trainer.max_epochs=1", "dataset.modalities=[text]", "tracking=none", "sweep.study=study",
    ]  # fmt: skip


SEARCH = [
    "sweep=search", "hydra/sweeper/sampler=random", "sweep.pruner=none", "sweep.trials=12", "sweep.slots=[cpu,cpu]",
    "optimizer.lr=tag(log,interval(1e-3,1e-2))",
]  # fmt: skip


def faulty_methods(folder: Path) -> tuple[list[str], dict[str, str]]:
    """A fusion that does not return: it hangs, deaf or not, or ends its process."""
    source = (
        "import os, signal, time\n"
        "from mmsa.fusion.concat import ConcatFusion\n"
        "class FaultyFusion(ConcatFusion):\n"
        "    def __init__(self, input_dims, fault: str = 'none'):\n"
        "        super().__init__(input_dims)\n"
        "        self.fault = fault\n"
        "    def combine(self, streams):\n"
        "        if self.training and self.fault == 'exit':\n"
        "            os._exit(0)\n"
        "        if self.training and self.fault == 'sys_exit':\n"
        "            raise SystemExit('no licence')\n"
        "        if self.training and self.fault == 'deaf':\n"
        "            signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        if self.training and self.fault in ('hang', 'deaf'):\n"
        "            time.sleep(3600)\n"
        "        return super().combine(streams)\n"
    )
    return package(folder, "faulty", source, {"fusion/faulty": "_target_: faulty.methods.FaultyFusion\nfault: none\n"})


def test_faults_of_a_method_end_its_trial_and_no_other(short: list[str], tmp_path: Path) -> None:
    own, environment = faulty_methods(tmp_path / "own")
    grid = ["sweep=grid", "fusion.fault=exit,hang,sys_exit,none", "sweep.slots=[cpu]", "sweep.trial_minutes=0.3"]
    done = train(*own, *short, "fusion=faulty", *grid, environment=environment)
    reasons = {t.params["fusion.fault"]: t.user_attrs.get("reason") for t in study_of(tmp_path).trials}
    assert reasons == {
        "exit": "its worker died (exit code 0)",
        "hang": "took longer than sweep.trial_minutes=0.3",
        "sys_exit": "sys.exit('no licence') was called in its run",
        "none": None,
    }
    assert done.returncode == 1 and "3 trials failed" in done.stderr and "resume it: " in done.stderr
    assert [t.state.name for t in study_of(tmp_path).trials].count("COMPLETE") == 1


@pytest.mark.parametrize("fault", ["hang", "deaf"])
def test_a_sweep_ends_although_a_trial_hangs_and_that_trial_does_not_come_first_for_ever(
    short: list[str], tmp_path: Path, fault: str
) -> None:
    own, environment = faulty_methods(tmp_path / "own")
    grid = ["sweep=grid", f"fusion.fault={fault},none", "sweep.slots=[cpu]", "sweep.retries=1"]
    limits = ["sweep.timeout=0.3", "sweep.grace=0.05"]
    for attempt in (1, 2):
        done = train(*own, *short, "fusion=faulty", *grid, *limits, environment=environment)
        assert done.returncode == 0 and "resume it: " in done.stdout, done.stderr + done.stdout
        assert "trial 0 on cpu 1 is stopped, as it still ran after sweep.timeout and sweep.grace" in done.stdout
        (hung,) = study_of(tmp_path).trials
        assert hung.state == TrialState.RUNNING
        assert hung.user_attrs["attempts"] == attempt
    done = train(*own, *short, "fusion=faulty", *grid, environment=environment)
    hung, other = study_of(tmp_path).trials
    assert (hung.state, other.state) == (TrialState.FAIL, TrialState.COMPLETE), done.stderr + done.stdout
    assert hung.user_attrs["reason"] == "stopped, as it still ran after sweep.timeout and sweep.grace"


def disturbed(command: list[str], num_done: Callable[[], int], disturb: Callable[[], None]) -> tuple[int, str, str]:
    """Run a sweep and disturb it after its first trial; its exit code and what it printed."""
    with Program(*command) as parent:
        wait_for(lambda: num_done() >= 1)
        disturb()
        printed, errors = parent.communicate(timeout=600)
    return parent.returncode, printed, errors


def complete(folder: Path) -> int:
    try:
        return sum(trial.state == TrialState.COMPLETE for trial in open_study(folder).trials)
    except Exception:  # noqa: BLE001  (not there yet)
        return 0


@pytest.fixture
def undisturbed(short: list[str], tmp_path: Path) -> list[tuple[Any, ...]]:
    """The trials of the search without a fault."""
    whole = tmp_path / "whole"
    done = train(*short, *SEARCH, f"paths.outputs={whole}")
    assert done.returncode == 0, done.stderr + done.stdout
    return points(open_study(whole / "sweeps" / "study"))


def locked(database: Path, seconds: float) -> None:
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


def test_a_database_that_is_locked_for_75_seconds_costs_no_trial(
    short: list[str], tmp_path: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path / "outputs" / "sweeps" / "study"
    code, printed, errors = disturbed(
        [*short, *SEARCH], lambda: complete(folder), lambda: locked(folder / "study.db", AWAY_SECONDS)
    )
    assert code == 0, errors + printed
    assert points(study_of(tmp_path)) == undisturbed
    assert {trial.user_attrs["attempts"] for trial in study_of(tmp_path).trials} == {1}


def test_a_database_that_stays_locked_ends_the_sweep_with_the_line_that_resumes_it(
    short: list[str], tmp_path: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    folder = tmp_path / "outputs" / "sweeps" / "study"
    held = threading.Thread(target=locked, args=(folder / "study.db", 60.0))
    code, printed, errors = disturbed(
        [*short, *SEARCH, "sweep.storage_minutes=0.1"], lambda: complete(folder), held.start
    )
    held.join()
    assert code == 1 and "the storage" in errors and "database is locked" in printed, errors + printed
    (line,) = re.findall(r"resume(?: it)?: (.*)", errors)
    done = typed(line)
    assert done.returncode == 0, done.stderr + done.stdout
    assert points(study_of(tmp_path)) == undisturbed


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    try:
        with Server() as running:
            yield running
    except ServerUnavailableError as error:
        pytest.skip(str(error))


def test_a_server_that_is_away_for_75_seconds_costs_no_trial(
    short: list[str],
    tmp_path: Path,
    undisturbed: list[tuple[Any, ...]],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = empty_database(str(server.folder))
    monkeypatch.setenv("MMSA_STORAGE", url)  # which the sweep's folder does not hold
    folder = tmp_path / "outputs" / "sweeps" / "study"

    def restart() -> None:
        server.stop()
        time.sleep(AWAY_SECONDS)
        server.start()

    code, printed, errors = disturbed([*short, *SEARCH, f"sweep.storage={url}"], lambda: complete(folder), restart)
    assert code == 0 and "Traceback" not in errors, errors + printed
    assert printed.count("the storage does not answer; the trials continue") == 1, printed
    assert printed.count("the storage answers again") == 1, printed
    study: optuna.Study = open_study(folder)
    assert points(study) == undisturbed and {trial.user_attrs["attempts"] for trial in study.trials} == {1}


HOST = """
import sys, time
from pathlib import Path
from mmsa.sweep import claims
claims.LEASE_SECONDS, claims.BEAT_SECONDS, claims.SURE_SECONDS = 6.0, 1.0, 4.0
now, ahead = time.time, float(sys.argv[2])
time.time = lambda: now() + ahead
from mmsa.sweep import worker
sys.exit(worker.work(Path(sys.argv[1])))
"""


def test_a_worker_that_slept_while_another_host_took_its_trial_leaves_no_trace(
    short: list[str], tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    long = ["trainer.max_epochs=700", "trainer.patience=700", LR, "sweep.trials=1", "sweep.storage=journal"]
    made = make(*short, *long)

    def host(name: str, ahead: float) -> subprocess.Popen[bytes]:
        """A worker with locks and a time of day of its own."""
        command = [sys.executable, "-c", HOST, made.spec.folder, str(ahead)]
        process = subprocess.Popen(command, env={**os.environ, "MMSA_LOCKS": str(tmp_path / name)}, cwd=ROOT)
        ended.callback(process.wait)
        ended.callback(process.kill)
        return process

    with ExitStack() as ended:
        first = host("first", 400.0)
        wait_for(lambda: any(outputs.glob("runs/*/checkpoints/last.pt")))
        second = host("second", -400.0)
        time.sleep(15.0)  # the lease, twice
        assert first.poll() is None and study_of(tmp_path).trials[0].user_attrs["owner"]["claim"] == 1
        first.send_signal(signal.SIGSTOP)
        assert study_of(tmp_path).trials[0].state == TrialState.RUNNING
        assert second.wait(900) == 0
        kept = contents(outputs / "runs"), study_of(tmp_path).trials
        first.send_signal(signal.SIGCONT)
        assert first.wait(60) in (worker.DONE, worker.REPLACE), "asleep in the middle of a file, it fails to rename it"
    assert (contents(outputs / "runs"), study_of(tmp_path).trials) == kept
    (trial,) = kept[1]
    assert trial.state == TrialState.COMPLETE and trial.user_attrs["owner"]["claim"] == 2
