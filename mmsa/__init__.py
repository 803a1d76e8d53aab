"""Multimodal sentiment analysis: run, compare and trust experiments.

import mmsa
result = mmsa.run(["regularizer=m3", "feedback=mmlatch"])   # metrics, predictions, run id, folder
several = mmsa.run(["regularizer=m3"], seeds=[1, 2, 3])     # mean and std of each metric, and the runs
trained = mmsa.load(result.folder)                          # the selected weights and their data
mmsa.predict("outputs/models/NAME", {"text": words})        # of a model that `mmsa pack` made
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from mmsa.analysis.comparison import TrainedRun
    from mmsa.experiment import RunResult
    from mmsa.seeds import SeedsResult
    from mmsa.serving.packed import PackedModel, Predictions

__version__ = "0.1.0"
_turn = threading.RLock()


@overload
def run(overrides: Sequence[str] = (), quiet: bool = False, seeds: None = None) -> RunResult: ...


@overload
def run(overrides: Sequence[str] = (), quiet: bool = False, *, seeds: Sequence[int]) -> SeedsResult: ...


def run(
    overrides: Sequence[str] = (), quiet: bool = False, seeds: Sequence[int] | None = None
) -> RunResult | SeedsResult:
    """Do what `python train.py OVERRIDES` does, and return the result.

    Threads take turns: all runs of a process draw dropout from PyTorch's one generator. Afterwards the process is as it
    was: its threads, generators, determinism, environment and loggers.

    Args:
        overrides: as on the command line, such as "feedback=mmlatch".
        quiet: print nothing.
        seeds: run it with each of them; None is one run, with the seed of the overrides.

    Returns:
        The result of the run, or of all with the mean and standard deviation of each metric.

    Raises:
        MmsaError: an error that the user can fix; the message says how.
    """
    listed = isinstance(overrides, Sequence) and not isinstance(overrides, str)
    if not listed or not all(isinstance(override, str) for override in overrides):
        from mmsa.errors import ConfigError

        form = overrides.split() if isinstance(overrides, str) else ["fusion=concat", "seed=2"]
        raise ConfigError(f"{overrides}: a list of overrides is needed.\n  type mmsa.run({form})")
    from mmsa.process import left_as_it_was

    with _turn, left_as_it_was():
        if seeds is not None:
            from mmsa.seeds import run_seeds

            return run_seeds(overrides, seeds, quiet)
        from mmsa.compose import compose
        from mmsa.experiment import run as run_experiment
        from mmsa.overrides import recorded

        return run_experiment(compose(overrides), recorded(overrides), quiet, of_defaults=True)


def load(folder: str | Path, data: str | Path | None = None) -> TrainedRun | PackedModel:
    """Load a trained run, its model with the selected weights, its task and its data; or a packed model, without data.

    Args:
        folder: the run's folder, or that of a packed model.
        data: a folder of stores, for a run whose data were moved away from it; None looks beside the run, where the
            store was, and in paths.data.

    Raises:
        DataError: the folder is not a run's, or its data are not found; or a packed model is damaged.
    """
    from mmsa.process import left_as_it_was

    with _turn, left_as_it_was():
        from mmsa.serving.card import is_packed
        from mmsa.serving.packed import load_packed
        from mmsa.trained import load_run

        if is_packed(Path(folder)):
            return load_packed(Path(folder))
        return load_run(Path(folder), None if data is None else Path(data))


def predict(model: PackedModel | str | Path, records: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> Predictions:
    """Predict utterances with a packed model.

    Args:
        model: loaded by `load`, or its folder.
        records: one utterance or several, each a mapping from modality to an array (steps, features), or from "text" to
            words where the model reads words; a modality that is left out is missing.

    Returns:
        `values` (N,) or (N, K), and of several seeds their `spread` and each `by_seed`.

    Raises:
        DataError: a record has an unknown modality, another width, or values that are not finite.
    """
    from mmsa.serving.predict import predict as predicted

    return predicted(model, records)
