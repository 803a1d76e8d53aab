"""What SLURM does with jobs, by an squeue that says what the test has written."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmsa.cluster import REQUEUES, Jobs, requeue_by_default, watched

OTHERS = "12|RUNNING\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets squeue list jobs from now on; "away" stands for a cluster that does not answer."""
    script = f"#!/bin/sh\n! grep -q away {tmp_path}/listing && cat {tmp_path}/listing\n"
    (tmp_path / "squeue").write_text(script)
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/cancelled\n')
    for program in ("squeue", "scancel"):
        (tmp_path / program).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return lambda listing: (tmp_path / "listing").write_text(OTHERS + listing) and None


def states(jobs: Jobs) -> dict[str, str]:
    for job in jobs.states:
        jobs.get_state(job, mode="force")
    return jobs.states


def test_the_states_of_jobs_are_those_of_squeue(cluster: Callable[[str], None]) -> None:
    jobs = Jobs()
    cluster("7_0|RUNNING\n7_1|PENDING\n")
    for job in ("7", "7_0", "7_1", "7_2"):
        jobs.register_job(job)
    assert states(jobs) == {"7_0": "RUNNING", "7_1": "PENDING", "7_2": "CANCELLED"}, "an array's task, in the queue"
    assert jobs.news() == ["job 7_2: cancelled"] and not jobs.news()
    cluster("7_0|PENDING\n7_1|TIMEOUT\n")
    assert states(jobs)["7_0"] == "PENDING" and jobs.is_done("7_1") and not jobs.is_done("7_0")
    limit = "stopped by the time limit (hydra.launcher.timeout_min)"
    assert jobs.news() == ["job 7_0 waits in the queue again", f"job 7_1: {limit}"] and not jobs.news()
    cluster("away")
    assert states(jobs) == {"7_0": "PENDING", "7_1": "TIMEOUT", "7_2": "CANCELLED"}, "it knows no better"
    cluster("7_0|RUNNING\n")
    states(jobs)
    cluster("")
    assert states(jobs)["7_0"] == "GONE" and jobs.left() == []
    assert jobs.ended() == f"1 job no longer known, 1 job {limit}, 1 job cancelled"


def test_squeue_is_asked_now_and_then(cluster: Callable[[str], None]) -> None:
    jobs = Jobs()
    cluster("7|RUNNING\n")
    jobs.register_job("7")
    assert states(jobs) == {"7": "RUNNING"}
    cluster("7|CANCELLED\n")
    assert not jobs.is_done("7") and jobs.is_done("7", mode="force")


def test_jobs_that_wait_for_nothing_leave_the_queue(cluster: Callable[[str], None], tmp_path: Path) -> None:
    jobs = Jobs()
    cluster("7_0|RUNNING\n7_1|PENDING\n")
    for job in ("7_0", "7_1"):
        jobs.register_job(job)
    states(jobs)
    jobs.cancel_waiting()
    assert (tmp_path / "cancelled").read_text() == "--state=PENDING 7_1\n" and jobs.left() == ["7_0"]


def test_the_jobs_of_a_sweep_start_again_unless_the_user_says_otherwise() -> None:
    options = {"timeout_min": 60, "signal_delay_s": 120, "max_num_timeout": 0}
    requeue_by_default(launcher := dict(options), ["hydra.launcher.timeout_min=60"])
    assert launcher == {**options, "max_num_timeout": REQUEUES}
    requeue_by_default(launcher := {**options, "timeout_min": 2}, [])
    assert launcher["signal_delay_s"] == 30, "there is time to train before the warning"
    typed = ["hydra.launcher.max_num_timeout=0", "+hydra.launcher.signal_delay_s=100"]
    requeue_by_default(launcher := {**options, "timeout_min": 2, "signal_delay_s": 100}, typed)
    assert launcher == {"timeout_min": 2, "signal_delay_s": 100, "max_num_timeout": 0}


@pytest.mark.parametrize("launcher", ["SlurmLauncher", "LocalLauncher"])
def test_submitit_asks_us_and_writes_nothing(
    launcher: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmJob, "watcher", former := submitit.SlurmJob.watcher)
    jobs = watched(
        OmegaConf.create({"_target_": f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{launcher}"})
    )
    assert submitit.SlurmJob.watcher is (jobs or former) and (jobs is None) == (launcher == "LocalLauncher")
    submitit.core.logger.get_logger().warning("Bypassing sacct error")
    assert capfd.readouterr() == ("", "")
    assert watched(OmegaConf.create({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"})) is None
