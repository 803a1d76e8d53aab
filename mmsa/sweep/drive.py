"""Driving a sweep from the terminal: what is said before, during and after it."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.status import Status

from mmsa.overrides import typed_key
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.study_run import StudyRun
from mmsa.sweep.summary import summarise
from mmsa.sweep.trial_tables import short
from mmsa.sweep.trials import DONE, failures
from mmsa.tracking.tracker import without_password

if TYPE_CHECKING:
    import optuna

FIGURES_SECONDS = 60.0
"""How long the figures of a study may be behind: drawing them takes seconds, of which the trials have better use."""


@dataclass
class SweepDisplay:
    """Tells how a sweep goes on: a line for each trial that ends, and on a terminal one that changes below.

    Args:
        spec: the sweep.
        study: its study.
        run: shows the study in MLflow; None where nothing is tracked.
    """

    spec: SweepSpec
    study: optuna.Study
    run: StudyRun | None = None
    console: Console = field(
        default_factory=lambda: Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False)
    )

    def __post_init__(self) -> None:
        self._told: set[int] = {trial.number for trial in self._trials() if trial.state.is_finished()}
        self._new: list[float] = []
        self._began = time.monotonic()
        self._drawn = 0.0
        self._status: Status | None = None

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(line)

    def __enter__(self) -> SweepDisplay:
        if self.console.is_terminal:
            self._status = self.console.status("")
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def refresh(self) -> None:
        """Tell of the trials that ended since the last call."""
        trials = self._trials()
        ended = [trial for trial in trials if trial.state.is_finished() and trial.number not in self._told]
        for trial in sorted(ended, key=lambda trial: trial.datetime_complete or datetime.min):
            self._told.add(trial.number)
            if trial.user_attrs.get("surplus"):
                continue
            self._new.append(time.monotonic())
            self.say(f"{self._line(trial, trials)}  {self._standing(trials)}")
        if ended and self.run is not None:
            self.run.update(summarise(self.study))
            if time.monotonic() > self._drawn + FIGURES_SECONDS:
                self.draw()
        if self._status is not None:
            self._status.update(self._standing(trials))

    def draw(self) -> None:
        """Draw the study's figures into its folder, and show them in MLflow."""
        from mmsa.sweep.figures import write_study_figures

        folder = Path(self.spec.folder) / "figures"
        write_study_figures(self.study, folder)
        if self.run is not None:
            self.run.add_figures(folder)
        self._drawn = time.monotonic()

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _line(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> str:
        varying = " ".join("=".join(map(short, text.split("="))) for text in trial.user_attrs.get("overrides", []))
        head = f"trial {trial.number:>3}"
        if trial.state == TrialState.FAIL:
            return f"{head}  failed: {trial.user_attrs.get('reason', 'for an unknown reason')}  ({varying})"
        if trial.state == TrialState.PRUNED:
            return f"{head}  pruned: {trial.user_attrs.get('reason', '')}  ({varying})"
        values = ", ".join(f"{n} {v:.4g}" for n, v in zip(self.spec.objectives, trial.values or (), strict=True))
        mark = " *" if self._best(trials) == trial.number else ""
        return f"{head}  {values}{mark}  ({varying})"

    def _standing(self, trials: list[FrozenTrial]) -> str:
        """How far the sweep is: done, pruned, failed, running, best so far, and when it may end."""
        done = sum(trial.state in DONE for trial in trials)
        pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        parts = [f"{done}/{self.spec.total} done"]
        parts += [f"{pruned} pruned"] if pruned else []
        parts += [f"{len(failed)} failed"] if (failed := failures(trials)) else []
        parts += [f"{running} running"]
        best = self._best(trials)
        if best is not None:
            value = next(trial.values[0] for trial in trials if trial.number == best)
            parts.append(f"best {value:.4g} (trial {best})")
        left = self.spec.total - done
        if left > 0 and self._new:
            per_trial = (self._new[-1] - self._began) / len(self._new)
            parts.append(f"ends about {_clock(timedelta(seconds=left * per_trial))}")
        return ", ".join(parts)

    def _best(self, trials: list[FrozenTrial]) -> int | None:
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if len(self.spec.modes) != 1 or self.spec.options["final"] or not done:
            return None
        sign = 1.0 if self.spec.modes[0] == "min" else -1.0
        return min(done, key=lambda trial: sign * trial.values[0]).number


def opening_lines(
    spec: SweepSpec, study: optuna.Study, slots: list[str], num_slots: int, seconds: float | None, command: str
) -> list[str]:
    """What is said before the first trial.

    Args:
        spec: the sweep.
        study: its study.
        slots: names of the slots, or what starts the workers.
        num_slots: trials at a time.
        seconds: how long a run takes, as far as is known.
        command: what to type to go on with the sweep.
    """
    trials = study.get_trials(deepcopy=False)
    done = sum(trial.state in DONE for trial in trials)
    what = "a grid of" if spec.num_points is not None else f"{study_kind(spec)} over"
    count = f"{spec.num_points} points" if spec.num_points is not None else ", ".join(typed_dimensions(spec))
    lines = [f"sweep {spec.study}: {what} {count}"]
    seeds = f", {spec.options['seeds']} seeds each" if spec.options["seeds"] > 1 else ""
    found = f" ({done} of them are there)" if done else ""
    lines.append(f"  trials:  {spec.total}{found}{seeds}; objective: {', '.join(spec.objectives)}")
    lines.append(f"  slots:   {', '.join(slots)}")
    lines.append(f"  storage: {without_password(spec.storage)}")
    left = max(0, spec.total - done)
    if left and seconds is not None:
        rounds = -(-left // num_slots)
        whole = timedelta(seconds=round(rounds * seconds * spec.options["seeds"]))
        lines.append(
            f"  time:    about {whole} without pruning, by {seconds:.0f} s for a run (ends about {_clock(whole)})"
        )
    elif left:
        lines.append("  time:    told after the first trial; there is no run on these data to tell by")
    lines.append(f"  go on with it, when it was stopped: {command}")
    return lines


def typed_dimensions(spec: SweepSpec) -> list[str]:
    """The dimensions of a study, by their short names."""
    from mmsa.sweep.space import read_space

    space = read_space(spec.space, spec.arguments, seeds_allowed=spec.options["final"])
    return [typed_key(name) for name in space.distributions]


def study_kind(spec: SweepSpec) -> str:
    """The sampler's name, as it is chosen."""
    name = str(spec.sampler["_target_"]).rpartition(".")[2]
    return f"a search ({name.removeprefix('create_').removesuffix('_sampler').removesuffix('Sampler')})"


def usual_seconds(outputs: Path, fingerprint: str) -> float | None:
    """How long finished runs on these data took, in the median; None without any."""
    from mmsa.errors import DataError
    from mmsa.record import RunRecord

    seconds = []
    for folder in sorted((outputs / "runs").glob("*/"))[-200:]:
        try:
            record = RunRecord.read(folder)
        except DataError:
            continue
        if record.status == "finished" and record.data.fingerprint == fingerprint:
            seconds.append(record.seconds or 0.0)
    return statistics.median(seconds) if seconds else None


def while_running(work: Callable[[], None], refresh: Callable[[], None], every: float = 1.0) -> None:
    """Do what blocks in a thread of its own, and refresh the display until it is through; its errors are raised."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again below, in the thread that can tell it)
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        refresh()
        thread.join(every)
    refresh()
    if errors:
        raise errors[0]


def _clock(ahead: timedelta) -> str:
    end = datetime.now() + ahead
    return f"{end:%H:%M}" if ahead < timedelta(hours=20) else f"{end:%a %H:%M}"
