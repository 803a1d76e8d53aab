"""Multimodal sentiment analysis: run, compare and trust experiments.

import mmsa
result = mmsa.run(["regularizer=m3", "feedback=mmlatch"])   # metrics, predictions, run id, folder
trained = mmsa.load(result.folder)                          # the selected weights and their data
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsa.analysis.comparison import TrainedRun
    from mmsa.experiment import RunResult

__version__ = "0.1.0"


def run(overrides: Sequence[str] = (), quiet: bool = False) -> RunResult:
    """Do what `python train.py OVERRIDES` does, and return the result.

    Args:
        overrides: as on the command line, such as "feedback=mmlatch".
        quiet: print nothing.

    Raises:
        MmsaError: an error that the user can fix; the message says how.
    """
    from mmsa.compose import compose
    from mmsa.experiment import run as run_experiment

    return run_experiment(compose(overrides), list(overrides), quiet)


def load(folder: str | Path, data: str | Path | None = None) -> TrainedRun:
    """Load a trained run: its model with the selected weights, its task and its data.

    Args:
        folder: the run's folder.
        data: a folder of stores, for a run whose data were moved away from it; None looks beside the run, where the
            store was, and in paths.data.

    Raises:
        DataError: the folder is not a run's, or its data are not found.
    """
    from mmsa.trained import load_run

    return load_run(Path(folder), None if data is None else Path(data))
