"""A sweep from Hydra's side: set up, started on slots or by a launcher, and concluded."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from mmsa import build
from mmsa.commands import report_command
from mmsa.errors import ConfigError, MmsaError
from mmsa.sweep.drive import SweepDisplay, opening_lines, usual_seconds, while_running
from mmsa.sweep.report import report
from mmsa.sweep.setup import Sweep, reopen, set_up
from mmsa.sweep.slots import choose_slots
from mmsa.sweep.study_run import StudyRun
from mmsa.sweep.summary import summarise
from mmsa.sweep.supervisor import POLL_SECONDS, Supervisor
from mmsa.sweep.trials import DONE, failures, note_death
from mmsa.tracking.mlflow import MLflowTracker

RUN_ID = "mlflow_run_id"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def sweep(
    launching: Mapping[str, Any],
    sampler: Any,
    params: Mapping[str, Any] | None,
    extender: str | None,
    arguments: Sequence[str],
) -> None:
    """Set a sweep up, run it until its total, its time or a Ctrl-C, and say what came of it.

    Args:
        launching: what a launcher is made of: the multirun's config, its hydra_context, and the task_function.
        sampler: node of the sampler.
        params: a search space beside that of `sweep.space`.
        extender: dotted name of a function that suggests further parameters.
        arguments: what was typed after train.py, in Hydra's own words.

    Raises:
        MmsaError: what the user can mend.
    """
    config: DictConfig = launching["config"]
    if config.get("sweep") is None:
        raise ConfigError("hydra/sweeper=mmsa: what is searched, and how, is in the group sweep.\n  type sweep=search")
    choice = str(config.hydra.runtime.choices.sweep)
    node: dict[str, Any] = OmegaConf.to_container(sampler, resolve=True)  # type: ignore[assignment]
    made = set_up(config, choice, node, params or {}, extender, arguments)
    options = made.spec.options
    until = time.time() + 60 * options["timeout"] if options["timeout"] else None
    if config.hydra.launcher._target_ == BASIC_LAUNCHER:
        on_slots(made, until, options["slots"])
    else:
        by_launcher(made, Plugins.instance().instantiate_launcher(**launching), choice)


def on_slots(made: Sweep, until: float | None, slots: Literal["auto"] | int | list[str]) -> None:
    """Run a sweep by worker processes on the slots of this machine.

    Raises:
        MmsaError: it ended before its total by too many failures, or could not start.
    """
    options, device = made.spec.options, made.base.device
    plan = choose_slots(slots, device.accelerator, device.threads, options["slots_per_gpu"], options["gpu_memory"])
    display = announce(made, [slot.name for slot in plan.slots], len(plan.slots), plan.notes)
    died = partial(note_death, made.study)
    with display, Supervisor(Path(made.spec.folder), plan.slots, until, display.say, died) as supervisor:
        while supervisor.step():
            display.refresh()
            time.sleep(POLL_SECONDS)
        display.refresh()
    conclude(made, display, interrupted=supervisor.interrupts > 0)


def by_launcher(made: Sweep, launcher: Any, choice: str) -> None:
    """Run a sweep by the jobs of a launcher, each of which is a worker."""
    workers = made.spec.options["workers"]
    if workers is None:
        raise ConfigError("a launcher needs to know how many workers to start.\n  type sweep.workers=8")
    display = announce(made, [f"{workers} jobs of {type(launcher).__name__}"], workers, ())
    folder = made.spec.folder.replace("\\", "\\\\").replace("'", "\\'")
    jobs = [[f"sweep={choice}", f"sweep.join='{folder}'"] for _ in range(workers)]
    with display:
        while_running(lambda: launcher.launch(jobs, initial_job_idx=0), display.refresh)
    conclude(made, display, interrupted=False)


def announce(made: Sweep, slots: list[str], num_slots: int, notes: Sequence[str]) -> SweepDisplay:
    """Say what is going to happen."""
    spec = made.spec
    seconds = usual_seconds(Path(made.base.paths.outputs), made.study.user_attrs["mmsa"]["fingerprint"])
    display = SweepDisplay(spec, made.study, study_run(made))
    for line in opening_lines(spec, made.study, slots, num_slots, seconds, made.command):
        display.say(line)
    for note in (*made.notes, *notes):
        display.say(f"  note: {note}")
    return display


def study_run(made: Sweep) -> StudyRun | None:
    """The study's run in MLflow, whose database is made here, before any worker starts; None where nothing is shown."""
    tracker = build.build_tracker(made.base, warn=print)
    tracker.prepare()
    if not isinstance(tracker, MLflowTracker) or made.spec.options["final"]:
        return None
    run = StudyRun(tracker.outputs, tracker.uri, tracker.experiment, print)
    opened = run.open(summarise(made.study), made.study.user_attrs.get(RUN_ID))
    if opened is not None:
        made.study.set_user_attr(RUN_ID, opened)
    return run


def conclude(made: Sweep, display: SweepDisplay, interrupted: bool) -> None:
    """Say what came of a sweep, and what to type next.

    Raises:
        MmsaError: it is not complete, for another reason than a Ctrl-C or its time.
    """
    trials = made.study.get_trials(deepcopy=False)
    spec, done = made.spec, sum(trial.state in DONE for trial in trials)
    failed = failures(trials)
    too_many = len(failed) >= spec.options["max_failures"]
    if not spec.options["final"]:
        display.draw()
    if display.run is not None:
        ending: Literal["FAILED", "KILLED"] = "FAILED" if too_many else "KILLED"
        display.run.finish(summarise(made.study), "FINISHED" if done >= spec.total else ending)
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        print(report(Path(spec.folder).parents[1], spec.study))
        print(f"the same table later: {report_command(made.base.paths.outputs, spec.study)}")
    if done >= spec.total:
        return
    left = f"{done} of {spec.total} trials are done; go on with: {made.command}"
    if too_many or (failed and spec.num_points is not None):
        reason = str(failed[-1].user_attrs.get("reason", "for an unknown reason"))
        raise MmsaError(f"{len(failed)} trials failed, the last one: {reason}\n  {left}")
    print(left)
    if interrupted:
        sys.exit(130)


def join_here(folder: Path, slots: Literal["auto"] | int | list[str]) -> None:
    """Run further trials of a sweep that was set up elsewhere, on the slots of this machine.

    Args:
        folder: the sweep's folder, which both machines see.
        slots: as `sweep.slots`.

    Raises:
        MmsaError: what the user can mend.
    """
    made = reopen(folder)
    try:
        os.chdir(made.spec.working_folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}: its relative paths begin in {made.spec.working_folder}, and this machine has no such folder.\n"
            "  mount it there"
        ) from error
    on_slots(made, None, slots)
