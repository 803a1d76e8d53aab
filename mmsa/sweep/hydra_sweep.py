"""A sweep from Hydra's side: set up, started on slots or by a launcher, and concluded."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from mmsa import build, parts
from mmsa.cluster import Jobs, requeue_by_default, watched
from mmsa.commands import report_command, worker_command
from mmsa.errors import ConfigError, MmsaError, first_line, printable
from mmsa.occupancy import give_back, take
from mmsa.overrides import text_override
from mmsa.secrets import check_place, hidden
from mmsa.settling import settle
from mmsa.summaries import renew_summaries
from mmsa.sweep.checking import check_sweep
from mmsa.sweep.drive import SweepDisplay, note_on_seeds, opening_lines, usual_seconds
from mmsa.sweep.endings import end_overdue, note_death
from mmsa.sweep.lasting import StorageAway, at_once
from mmsa.sweep.launching import Launched
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.report import report
from mmsa.sweep.setup import Sweep, reopen, set_up
from mmsa.sweep.slots import SlotPlan, SlotRules, choose_slots
from mmsa.sweep.study_run import RUN_ID, StudyRun, ended_as
from mmsa.sweep.summary import summarise
from mmsa.sweep.supervisor import POLL_SECONDS, Limits, Supervisor
from mmsa.sweep.weights import drop_weights
from mmsa.sweep.worker import entered
from mmsa.tracking.mlflow import MLflowTracker

EXIT_INTERRUPTED = 130
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def sweep(
    launching: Mapping[str, Any], sampler: Any, params: Mapping[str, Any] | None, arguments: Sequence[str]
) -> None:
    """Check a sweep, set it up, run it until its total, its time or a Ctrl-C, and print the outcome.

    Args:
        launching: what a launcher is made of: the multirun's config, its hydra_context, and the task_function.
        sampler: node of the sampler.
        params: a search space beside that of `sweep.space`.
        arguments: overrides of train.py, in Hydra's own words.

    Raises:
        MmsaError: an error that the user can fix.
    """
    config: DictConfig = launching["config"]
    if config.get("sweep") is None:
        raise ConfigError("hydra/sweeper=mmsa needs an option of the group sweep.\n  type sweep=search")
    choice = str(config.hydra.runtime.choices.sweep)
    node: dict[str, Any] = OmegaConf.to_container(sampler, resolve=True)  # type: ignore[assignment]
    checked = check_sweep(config, node, params or {}, arguments)
    options = checked.search.options
    if config.hydra.launcher._target_ == BASIC_LAUNCHER:
        plan = plan_slots(checked.base, options, options["slots"])
        limits = Limits.of(options)
        made = set_up(checked, choice)
        on_slots(made, plan, limits, study_run(made))
    elif options["workers"] is None:
        raise ConfigError("a launcher needs to know how many workers to start.\n  type sweep.workers=8")
    else:
        made = set_up(checked, choice)
        jobs = watched(config.hydra.launcher)
        launcher: Any = Plugins.instance().instantiate_launcher(**launching)
        if jobs is not None:
            requeue_by_default(launcher.params, config.hydra.overrides.hydra)
        by_launcher(made, launcher, jobs, choice)


def plan_slots(base: DictConfig, options: Mapping[str, Any], slots: str | int | list[str]) -> SlotPlan:
    """The slots of this machine that a sweep takes.

    Args:
        base: a configuration of the sweep.
        options: of the sweep.
        slots: as `sweep.slots`.

    Raises:
        ConfigError: there is no such slot, or no room on it.
    """
    device = base.device
    rules = SlotRules(device.accelerator, device.threads, options["slots_per_gpu"], options["gpu_memory"])
    return choose_slots(slots, rules)


def on_slots(made: Sweep, plan: SlotPlan, limits: Limits, run: StudyRun | None) -> None:
    """Run a sweep by worker processes on slots of this machine.

    Args:
        made: the sweep.
        plan: its slots.
        limits: its times.
        run: shows the study in MLflow; None does not.

    Raises:
        MmsaError: it ended before its total by too many failures, or could not start.
    """
    display = announce(made, [slot.name for slot in plan.slots], len(plan.slots), plan.notes, run)
    guarded = Patience(display.say)
    noted = of_trials(guarded, lambda: made.study, made.spec)
    folder, folders = Path(made.spec.folder), made.spec.config_folders
    with (
        display,
        looked_after(folder),
        Supervisor(folder, plan.slots, limits, display.say, *noted, folders) as supervisor,
    ):
        while supervisor.step():
            guarded(display.glance)
            time.sleep(POLL_SECONDS)
        guarded(display.refresh)
    ended = EXIT_INTERRUPTED if supervisor.interrupts else 0 if limits.are_over() else None
    otherwise = "the storage was away" if supervisor.away else "no slot is left whose workers start"
    with at_once() if supervisor.away else nullcontext():  # the workers have waited long enough
        conclude(made, display, ended, otherwise, supervisor.no_room)


def of_trials(
    guarded: Patience, study: Callable[[], optuna.Study], spec: SweepSpec
) -> tuple[Callable[[int, str], bool], Callable[[int, str], bool]]:
    """The calls of a supervisor about a trial whose worker died, and about one that takes too long.

    Args:
        guarded: calls them.
        study: opens the study.
        spec: of the sweep.
    """
    teaches = not spec.options["final"]
    return (
        lambda number, reason: guarded(lambda: note_death(study(), number, reason), later=True),
        lambda number, reason: guarded(lambda: end_overdue(study(), number, reason, teaches)),
    )


def by_launcher(made: Sweep, launcher: Any, jobs: Jobs | None, choice: str) -> None:
    """Run a sweep by the jobs of a launcher, each of which is a worker.

    Args:
        made: the sweep.
        launcher: Hydra's.
        jobs: what SLURM does with them; None under another launcher.
        choice: option of the group sweep.

    Raises:
        MmsaError: the launcher started none, or the sweep ended before its total.
    """
    workers = made.spec.options["workers"]
    display = announce(made, [f"{workers} jobs of {type(launcher).__name__}"], workers, (), study_run(made))
    words = [[f"sweep={choice}", text_override("sweep.join", made.spec.folder)] for _ in range(workers)]
    refresh = partial(Patience(display.say), display.refresh)
    launched = Launched(partial(launcher.launch, words, initial_job_idx=0), jobs, display, refresh)
    ended, reason = None, ""
    with display, looked_after(Path(made.spec.folder)):
        try:
            reason = launched.wait()
        except KeyboardInterrupt:
            display.say("the jobs continue without this display; the cluster's own command ends them")
            ended = EXIT_INTERRUPTED
    conclude(made, display, ended, "no job is left that works", reason)


@contextmanager
def looked_after(folder: Path) -> Iterator[None]:
    """While this process looks after a sweep; a second one that does so may find it taken, which costs nothing."""
    lock = take(folder, of_trial=True)
    try:
        yield
    finally:
        give_back(folder, lock, settled=lock.is_mine)


@dataclass
class Patience:
    """Calls functions that use the storage once, as a sweep's parent has to look after its workers meanwhile.

    Args:
        say: takes the line about the first failure, and that about its end.
    """

    say: Callable[[str], None]
    _away: bool = False
    _later: list[Callable[[], None]] = field(default_factory=list)

    def __call__(self, action: Callable[[], None], later: bool = False) -> bool:
        """Whether the storage answered; where it did not, an action for `later` is done with the next call."""
        try:
            with at_once():
                for missed in [*self._later]:
                    missed()
                    self._later.remove(missed)
                action()
        except (MmsaError, OSError) as error:
            if later:
                self._later.append(action)
            if not self._away:
                said = hidden(first_line(error))[:160]
                self.say(f"the storage does not answer; the trials continue: {said}")
            self._away = True
            return False
        if self._away:
            self.say("the storage answers again")
        self._away = False
        return True


def announce(made: Sweep, slots: list[str], num_slots: int, notes: Sequence[str], run: StudyRun | None) -> SweepDisplay:
    """Print the plan."""
    spec = made.spec
    summary = summarise(made.study)
    seconds = usual_seconds(Path(made.base.paths.outputs), summary.fingerprint)
    display = SweepDisplay(Path(spec.folder), made.study, run)
    for line in opening_lines(spec, made.command, summary, slots, num_slots, seconds):
        display.say(line)
    of_seeds = note_on_seeds(spec, made.base, summary, slots)
    for note in [*([made.note] if made.note else []), *notes, *of_seeds]:
        display.say(f"  note: {note}")
    return display


def study_run(made: Sweep) -> StudyRun | None:
    """The study's run in MLflow, whose database is made here, before any worker starts; None where nothing is shown."""
    tracker = parts.build_tracker(made.base, warn=print)
    tracker.prepare()
    settle(made.base, print)
    if not isinstance(tracker, MLflowTracker) or made.spec.options["final"]:
        return None
    run = StudyRun(tracker)
    run.open(summarise(made.study), made.study.user_attrs.get(RUN_ID))
    made.study.set_user_attr(RUN_ID, tracker.run_id)
    return run


def conclude(made: Sweep, display: SweepDisplay, ended: int | None, otherwise: str, reason: str = "") -> None:
    """Print the outcome of a sweep, and the next command.

    Args:
        made: the sweep.
        display: its display.
        ended: exit code where it was ended before its total, by a signal or by its time; None where it was not.
        otherwise: why it ended, where no trial failed.
        reason: how a launcher's jobs ended, or what could not be written on a full disk.

    Raises:
        MmsaError: it is not complete, for another reason.
    """
    try:
        _conclude(made, display, ended, otherwise, reason)
    except StorageAway as away:
        said = str(away).splitlines()[0]
        raise StorageAway(f"{said}\n  the trials are kept; when it answers, resume: {made.command}") from away


def _conclude(made: Sweep, display: SweepDisplay, ended: int | None, otherwise: str, reason: str) -> None:
    spec, summary = made.spec, summarise(made.study)
    complete = summary.num_finished >= summary.total
    standing = ended_as(made.study, summary, spec.options["max_failures"])
    drop_weights(made.study, Path(spec.folder))
    settle(made.base, print)
    if not spec.options["final"]:
        display.draw()
    if display.run is not None:
        display.run.finish(summary, standing)
        made.study.set_user_attr(RUN_ID, display.run.tracker.run_id)  # it may have been opened late
    if summary.counts["done"]:
        print(report(Path(spec.folder).parents[1], spec.study))
        print(f"the same table later: {report_command(made.base.paths.outputs, spec.study)}")
    if spec.options["final"]:
        renew_summaries(Path(made.base.paths.outputs), made.base, print)
    if complete and not summary.counts["done"]:
        last = next(row.reason for row in reversed(summary.rows) if row.state == "pruned")
        raise MmsaError(f"none of {summary.total} trials has a value, the last one: {last}\n  try another range")
    if complete:
        return
    left = f"{summary.num_finished} of {summary.total} trials are done; resume it: {made.command}"
    if ended is None:
        why = reason or otherwise
        if (standing == "FAILED" or not reason) and (
            failed := [row.reason or "for an unknown reason" for row in summary.rows if row.state == "failed"]
        ):
            why = f"{len(failed)} trials failed, the last one: {failed[-1]}"
        raise MmsaError(f"{why}\n  {left}\n  output of the workers: {spec.folder}/workers")
    print(printable(left))
    if ended:
        sys.exit(ended)


def join_here(folder: Path, slots: str | int | list[str], config_folders: Sequence[str] = ()) -> None:
    """Run further trials of a sweep that was set up elsewhere, on the slots of this machine.

    Args:
        folder: the sweep's folder, which both machines see.
        slots: as `sweep.slots`.
        config_folders: folders of configuration files, absolute.

    Raises:
        MmsaError: an error that the user can fix.
    """
    here, typed = Path.cwd(), [str(slot) for slot in (slots if isinstance(slots, list) else [slots])]
    spec = SweepSpec.load(folder)
    check_place("sweep.storage", spec.storage)
    made = reopen(entered(spec, config_folders), worker_command(folder, typed, config_folders))
    build.check(made.base)
    if here != Path.cwd():  # the printed commands are for the folder in which this was typed
        os.chdir(here)
        made.base.paths.outputs = str(Path(made.spec.folder).parents[1])
    limits = replace(Limits.of(made.spec.options), until=None)
    on_slots(made, plan_slots(made.base, made.spec.options, slots), limits, None)
