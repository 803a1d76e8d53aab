"""Jobs of a launcher: what is made of their ends, and of the warnings that they get before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from optuna.trial import TrialState

from mmsa.cluster import Jobs
from mmsa.errors import MmsaError
from mmsa.sweep import joining
from mmsa.sweep.launching import MOST_LOST, Launched
from mmsa.sweep.setup import open_sweep
from mmsa.sweep.supervisor import Limits, Seat
from tests.sweep.sweeps import LR, make


class Screen:
    """Of a sweep of three trials, one of which ends with each look."""

    def __init__(self, each: int = 1) -> None:
        self.said: list[str] = []
        self.num_ended, self.each = 0, each
        self.say = self.said.append

    @property
    def complete(self) -> bool:
        return self.num_ended >= 3

    def look(self) -> None:
        self.num_ended += self.each


def launched(launch: Callable[[], Any], screen: Screen, jobs: Jobs | None = None) -> Launched:
    return Launched(launch, jobs, screen, screen.look)  # type: ignore[arg-type]


def lost() -> Any:
    raise OSError("worker crashed\n  and more")


def test_lost_workers_are_replaced_as_long_as_trials_end() -> None:
    screen = Screen()
    launched(lost, screen).wait()
    assert screen.complete and screen.said[0] == "the launcher lost workers, and starts others: OSError: worker crashed"
    stuck = Screen(each=0)
    reason = launched(lost, stuck).wait()
    assert len(stuck.said) == MOST_LOST and reason == "the launcher loses its workers: OSError: worker crashed"


def test_a_job_that_cannot_go_on_says_why() -> None:
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = MmsaError("no such folder\n  mount it")
    assert (
        launched(lambda: [JobReturn(status=JobStatus.COMPLETED), job], Screen(each=0)).wait()
        == "no such folder\n  mount it"
    )


def cancelled(states: dict[str, str]) -> Jobs:
    jobs = Jobs()
    jobs.states = states
    jobs._ask = lambda now=False: None  # type: ignore[method-assign]
    return jobs


def test_the_last_line_says_what_the_cluster_did() -> None:
    jobs = cancelled({"7_0": "CANCELLED", "7_1": "CANCELLED", "7_2": "FAILED"})
    trace = "Job (task=0) failed:\nTraceback (most recent call last):\n  here\nhydra.errors.OddError: no such node\n---"

    def launch() -> Any:
        raise RuntimeError(trace)

    reason = launched(launch, Screen(each=0), jobs).wait()
    assert reason == "SLURM left no worker: 2 jobs cancelled, 1 job failed; hydra.errors.OddError: no such node"
    with pytest.raises(MmsaError, match="started no job: RuntimeError: no srun"):
        launched(lambda: (_ for _ in ()).throw(RuntimeError("no srun")), Screen(), cancelled({})).wait()


def test_a_complete_sweep_waits_for_no_job_in_the_queue() -> None:
    held = threading.Event()
    jobs = cancelled({"7_0": "COMPLETED", "7_1": "PENDING"})
    assert launched(held.wait, Screen(each=3), jobs).wait() == "" and jobs.states["7_1"] == "CANCELLED"  # type: ignore[arg-type]
    held.set()


@contextmanager
def handled(number: int, handler: Any) -> Iterator[None]:
    former = signal.signal(number, handler)
    yield
    signal.signal(number, former)


def saved_ago(folder: Path, seconds: float) -> Path:
    """The options of a sweep that its command wrote then."""
    saved = folder / "sweep.json"
    saved.touch()
    then = saved.stat().st_mtime - seconds
    os.utime(saved, (then, then))
    return saved


@pytest.fixture
def warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Sends this process a signal when a worker has started, which hands its trial back; returns the worker's log."""
    code = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (sys.stdin.read(), print("handed back"), os._exit(0)))
print("trial 0", flush=True)
signal.pause()
"""
    log = tmp_path / "workers.log"

    def start(self: Seat, folder: Path, until: float | None) -> None:
        (tmp_path / "until").write_text(str(until))
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=out)

    def warn(sent: int) -> None:
        while not (log.exists() and "trial 0" in log.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), sent)

    def begin(sent: int) -> Path:
        threading.Thread(target=warn, args=(sent,), daemon=True).start()
        return log

    monkeypatch.setattr(Seat, "start", start)
    return begin


@pytest.mark.parametrize("sent", [signal.SIGUSR2, signal.SIGTERM])
def test_a_job_that_is_about_to_end_hands_its_trial_back_first(
    sent: int, warned: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"timeout": 90, "grace": 1, "trial_minutes": None}
    saved_ago(tmp_path, 3600)
    monkeypatch.setattr(
        joining,
        "SweepSpec",
        SimpleNamespace(load=lambda folder: SimpleNamespace(options=limits, check_complete=lambda: None)),
    )
    asked: list[str] = []
    with handled(signal.SIGUSR2, lambda *_: asked.append(log.read_text())):
        log = warned(sent)
        with pytest.raises(SystemExit):
            joining.join(tmp_path)
    until = float((tmp_path / "until").read_text())
    assert until == pytest.approx(time.time() + 1800, abs=60), "an hour of sweep.timeout is over"
    assert "handed back" in log.read_text()
    assert ["handed back" in text for text in asked] == ([True] if sent == signal.SIGUSR2 else [])


@pytest.mark.parametrize(("minutes", "state"), [(55, TrialState.FAIL), (5, TrialState.RUNNING)])
def test_a_job_at_its_time_limit_ends_a_trial_to_which_it_added_no_epoch(
    minutes: int, state: TrialState, base: list[str], warned: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_submitit = pytest.importorskip("submitit.core.job_environment", reason="the launcher is not installed")
    made = make(*base, LR, "sweep.trials=1")
    desk, _ = open_sweep(made.spec, "")
    desk.open()
    for _ in range(2):  # by a job before this one; and by this one, whose worker is none
        desk.release(desk.next())
    handler = of_submitit.SignalHandler(None, None, SimpleNamespace(_timeout_min=60))
    handler._start_time -= 60 * minutes  # else the job is only preempted
    monkeypatch.setattr(handler, "env", SimpleNamespace(global_rank=1))  # which has nothing to do
    with handled(signal.SIGUSR2, handler.checkpoint_and_try_requeue), pytest.raises(SystemExit):
        log = warned(signal.SIGUSR2)
        joining.join(Path(made.spec.folder))
    assert [trial.state for trial in made.study.trials] == [state] and "handed back" in log.read_text()


def test_a_job_that_starts_again_begins_no_new_timeout(tmp_path: Path) -> None:
    saved = saved_ago(tmp_path, 0)
    assert joining.seconds_since_saved(tmp_path) < 60
    saved_ago(tmp_path, 3600)
    since = joining.seconds_since_saved(tmp_path)
    assert since == pytest.approx(3600, abs=60) and [*tmp_path.iterdir()] == [saved]
    options = {"timeout": 90, "grace": 40, "trial_minutes": None}
    assert not Limits.of(options, since).are_over() and Limits.of(options, since + 3600).are_over(20 * 60)


def test_a_job_without_another_start_says_so(tmp_path: Path) -> None:
    def used_up(*_: Any) -> None:
        raise RuntimeError("timed-out too many times")

    with pytest.raises(MmsaError, match=r"too many times\n  type hydra.launcher.max_num_timeout=10"):
        joining._have_it_start_again([signal.SIGUSR2], {signal.SIGUSR2: used_up})
