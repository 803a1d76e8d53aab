"""What a multirun does once: ties its runs together, makes the database, and ends in a table."""

from __future__ import annotations

import os
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class MultirunCallback(Callback):
    """Hydra's callback around a multirun."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the multirun, and make the tracking database before any worker starts."""
        from mmsa.build import build_tracker
        from mmsa.experiment import SWEEP_VARIABLE, check_outputs

        check_outputs(Path(config.paths.outputs))
        build_tracker(config, warn=print).prepare()
        os.environ[SWEEP_VARIABLE] = f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print one row per configuration over its seeds."""
        from mmsa.analysis.tables import report
        from mmsa.experiment import SWEEP_VARIABLE

        sweep = os.environ.pop(SWEEP_VARIABLE)
        print(report(Path(config.paths.outputs), sweep=sweep))
        print(f"the same table later: mmsa report --sweep {sweep}")
