"""Optuna's samplers, such that a study continues alike in whatever process asks for its next trial."""

from __future__ import annotations

import importlib.util
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hydra.errors import HydraException
from hydra.utils import instantiate
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler
from optuna.trial import FrozenTrial, TrialState

from mmsa.errors import ConfigError
from mmsa.program import program

GRID = "optuna.samplers.GridSampler"
WHITELIST = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
"""The classes that a sampler's node may build: those of the official plugin."""
PACKAGES = {"CmaEsSampler": "cmaes", "GPSampler": "torch"}
"""Packages that Optuna imports only when it samples."""
OURS: dict[str, dict[str, Any]] = {
    "TPESampler": {"constant_liar": True},
    "CmaEsSampler": {"warn_independent_sampling": False},
    "GPSampler": {"warn_independent_sampling": False},
    "QMCSampler": {"warn_independent_sampling": False},
}
"""Options that a node does not decide. Workers ask while others' trials run, so TPE has to reckon with those
(`constant_liar`), which the plugin's default forbids; the warnings would come again with every trial."""
SEQUENCES = ("CmaEsSampler", "QMCSampler")
"""Samplers that draw a study's trials from one sequence, each at its own place."""
DRAWN = "mmsa:drawn"
"""System attribute of a trial: the values that were drawn together, as Optuna stores parameters."""


def is_grid(node: Mapping[str, Any]) -> bool:
    """Whether a sampler's node asks for every point of a grid.

    Args:
        node: `hydra.sweeper.sampler`, resolved.
    """
    return node.get("_target_") == GRID


def make_sampler(node: Mapping[str, Any], seed: int) -> SeededSampler:
    """The sampler of a study.

    Args:
        node: `hydra.sweeper.sampler`, resolved: `_target_` and the sampler's options; its `seed` replaces `seed`.
        seed: from 0.

    Raises:
        ConfigError: the sampler does not exist, refuses an option, or needs a package that is not there.
    """
    own = node.get("seed")
    seed = seed if own is None else own
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"a sampler's seed needs a whole number from 0; it is {seed}.\n  type seed=1")
    name = sampler_name(node)
    package = PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        install = f"{program('pip')} install {package}"
        raise ConfigError(f"{name} needs the package {package}, which is not there.\n  type {install}")
    node = {**node, **OURS.get(name, {})}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            built = _built(node, seed)
    except (HydraException, TypeError, ValueError) as error:  # Hydra's, or as the sampler raised it
        raise _refused(name, error) from error
    if not isinstance(built, BaseSampler):
        raise _refused(name, f"it gives a {type(built).__name__}, not a sampler")
    return SeededSampler(node, seed)


def sampler_name(node: Mapping[str, Any]) -> str:
    """Such as TPESampler."""
    return str(node.get("_target_")).rpartition(".")[2]


def _built(node: Mapping[str, Any], seed: int) -> Any:
    """A new sampler of a node, and of the node of another one inside it, with a seed."""
    seeded = {**node, "seed": seed}
    if isinstance(inner := node.get("independent_sampler"), Mapping):
        seeded["independent_sampler"] = {**inner, "seed": seed}
    return instantiate(seeded, _convert_="all", _execution_whitelist_=WHITELIST)


def _refused(name: str, reason: object) -> ConfigError:
    return ConfigError(
        f"hydra.sweeper.sampler: {name} cannot be made: {reason}"
        "\n  type hydra/sweeper/sampler=tpe, or correct its options"
    )


class SeededSampler(BaseSampler):
    """A sampler whose draws depend on nothing that its process drew before.

    Its draws depend on the seed, the trial's number, the parameter's name, and the trials in the storage. A
    study that was interrupted resumes to the same bits, no worker repeats another's point, and a trial that was
    left half suggested gets the rest that it would have had.

    Each draw is made by a new sampler of Optuna's, with a seed of its own. Nothing is lost by that: generations
    (NSGA-II, NSGA-III), optimisers (CMA-ES) and points of running trials (TPE, GP) are in the storage, and what
    samplers keep in memory are copies of it (search spaces) or starts of a fit (GP).

    Args:
        node: `_target_` and options of the sampler.
        seed: from 0.
    """

    def __init__(self, node: Mapping[str, Any], seed: int) -> None:
        self._node = dict(node)
        self._seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the parameters that are drawn together, once for a trial, whoever resumes it.

        They are kept in the storage, since by then others' trials have ended, and GP would take the trial's own point
        for that of a running one.
        """
        drawn = trial.system_attrs.get(DRAWN)
        if drawn is None:
            sampler = self._sampler(trial)
            sampler.infer_relative_search_space(study, trial)  # TPE's groups, which it keeps from there to here
            values = sampler.sample_relative(study, trial, search_space)
            drawn = {name: search_space[name].to_internal_repr(value) for name, value in values.items()}
            if drawn:
                study._storage.set_trial_system_attr(trial._trial_id, DRAWN, drawn)
        return {name: search_space[name].to_external_repr(drawn[name]) for name in drawn if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        sampler = self._fresh(trial.number, zlib.crc32(param_name.encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler(trial).after_trial(study, trial, state, values)

    def _sampler(self, trial: FrozenTrial) -> BaseSampler:
        """The sampler of the parameters of a whole trial."""
        # CMA-ES adds the trial's number to its seed by itself; with a seed for each trial, two of them could meet.
        sampler = self._fresh(*(() if sampler_name(self._node) in SEQUENCES else (trial.number,)))
        if isinstance(sampler, QMCSampler):
            # Optuna counts the places in the storage, where two workers can read the same count.
            sampler._find_sample_id = lambda study, search_space: trial.number  # type: ignore[method-assign]
        return sampler

    def _fresh(self, *numbers: int) -> BaseSampler:
        """A new sampler, whose seed of 32 bits is settled by these numbers."""
        seed = int(np.random.SeedSequence((self._seed, *numbers)).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # make_sampler has shown them
            sampler: BaseSampler = _built(self._node, seed)
        return sampler
