"""Train one model, or many with -m: python train.py regularizer=m3 feedback=mmlatch (--help lists the options)."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

SHOW_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to this file, which says them in a few lines

try:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig, OmegaConf
except ModuleNotFoundError:
    sys.exit(
        "train.py needs mmsa's environment, and this Python has none of it.\n"
        "  type: source .venv/bin/activate && python train.py   (where there is no .venv yet: make setup)"
    )

from mmsa.config import conf_folder, execution_whitelist
from mmsa.config_folder import check_folders
from mmsa.errors import ConfigError
from mmsa.overrides import check_dashes, is_sweep, native_overrides, typed_overrides
from mmsa.reporting import in_few_lines, report_errors
from mmsa.values import check_values


@hydra.main(config_path=str(conf_folder()), config_name="config", execution_whitelist=execution_whitelist())
def main(cfg: DictConfig) -> float:
    """One run; returns the monitored value on the validation fold. A job that joins a sweep has no value of its own."""
    os.chdir(HydraConfig.get().runtime.cwd)  # where hydra.job.chdir=true has left it, nothing finds the results
    if cfg.get("sweep"):
        join_sweep(cfg)
        return math.nan
    scores: list[float] = []

    overrides = typed_overrides(cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task)))

    def run() -> None:
        check_values(cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)))  # before seconds of imports
        from mmsa import experiment

        scores.append(experiment.run(cfg, overrides).score)

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_one_of_many(run, overrides)
    elif failed := report_errors(run, SHOW_TRACEBACK):  # here, before Hydra adds lines of its own
        sys.exit(failed)
    return scores[0]


def join_sweep(cfg: DictConfig) -> None:
    """A job that a launcher has started for a sweep."""
    if cfg.sweep.join is None:
        raise ConfigError("sweep=…: its runs are made by hydra/sweeper=mmsa.\n  leave hydra/sweeper out")
    from mmsa.sweep.hydra_sweep import join

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


if __name__ == "__main__":
    for check in (lambda: check_dashes(sys.argv[1:], conf_folder()), lambda: check_folders(sys.argv[1:])):
        if refused := report_errors(check, SHOW_TRACEBACK):
            sys.exit(refused)
    sys.argv[1:] = native_overrides(sys.argv[1:])
    if is_sweep(sys.argv[1:]) and not {"-m", "--multirun", "--cfg", "-c", "--info", "-i", "--help"} & set(sys.argv[1:]):
        sys.argv.insert(1, "-m")
    sys.exit(report_errors(main, SHOW_TRACEBACK))
