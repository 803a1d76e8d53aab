"""Sweeps of tests, which run in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import open_dict

from mmsa.compose import compose
from mmsa.overrides import native_overrides
from mmsa.sweep import worker
from mmsa.sweep.checking import check_sweep
from mmsa.sweep.setup import Sweep, set_up
from mmsa.sweep.storage import open_study

RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": None}
GRID = {"_target_": "optuna.samplers.GridSampler", "_partial_": True, "seed": None}
LR = "optimizer.lr=tag(log, interval(1e-3, 1e-2))"


def make(*arguments: str, option: str = "search", sampler: dict[str, Any] = RANDOM) -> Sweep:
    """The sweep of a command line."""
    typed = native_overrides(["-m", f"sweep={option}", *arguments])[1:]
    parsed = OverridesParser.create().parse_overrides(typed)
    single = [override.input_line for override in parsed if not override.is_sweep_override()]
    cfg = compose([line for line in single if line is not None])
    of_hydra = {"overrides": {"hydra": ["hydra.mode=MULTIRUN"]}, "runtime": {"config_sources": []}}
    with open_dict(cfg):
        cfg.hydra = of_hydra
    return set_up(check_sweep(cfg, sampler, {}, typed), option)


def work(made: Sweep) -> optuna.Study:
    """Run a sweep in this process, to its end."""
    assert worker.work(Path(made.spec.folder)) == worker.DONE
    return open_study(Path(made.spec.folder))


def folder_of(trial: optuna.trial.FrozenTrial, seed: int = 1) -> str:
    """Name of the folder of a trial's run."""
    return str(trial.user_attrs["seeds"][str(seed)]["folder"])


def result_of(trial: optuna.trial.FrozenTrial, runs: Path, seed: int = 1) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((runs / folder_of(trial, seed) / "result.json").read_text())
    return result


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder, with its time of change."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
