"""What SLURM does with the jobs that submitit has started for this process."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from omegaconf import DictConfig

MOST_SECONDS = 60.0
"""How long the state of a job may be behind: squeue is everybody's, and a job that ends in order is seen at once."""
REQUEUES = 1000
"""How often a job of a sweep may reach its time limit, where the user does not say: its sweep ends when it is done."""
ENDS = {
    "CANCELLED": "cancelled",
    "TIMEOUT": "stopped by the time limit (hydra.launcher.timeout_min)",
    "DEADLINE": "stopped by the deadline",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "lost with the node",
    "BOOT_FAIL": "lost with the node",
    "OUT_OF_MEMORY": "stopped for memory",
    "FAILED": "failed",
    "COMPLETED": "ended",
    "GONE": "no longer known",
}
"""The states in which a job has ended, in words."""


class Jobs:
    """The states of jobs by squeue: submitit asks sacct, which not every cluster has.

    It has the methods of submitit's own watcher, which it replaces.
    """

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self._news: list[str] = []
        self._began = self._asked = -MOST_SECONDS
        self._asking = threading.Lock()

    def register_job(self, job_id: str) -> None:
        """Watch a job from now on; the tasks of an array stand for it."""
        self.states.pop(job_id.partition("_")[0], None)
        self.states[job_id] = "PENDING"
        self._began = self._asked = time.monotonic()

    def get_state(self, job_id: str, mode: str = "standard") -> str:
        """The state of a job in SLURM's words."""
        self._ask(now=mode == "force")
        return self.states.get(job_id, "PENDING")

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """Whether a job has ended and does not start again."""
        return self.get_state(job_id, mode) in ENDS

    def get_info(self, job_id: str, mode: str = "standard") -> dict[str, str]:
        """The state of a job, as submitit asks for it."""
        return {"State": self.get_state(job_id, mode)}

    def left(self) -> list[str]:
        """The jobs that run or wait."""
        self._ask()
        return [job for job, state in self.states.items() if state not in ENDS]

    def cancel_waiting(self) -> None:
        """Take the jobs that wait out of the queue."""
        if waiting := [job for job in self.left() if self.states[job] == "PENDING"]:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["scancel", "--state=PENDING", *waiting], capture_output=True, timeout=MOST_SECONDS)
            self.states.update(dict.fromkeys(waiting, "CANCELLED"))

    def news(self) -> list[str]:
        """What the cluster did to jobs since the last call, a line each."""
        with self._asking:
            news, self._news = self._news, []
        return news

    def ended(self) -> str:
        """How the jobs ended, in words."""
        counts = Counter(ENDS[state] for state in self.states.values() if state in ENDS)
        return ", ".join(f"{count} job{'s' if count > 1 else ''} {how}" for how, count in counts.items())

    def _ask(self, now: bool = False) -> None:
        """Ask squeue, unless that was a moment ago; where it does not answer, the former states stand."""
        with self._asking:
            pause = min(MOST_SECONDS, max(2.0, (time.monotonic() - self._began) / 10))
            if not self.states or not (now or time.monotonic() > self._asked + pause):
                return
            self._asked, watched = time.monotonic(), dict(self.states)
            command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T"]
            try:
                told = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=True)
            except (OSError, subprocess.SubprocessError):
                return
            found = dict(line.strip().split("|") for line in told.stdout.splitlines() if line.count("|") == 1)
            for job, former in watched.items():
                if former not in ENDS:  # a task of an array that is cancelled in the queue leaves no trace
                    self._note(job, former, found.get(job, "CANCELLED" if former == "PENDING" else "GONE"))

    def _note(self, job: str, former: str, state: str) -> None:
        self.states[job] = state
        if state in ENDS and state != "COMPLETED":
            self._news.append(f"job {job}: {ENDS[state]}")
        elif state == "PENDING" and former in ("RUNNING", "COMPLETING"):
            self._news.append(f"job {job} waits in the queue again")


def watched(launcher: DictConfig) -> Jobs | None:
    """Keep submitit's lines off the screen, and watch the jobs that it starts on SLURM; None under another launcher.

    Args:
        launcher: node of Hydra's launcher.
    """
    if "submitit" not in launcher._target_:
        return None
    import submitit

    logging.getLogger("submitit").setLevel(logging.CRITICAL)
    if not launcher._target_.endswith("SlurmLauncher"):
        return None
    jobs = Jobs()
    submitit.SlurmJob.watcher = cast(Any, jobs)
    return jobs


def requeue_by_default(launcher: dict[str, Any], typed: Sequence[str]) -> None:
    """Let the jobs of a sweep start again after their time limit, with time left to hand their trials back.

    Args:
        launcher: options of submitit's launcher for SLURM, which are changed.
        typed: overrides of Hydra's own options, which stand.
    """
    names = {override.lstrip("+").partition("=")[0] for override in typed}
    delay = min(launcher["signal_delay_s"], 15 * launcher["timeout_min"])
    defaults = {"max_num_timeout": REQUEUES, "signal_delay_s": delay}
    launcher.update({name: value for name, value in defaults.items() if f"hydra.launcher.{name}" not in names})
