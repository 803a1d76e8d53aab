"""One configuration with several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mmsa.build import Kept
from mmsa.compose import compose
from mmsa.config import check_value
from mmsa.display import Display
from mmsa.errors import ConfigError
from mmsa.experiment import RunResult
from mmsa.experiment import run as run_experiment
from mmsa.lockstep import Lockstep, Member
from mmsa.overrides import recorded
from mmsa.parts import target_of
from mmsa.ranges import NaturalNumber
from mmsa.record import Packing
from mmsa.run_folder import flat_parameters, override_key
from mmsa.secrets import as_stored
from mmsa.training.together import hindrance_of

FEWEST, WIDEST, LARGEST = 4, 64, 1024
"""The fewest seeds, the largest `hidden_dim`, and the largest product of that and `trainer.batch_size` with which joint
steps are faster on a CPU, by `make bench ARGS=seeds/`."""
FEWEST_ON_GPU = 8
"""On a GPU, with batches of any size, by an estimate: `make bench-gpu` measures it, and never ran."""


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
    beside = [override for override in overrides if override_key(override) == "seed"]
    if beside:
        raise ConfigError(f"{beside[0]} beside seeds={seeds}: a run has one seed.\n  leave {beside[0]} out")
    if not isinstance(seeds, Sequence) or not seeds or len(set(map(str, seeds))) < len(seeds):
        raise ConfigError(
            f"seeds={seeds}: needs a list of one seed or more, each once.\n  type for example seeds=[1, 2, 3]"
        )
    for seed in seeds:
        check_value("seed", seed, NaturalNumber)
    first = compose([*overrides, f"seed={seeds[0]}"])
    wanted = len(seeds) > 1 and first.device.pack_seeds == "auto"
    reason = why_apart(first, len(seeds)) if wanted else None
    together = wanted and reason is None
    screen = Display(quiet, f"1 of {len(seeds)}")
    if reason is not None:
        screen.say(f"the seeds train one after the other: {reason}")
    members: list[Member] = []
    bodies, kept = [], Kept()
    for number, seed in enumerate(seeds, start=1):
        cfg = deepcopy(first)
        OmegaConf.update(cfg, "seed", int(seed))
        display = Display(quiet)
        if together:
            display = Display(quiet, f"{number} of {len(seeds)}", screen) if members else screen
        packing = Packing(seeds=tuple(seeds)) if together else Packing(reason=reason)
        members.append(Member(display, packing, kept))
        typed = recorded([*overrides, f"seed={seed}"])
        bodies.append(partial(run_experiment, cfg, typed, quiet, of_defaults=True, member=members[-1]))
    runs = Lockstep(members, bodies, screen.say).run() if together else [body() for body in bodies]
    return SeedsResult(tuple(seeds), tuple(runs))


def why_apart(cfg: DictConfig, num_seeds: int) -> str | None:
    """Why seeds of this configuration are trained one after the other, as far as it shows; None: in joint steps."""
    widest = max(
        (v for k, v in flat_parameters(as_stored(cfg)).items() if k.rpartition(".")[2] == "hidden_dim"), default=0
    )
    on_gpu = cfg.device.accelerator == "cuda" or (cfg.device.accelerator == "auto" and torch.cuda.is_available())
    on_mps = cfg.device.accelerator == "auto" and not on_gpu and torch.backends.mps.is_available()
    if cfg.device.accelerator == "mps" or on_mps:
        return "joint steps are of a CPU or a CUDA device"
    if cfg.device.precision != "32-true":
        return f"device.precision={cfg.device.precision}"
    if cfg.device.devices > 1:
        return f"device.devices={cfg.device.devices}"
    if cfg.trainer.accumulate > 1:
        return f"trainer.accumulate={cfg.trainer.accumulate}"
    if cfg.trainer.resume is not None:
        return "trainer.resume is of one run"
    fewest = FEWEST_ON_GPU if on_gpu else FEWEST
    if widest > WIDEST:
        return f"hidden_dim={widest}{'' if on_gpu else ' is as fast so'} (up to {WIDEST} they train together)"
    if num_seeds < fewest:
        return f"fewer than {fewest} {'on a GPU' if on_gpu else 'are as fast so'}"  # of a GPU nothing was measured
    if not on_gpu and widest * cfg.trainer.batch_size > LARGEST:
        largest = f"trainer.batch_size={LARGEST // widest}"
        return f"trainer.batch_size={cfg.trainer.batch_size} is as fast so (up to {largest} they train together)"
    return hindrance_of(target_of(cfg, "objective"))
