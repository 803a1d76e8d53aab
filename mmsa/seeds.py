"""One configuration with several seeds, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmsa.compose import compose
from mmsa.config import check_value
from mmsa.errors import ConfigError
from mmsa.experiment import RunResult
from mmsa.experiment import run as run_experiment
from mmsa.ranges import NaturalNumber
from mmsa.run_folder import override_key


@dataclass(frozen=True, repr=False)
class SeedsResult:
    """The results of one configuration with several seeds.

    Args:
        seeds: in the order of the runs.
        runs: the result of each.
    """

    seeds: tuple[int, ...]
    runs: tuple[RunResult, ...]

    @property
    def mean(self) -> dict[str, float]:
        """The mean of each metric over the seeds, NaN where it is undefined for one."""
        return {name: float(np.mean(values)) for name, values in self._metrics().items()}

    @property
    def std(self) -> dict[str, float]:
        """The sample standard deviation of each metric, NaN of one seed."""
        alone = len(self.runs) == 1
        return {name: np.nan if alone else float(np.std(v, ddof=1)) for name, v in self._metrics().items()}

    def _metrics(self) -> dict[str, list[float]]:
        return {name: [run.metrics[name] for run in self.runs] for name in self.runs[0].metrics}

    def __repr__(self) -> str:
        """Without the results of each."""
        scores = ", ".join(f"{run.score:.4f}" for run in self.runs)
        return f"SeedsResult(seeds={list(self.seeds)}, scores=[{scores}], {len(self.runs[0].metrics)} metrics)"


def run_seeds(overrides: Sequence[str], seeds: Sequence[int], quiet: bool = False) -> SeedsResult:
    """Run a configuration with each of these seeds; all are checked before the first trains.

    Args:
        overrides: as typed, without `seed=`.
        seeds: at least one, all different.
        quiet: print nothing.

    Raises:
        ConfigError: a seed is none, or is there twice, or the overrides have one too.
        MmsaError: as of a run; those before it are kept.
    """
    typed = [override for override in overrides if override_key(override) == "seed"]
    if typed:
        raise ConfigError(f"{typed[0]} beside seeds={list(seeds)}: a run has one seed.\n  leave {typed[0]} out")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"seeds={list(seeds)}: needs one seed or more, each once.\n  type for example seeds=[1, 2, 3]"
        )
    for seed in seeds:
        check_value("seed", seed, NaturalNumber)
    configurations = [compose([*overrides, f"seed={seed}"]) for seed in seeds]
    runs = [
        run_experiment(cfg, [*overrides, f"seed={seed}"], quiet)
        for cfg, seed in zip(configurations, seeds, strict=True)
    ]
    return SeedsResult(tuple(seeds), tuple(runs))
