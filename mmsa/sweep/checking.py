"""Checking a sweep before anything is read, made or trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from mmsa import build, config
from mmsa.compose import compose
from mmsa.config import check_options
from mmsa.errors import ConfigError
from mmsa.overrides import typed_overrides
from mmsa.run_folder import check_paths, flat_parameters
from mmsa.secrets import as_stored
from mmsa.sweep.options import Search, SweepOptions, check_together, is_of_search
from mmsa.sweep.sampling import is_grid, make_sampler
from mmsa.sweep.space import Space, as_typed, check_space, first_point, grid_points, overrides_of, read_space
from mmsa.training.metrics import METRICS, metric_mode

OTHER_OBJECTIVES = ("num_parameters", "seconds")


@dataclass(frozen=True)
class CheckedSweep:
    """The checked plan of a sweep.

    Args:
        search: the space and the way of the search.
        typed: all that was typed but the option of the group `sweep`, in our words.
        space: the search's, read.
        base: configuration of the first point.
    """

    search: Search
    typed: list[str]
    space: Space
    base: DictConfig


def check_sweep(
    cfg: DictConfig, sampler: Mapping[str, Any], params: Mapping[str, Any], arguments: Sequence[str]
) -> CheckedSweep:
    """Check the options, the space with every choice and end of it, and the sampler.

    Args:
        cfg: the configuration of the multirun, with its node `sweep`.
        sampler: node of the sampler.
        params: a search space as Hydra's Optuna plugin has it; that of the node `sweep` wins.
        arguments: overrides of train.py, in Hydra's own words.

    Raises:
        ConfigError: something is refused; the message has the corrected option.
    """
    options: dict[str, Any] = OmegaConf.to_container(cfg.sweep, resolve=True)  # type: ignore[assignment]
    options["storage"] = as_stored(cfg.sweep)["storage"]
    check_options(options, SweepOptions, "sweep")
    check_together(options)
    check_paths(cfg.paths)
    dimensions = as_typed({**params, **cfg.sweep.space})
    own = [argument for argument in arguments if not is_of_search(argument)]
    space = read_space(dimensions, own, seeds_allowed=options["final"])
    num_points = len(grid_points(space)) if is_grid(sampler) else None
    sources = cfg.hydra.runtime.config_sources
    config_folders = [str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"]
    check_space(space, lambda overrides: _check_trial(compose(overrides, config_folders)))
    _check_nothing_is_lost(cfg, own, config_folders)
    base = first_configuration(space, config_folders)
    if num_points is None:
        make_sampler(sampler, base.seed)
    objectives = list(options["objectives"] or [f"valid/{build.build_task(base).monitor}"])
    if len(objectives) > 1 and str(sampler["_target_"]).endswith("CmaEsSampler"):
        raise ConfigError(
            "hydra/sweeper/sampler=cmaes: it takes one objective only.\n  type hydra/sweeper/sampler=nsgaii, or tpe"
        )
    search = Search(
        working_folder=os.getcwd(),
        space=dimensions,
        arguments=own,
        sampler=dict(sampler),
        seed=base.seed,
        objectives=objectives,
        modes=[_mode(name) for name in objectives],
        num_points=num_points,
        config_folders=config_folders,
        packages=",".join(config.PACKAGES),
        options=options,
    )
    return CheckedSweep(search, _typed(cfg, arguments), space, base)


def first_configuration(space: Space, config_folders: Sequence[str]) -> DictConfig:
    """The configuration of the first point of a space."""
    return compose([*space.fixed, *overrides_of(space, first_point(space))], config_folders)


def _check_trial(cfg: DictConfig) -> None:
    """Refuse a configuration that no trial can have."""
    build.check(cfg)
    if cfg.device.devices > 1:
        raise ConfigError(
            f"device.devices={cfg.device.devices}: a sweep gives each trial a device of its own.\n"
            "  type device.devices=1"
        )


def _check_nothing_is_lost(cfg: DictConfig, own: Sequence[str], config_folders: Sequence[str]) -> None:
    """Refuse an option of the group `sweep` that sets more than the node `sweep`: trials are composed without it."""
    parsed = OverridesParser.create().parse_overrides(list(own))
    single = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    plain = compose(single, config_folders)  # as Hydra composed `cfg`, but for the option of the group
    here = flat_parameters({str(key): value for key, value in _plain(cfg).items() if key not in ("sweep", "hydra")})
    there = flat_parameters(_plain(plain))
    lost = [key for key, value in here.items() if there.get(key) != value]
    if lost:
        raise ConfigError(
            f"sweep: its file sets {lost[0]}={here[lost[0]]}, which no trial would see.\n"
            f"  write it under sweep.space, as {lost[0]}: {here[lost[0]]}"
        )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=False)  # type: ignore[return-value]


def _mode(objective: str) -> str:
    """ "min" or "max".

    Raises:
        ConfigError: there is no such objective.
    """
    if objective in OTHER_OBJECTIVES:
        return "min"
    fold, _, metric = objective.partition("/")
    if fold == "test":
        raise ConfigError(
            f"sweep.objectives: {objective}: a search never reads the test fold.\n"
            f"  type sweep.objectives=[valid/{metric}]"
        )
    if fold != "valid" or metric not in METRICS:
        known = ", ".join([*(f"valid/{name}" for name in METRICS), *OTHER_OBJECTIVES])
        raise ConfigError(f"sweep.objectives: there is no {objective}; choose from {known}.")
    return metric_mode(metric)


def _typed(cfg: DictConfig, arguments: Sequence[str]) -> list[str]:
    """All that was typed but the option of the group `sweep`."""
    of_hydra = [override for override in cfg.hydra.overrides.hydra if not override.startswith("hydra.mode=")]
    return typed_overrides([*of_hydra, *(argument for argument in arguments if not argument.startswith("sweep="))])
