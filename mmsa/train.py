"""Training from the command line: `python train.py OVERRIDES` and `mmsa train OVERRIDES` do the same."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mmsa.config import conf_folder, execution_whitelist
from mmsa.config_folder import check_folders
from mmsa.errors import ConfigError
from mmsa.garbage import uncollected
from mmsa.overrides import check_dashes, is_sweep, native_overrides, typed_overrides
from mmsa.program import training
from mmsa.reporting import in_few_lines, report_errors
from mmsa.values import check_values

if TYPE_CHECKING:
    from mmsa.experiment import RunResult

SHOW_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"


def main(arguments: Sequence[str]) -> int:
    """Train one model, or many; returns the exit code.

    Args:
        arguments: typed after `train.py` or `mmsa train`.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, who say them in a few lines
    return report_errors(lambda: start(arguments), SHOW_TRACEBACK)


def start(arguments: Sequence[str]) -> None:
    """Give the command line to Hydra, in its own words, and run the jobs that it makes."""
    check_dashes(arguments, conf_folder())
    check_folders(arguments)
    native = native_overrides(arguments)
    if is_sweep(native) and not {"-m", "--multirun", "--cfg", "-c", "--info", "-i", "--help"} & set(native):
        native.insert(0, "-m")
    sys.argv[1:] = native
    OmegaConf.register_resolver("mmsa.train", training, replace=True)  # for the examples of --help
    started = hydra.main(
        config_path=str(conf_folder()), config_name="config", execution_whitelist=execution_whitelist()
    )
    started(job)()


def job(cfg: DictConfig) -> float:
    """One run; returns the monitored value on the validation fold. A job that joins a sweep has no value of its own."""
    os.chdir(HydraConfig.get().runtime.cwd)  # where hydra.job.chdir=true has left it, nothing finds the results
    if cfg.get("sweep"):
        join_sweep(cfg)
        return math.nan
    results: list[RunResult] = []

    overrides = typed_overrides(cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task)))

    def run() -> None:
        check_values(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)))  # before seconds of imports
        with uncollected():
            from mmsa import experiment

        results.append(experiment.run(cfg, overrides, of_defaults=is_of_defaults()))

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_one_of_many(run, overrides)
    elif failed := report_errors(run, SHOW_TRACEBACK):  # here, before Hydra adds lines of its own
        sys.exit(failed)
    elif results[0].same is False:
        sys.exit(1)  # as `mmsa rerun` does, which was stopped
    return results[0].score


def is_of_defaults() -> bool:
    """Whether Hydra has read our own config.yaml: --config-name and --config-path name another."""
    hydra_config = HydraConfig.get()
    main = [source.path for source in hydra_config.runtime.config_sources if source.provider == "main"]
    return bool(hydra_config.job.config_name == "config" and main == [str(conf_folder())])


def join_sweep(cfg: DictConfig) -> None:
    """A job that a launcher has started for a sweep."""
    if cfg.sweep.join is None:
        raise ConfigError("sweep=…: its runs are made by hydra/sweeper=mmsa.\n  leave hydra/sweeper out")
    from mmsa.sweep.joining import join

    join(Path(cfg.sweep.join))


def run_one_of_many(run: Callable[[], None], overrides: list[str]) -> None:
    """A job of a multirun: a failure is printed at once, and again by Hydra after the last job."""
    try:
        run()
    except Exception as error:
        from mmsa.run_folder import place_among_runs, run_name

        named = f"{place_among_runs()}  {run_name(overrides)}".strip()
        print(f"failed: {named}: {in_few_lines(error).splitlines()[0]}", file=sys.stderr)
        raise
