"""A sweep whose workers are the jobs of a launcher: from their start until they have ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hydra.core.utils import JobReturn, JobStatus

from mmsa.cluster import Jobs
from mmsa.errors import MmsaError
from mmsa.reporting import in_few_lines
from mmsa.sweep.drive import SweepDisplay, while_running

MOST_LOST = 3
"""Times in a row that a launcher loses its workers before any trial ends, after which it is given up."""


@dataclass
class Launched:
    """The jobs of a launcher, from their start to the last one's end.

    Args:
        launch: starts them, waits for them, and returns what became of each.
        jobs: what SLURM does with them; None under another launcher.
        display: of the sweep.
        refresh: brings the display up to date.
    """

    launch: Callable[[], Sequence[JobReturn]]
    jobs: Jobs | None
    display: SweepDisplay
    refresh: Callable[[], object]
    _returned: Sequence[JobReturn] = ()

    def wait(self) -> str:
        """Wait until no job is left, or the sweep is complete; returns how they ended where it is not complete."""
        lost, error = 0, None
        while lost < MOST_LOST and not self.display.complete:
            before = self.display.num_ended
            try:
                while_running(self._launch, self._look, self._enough)
                return self._reason()
            except Exception as raised:  # noqa: BLE001  (launchers raise what they like)
                error = raised
            if self.jobs is not None:
                return self._wait_for_the_others(self.jobs, error)
            lost = 1 if self.display.num_ended > before else lost + 1
            self.display.say(f"the launcher lost workers, and starts others: {_line(error)}")
        return f"the launcher loses its workers: {_line(error)}" if error else ""

    def _launch(self) -> None:
        self._returned = self.launch()

    def _enough(self) -> bool:
        """Whether the sweep is complete, and no job has anything left to do."""
        if self.jobs is None or not self.display.complete:
            return False
        self.jobs.cancel_waiting()
        return not self.jobs.left()

    def _wait_for_the_others(self, jobs: Jobs, error: Exception) -> str:
        """The launcher stops waiting at the first job that has no result."""
        if not jobs.states:
            raise MmsaError(
                f"the launcher started no job: {_line(error)}\n"
                "  correct its options hydra.launcher.…, or leave hydra/launcher out to run on this machine"
            ) from error
        while jobs.left() and not self._enough():
            self._look()
            time.sleep(1.0)
        self._look()
        said = re.findall(r"^(?:\w+\.)*\w+Error: .+", str(error), flags=re.MULTILINE)  # the last of a job's traceback
        return "; ".join([f"SLURM left no worker: {jobs.ended()}", *said[-1:]])

    def _look(self) -> None:
        for line in self.jobs.news() if self.jobs else ():
            self.display.say(line)
        self.refresh()

    def _reason(self) -> str:
        failed = [job._return_value for job in self._returned if job and job.status == JobStatus.FAILED]
        return in_few_lines(failed[0]) if failed else ""


def _line(error: Exception) -> str:
    return in_few_lines(error).splitlines()[0].partition(". ")[0]
