"""Once per multirun: tie its runs together, make the database, and end in a table."""

from __future__ import annotations

import os
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mmsa.config import check_value
from mmsa.errors import ConfigError

MOST_NAMED = 10
"""Runs of an interrupted multirun that are named."""


class MultirunCallback(Callback):
    """Hydra's callback around a multirun."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the multirun, count its runs, and make the tracking database before any worker starts."""
        from mmsa.cluster import watched
        from mmsa.parts import build_tracker
        from mmsa.reporting import in_few_lines
        from mmsa.run_folder import NUM_RUNS_VARIABLE, SWEEP_VARIABLE, check_paths
        from mmsa.secrets import conceal

        conceal(config)  # before a launcher writes it into a file for its jobs
        if config.get("sweep"):  # which makes its own study, and ends in its own table
            return
        watched(config.hydra.launcher)
        try:
            check_value("paths.outputs", config.paths.outputs, str)
            check_paths(config.paths)
            build_tracker(config, warn=print).prepare()
        except ConfigError as error:
            sys.exit(f"error: {in_few_lines(error)}")  # of any other exception of a callback Hydra makes a warning
        os.environ[SWEEP_VARIABLE] = f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
        if num_runs := len(_jobs(config)) or config.hydra.sweeper.get("n_trials"):  # of Optuna's plain sweeper
            os.environ[NUM_RUNS_VARIABLE] = str(num_runs)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep secrets out of the files that Hydra may write."""
        from mmsa.secrets import conceal

        conceal(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print one row per configuration over its seeds; failures have been printed. Name the runs that are left."""
        stopped = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        here = config.hydra.launcher._target_.endswith("BasicLauncher")
        if stopped and here and "mmsa.experiment" not in sys.modules:
            return  # in the imports of the first run, which nobody can take up again
        from mmsa.analysis.selection import Selection
        from mmsa.analysis.tables import report
        from mmsa.commands import report_command
        from mmsa.run_folder import NUM_RUNS_VARIABLE, SWEEP_VARIABLE
        from mmsa.settling import settle
        from mmsa.summaries import renew_summaries

        os.environ.pop(NUM_RUNS_VARIABLE, None)
        sweep, outputs = os.environ.pop(SWEEP_VARIABLE, None), Path(config.paths.outputs)
        if sweep is None:
            return
        asked = Selection(outputs, sweeps=(sweep,))
        runs = asked.read().runs
        if runs:
            print(report(asked))
            print(f"the same table later: {report_command(config.paths.outputs, sweep)}")
            renew_summaries(outputs, config, print)
        if stopped:
            if config.hydra.launcher._target_.endswith("JoblibLauncher"):  # which has killed its workers by now
                settle(config, print)
            print("\n".join(_rest(config, {run.overrides for run in runs})))


def _overrides(config: DictConfig) -> list[str]:
    """The overrides of a multirun as Hydra has them; a `${encoder}` in one is for the runs to resolve."""
    return cast(list[str], OmegaConf.to_container(config.hydra.overrides.task, resolve=False))


def _jobs(config: DictConfig) -> list[tuple[str, ...]]:
    """The overrides of each run of a multirun; none where nobody knows them before they start."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    from mmsa.overrides import typed_overrides

    if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
        return []
    listed = [f"{key}={values}" for key, values in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*listed, *_overrides(config)])
    try:
        (batch,) = BasicSweeper.split_arguments(parsed, None)
    except HydraException:  # which Hydra says itself
        return []
    return [tuple(typed_overrides(job)) for job in batch]


def _rest(config: DictConfig, finished: set[tuple[str, ...]]) -> list[str]:
    """The unfinished runs of an interrupted multirun, and the grid that would resume them.

    Args:
        config: of the multirun.
        finished: the overrides of each run that has ended.
    """
    from mmsa.commands import train_command
    from mmsa.compose import typed_config_folders
    from mmsa.overrides import typed_overrides

    jobs = _jobs(config)
    if not jobs:
        return []
    rest = [job for job in jobs if job not in finished]
    lines = [f"stopped: {len(rest)} of {len(jobs)} runs are not finished:"]
    lines += ["  " + " ".join(o for o in job if any(o not in other for other in jobs)) for job in rest[:MOST_NAMED]]
    lines += [f"  and {len(rest) - MOST_NAMED} more"] if len(rest) > MOST_NAMED else []
    grid = train_command(["sweep=grid", *typed_overrides(_overrides(config))], typed_config_folders())
    return [*lines, f"a grid keeps count of its runs, and the same command resumes it: {grid}"]
