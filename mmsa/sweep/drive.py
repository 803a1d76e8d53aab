"""A sweep in the terminal: its lines before, during and after."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState
from rich.console import Console
from rich.text import Text

from mmsa.display import console
from mmsa.errors import printable
from mmsa.occupancy import run_folders
from mmsa.secrets import hidden
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.report import short, standing, under_way
from mmsa.sweep.running import APART, former_record, why_apart_in_trials
from mmsa.sweep.study_run import StudyRun
from mmsa.sweep.summary import Summary, TrialRecord, summarise
from mmsa.sweep.trials import MOST_SEEDS

FIGURES_SECONDS = 60.0
"""How long the figures of a study may be behind: drawing them takes seconds, of which the trials have better use."""
READING_SHARE = 0.1
"""The share of its time that the parent of a sweep reads the study, which takes longer the more trials it has."""
RUNNING_SECONDS = 600.0
"""How often the running trials are printed where there is no live line."""


@dataclass
class SweepDisplay:
    """Shows the progress of a sweep: a line for each trial that ends, and on a terminal live lines below.

    Args:
        folder: the sweep's.
        study: its study.
        run: shows the study in MLflow; None where nothing is tracked.
    """

    folder: Path
    study: optuna.Study
    run: StudyRun | None = None
    console: Console = field(default_factory=console)

    def __post_init__(self) -> None:
        self._states: list[tuple[TrialState, object]] | None = None
        self._told = {trial.number for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()}
        self._apart = self.study.user_attrs.get(APART)
        self.complete, self.num_ended = False, len(self._told)
        self._new: list[float] = []
        self._began = self._shown = time.monotonic()
        self._drawn = 0.0
        self._rested = 0.0
        self._status = self.console.status("")  # shows nothing where there is no terminal

    def say(self, line: str) -> None:
        """Print a line."""
        self.console.print(line)

    def __enter__(self) -> SweepDisplay:
        self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def glance(self) -> None:
        """`refresh`, unless the study was read a moment ago, as measured by what that took."""
        if time.monotonic() >= self._rested:
            self.refresh()

    def refresh(self) -> None:
        """Print the trials that ended since the last call, and from time to time those that run."""
        began = time.monotonic()
        trials = self.study.get_trials(deepcopy=False)
        states = [(trial.state, trial.user_attrs.get("owner")) for trial in trials]
        is_due = not self.console.is_terminal and time.monotonic() > self._shown + RUNNING_SECONDS
        if states == self._states and not is_due:
            self._rest(began)
            return
        summary = summarise(self.study)
        if self._apart is None and (apart := self.study.user_attrs.get(APART)):
            self._apart = apart
            self.say(printable(str(apart)))
        self._rest(began)
        rows = {row.number: row for row in summary.rows}
        ended = [trial for trial in trials if trial.state.is_finished() and trial.number not in self._told]
        for trial in sorted(ended, key=lambda trial: trial.datetime_complete or datetime.min):
            self._told.add(trial.number)
            if trial.number in rows:
                self._new.append(time.monotonic())
                self.say(f"{_line(rows[trial.number], summary)}  {self._standing(summary)}")
        if ended and self.run is not None:
            self.run.update(summary)
            if time.monotonic() > self._drawn + FIGURES_SECONDS:
                self.draw()
        self.complete, self.num_ended = summary.num_finished >= summary.total, len(self._told)
        running = under_way(summary)
        if is_due and running:
            self.say(running)
            self._shown = time.monotonic()
        lines = [Text(line) for line in (self._standing(summary), running) if line]
        for line in lines:
            line.truncate(self.console.width - 3, overflow="ellipsis")  # beside the sign that turns
        self._status.update(Text("\n").join(lines))
        self._states = states

    def _rest(self, began: float) -> None:
        now = time.monotonic()
        self._rested = now + (now - began) * (1 / READING_SHARE - 1)

    def draw(self) -> None:
        """Draw the study's figures into its folder, and show them in MLflow."""
        from mmsa.sweep.figures import write_study_figures

        write_study_figures(self.study, self.folder / "figures")
        if self.run is not None:
            self.run.add_figures(self.folder / "figures")
        self._drawn = time.monotonic()

    def _standing(self, summary: Summary) -> str:
        """How far the sweep is, when it may end, and its best value so far."""
        parts = [standing(summary)]
        left = summary.total - summary.num_finished
        if left > 0 and self._new:
            per_trial = (self._new[-1] - self._began) / len(self._new)
            parts.append(f"ends about {_clock(timedelta(seconds=left * per_trial))}")
        if summary.best and len(summary.modes) == 1:
            parts.append(f"best {summary.best[0].values[0]:.4g} (trial {summary.best[0].number})")
        return ", ".join(parts)


def _line(row: TrialRecord, summary: Summary) -> str:
    """The result of a trial, with a star where it is the best so far or on the Pareto front."""
    varying = " ".join(f"{key}={short(key, value)}" for key, value in row.overrides.items())
    head = f"trial {row.number:>3}"
    if row.state != "done":
        return f"{head}  {row.state}: {row.reason or 'for an unknown reason'}  ({varying})"
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(summary.objectives, row.values, strict=True))
    return f"{head}  {values}{' *' if row in summary.best else ''}  ({varying})"


def opening_lines(
    spec: SweepSpec, command: str, summary: Summary, slots: list[str], num_slots: int, seconds: float | None
) -> list[str]:
    """The lines before the first trial.

    Args:
        spec: the sweep.
        command: resumes it.
        summary: its study.
        slots: names of the slots, or what starts the workers.
        num_slots: trials at a time.
        seconds: how long a run takes, as far as is known.
    """
    sampler = summary.sampler.removeprefix("create_").removesuffix("_sampler").removesuffix("Sampler")
    search = f"a search ({sampler}) over {', '.join(summary.space)}"
    lines = [f"sweep {spec.study}: {search if spec.num_points is None else f'a grid of {spec.num_points} points'}"]
    seeds = f", {summary.seeds} seeds each" if summary.seeds > 1 else ""
    found = f" ({summary.num_finished} of them done)" if summary.num_finished else ""
    lines.append(f"  data:    {summary.data}")
    lines.append(f"  trials:  {summary.total}{found}{seeds}; objective: {', '.join(summary.objectives)}")
    lines.append(f"  slots:   {', '.join(slots)}")
    lines.append(f"  storage: {hidden(spec.storage)}")
    left = summary.total - summary.num_finished
    if left > 0 and seconds is not None:
        rounds = -(-left // num_slots)
        whole = timedelta(seconds=round(rounds * seconds * summary.seeds))
        lines.append(
            f"  time:    about {whole} without pruning, by {seconds:.0f} s for a run (ends about {_clock(whole)})"
        )
    elif left > 0:
        lines.append("  time:    known after the first trial; no earlier run on these data")
    lines.append(f"  to resume: {command}")
    return lines


def note_on_seeds(spec: SweepSpec, cfg: DictConfig, summary: Summary, slots: Sequence[str]) -> list[str]:
    """The line that says why seeds train one after the other; none where they train together, or nobody asks.

    Args:
        spec: the sweep.
        cfg: the configuration of its first point.
        summary: its study.
        slots: names of the slots.
    """
    of_grid = spec.options["final"] and "seed" in summary.space
    if cfg.device.pack_seeds == "off" or not (of_grid or summary.seeds > 1):
        return []
    if all(slot.startswith("cpu") for slot in slots):  # whose workers see no GPU
        cfg = OmegaConf.merge(cfg, {"device": {"accelerator": "cpu"}})  # type: ignore[assignment]
    reason = why_apart_in_trials(spec, cfg, MOST_SEEDS if of_grid else summary.seeds - (summary.pruner != "none"))
    return [f"seeds train one after the other: {reason}"] if reason else []


def usual_seconds(outputs: Path, fingerprint: str) -> float | None:
    """How long finished runs on these data took, joint ones their share of it, in the median; None without any."""
    folders = run_folders(outputs)[-200:]
    records = [record for record in map(former_record, folders) if record and record.status == "finished"]
    known = [record for record in records if record.data.fingerprint == fingerprint]
    seconds = [(record.seconds or 0.0) / max(1, len(record.packed.seeds)) for record in known]
    return statistics.median(seconds) if seconds else None


def while_running(
    work: Callable[[], None],
    refresh: Callable[[], object],
    enough: Callable[[], bool] = lambda: False,
    every: float = 1.0,
) -> None:
    """Do what blocks in a thread of its own, and refresh the display until it is through; its errors are raised.

    Args:
        work: what blocks.
        refresh: of the display.
        enough: whether to wait no longer.
        every: seconds between two calls.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again below, in the thread that can tell it)
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive() and not enough():
        refresh()
        thread.join(every)
    refresh()
    if errors:
        raise errors[0]


def _clock(ahead: timedelta) -> str:
    end = datetime.now() + ahead
    return f"{end:%H:%M}" if ahead < timedelta(hours=20) else f"{end:%a %H:%M}"
