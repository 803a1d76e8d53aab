"""What a multirun does once: ties its runs together, makes the database, and ends in a table."""

from __future__ import annotations

import os
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from mmsa.errors import ConfigError


class MultirunCallback(Callback):
    """Hydra's callback around a multirun."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the multirun, and make the tracking database before any worker starts."""
        from mmsa.build import build_tracker
        from mmsa.journal import SWEEP_VARIABLE
        from mmsa.run_folder import check_outputs

        if config.get("sweep"):  # which makes its own study, and ends in its own table
            return
        try:
            check_outputs(Path(config.paths.outputs))
        except ConfigError as error:
            sys.exit(f"error: {error}")  # of any other exception of a callback Hydra makes a warning
        build_tracker(config, warn=print).prepare()
        os.environ[SWEEP_VARIABLE] = f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print one row per configuration over its seeds; those that failed have said so."""
        from mmsa.analysis.runs import read_runs
        from mmsa.analysis.tables import report
        from mmsa.commands import report_command
        from mmsa.journal import SWEEP_VARIABLE

        sweep, outputs = os.environ.pop(SWEEP_VARIABLE, None), Path(config.paths.outputs)
        if sweep is None or not any(run.sweep == sweep for run in read_runs(outputs).runs):
            return
        print(report(outputs, sweep=sweep))
        print(f"the same table later: {report_command(config.paths.outputs, sweep)}")
