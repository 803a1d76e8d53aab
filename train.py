"""Train one model, or many with -m: python train.py regularizer=m3 feedback=mmlatch (--help lists the options)."""

import os
import sys

SHOW_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to this file, which says them in a few lines

try:
    import hydra
    from omegaconf import DictConfig
except ModuleNotFoundError:
    sys.exit(
        "train.py needs mmsa's environment, and this Python has none of it.\n"
        "  type: source .venv/bin/activate   (or make setup, where there is no .venv yet)"
    )

from mmsa import config


@hydra.main(config_path=str(config.conf_folder()), config_name="config", execution_whitelist=config.execution_whitelist())
def main(cfg: DictConfig) -> float:
    """One run; returns the monitored value on the validation fold."""
    from hydra.core.hydra_config import HydraConfig

    from mmsa import experiment

    return experiment.run(cfg, list(HydraConfig.get().overrides.task)).score


if __name__ == "__main__":
    from mmsa.errors import report_errors

    sys.argv[1:] = config.native_overrides(sys.argv[1:])
    sys.exit(report_errors(main, SHOW_TRACEBACK))
