"""Multimodal sentiment analysis: run, compare and trust experiments.

import mmsa
result = mmsa.run(["regularizer=m3", "feedback=mmlatch"])   # metrics, predictions, run id, folder
several = mmsa.run(["regularizer=m3"], seeds=[1, 2, 3])     # mean and std of each metric, and the runs
trained = mmsa.load(result.folder)                          # the selected weights and their data
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from mmsa.analysis.comparison import TrainedRun
    from mmsa.experiment import RunResult
    from mmsa.seeds import SeedsResult

__version__ = "0.1.0"


@overload
def run(overrides: Sequence[str] = (), quiet: bool = False, seeds: None = None) -> RunResult: ...


@overload
def run(overrides: Sequence[str] = (), quiet: bool = False, *, seeds: Sequence[int]) -> SeedsResult: ...


def run(
    overrides: Sequence[str] = (), quiet: bool = False, seeds: Sequence[int] | None = None
) -> RunResult | SeedsResult:
    """Do what `python train.py OVERRIDES` does, and return the result.

    Args:
        overrides: as on the command line, such as "feedback=mmlatch".
        quiet: print nothing.
        seeds: run it with each of them, one after the other; None is one run, with the seed of the overrides.

    Returns:
        The result of the run, or of all with the mean and standard deviation of each metric.

    Raises:
        MmsaError: an error that the user can fix; the message says how.
    """
    if seeds is not None:
        from mmsa.seeds import run_seeds

        return run_seeds(overrides, seeds, quiet)
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
