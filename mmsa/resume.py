"""Opening the folder of a run: a new one, or that of a run which goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mmsa.commands import train_command
from mmsa.errors import ConfigError
from mmsa.record import RunRecord
from mmsa.run_folder import create_folder, flat_parameters, read_config, run_name, write_json, write_text

FREE_ON_RESUME = (
    "trainer.max_epochs",
    "trainer.patience",
    "trainer.resume",
    "dataset.source",
    "dataset.glove",
    "dataset.doctor",
    "tracking",
    "paths",
    "name",
)
"""Options, or whole groups, that may differ when a run goes on."""


def open_folder(
    cfg: DictConfig, overrides: Sequence[str], fingerprint: str, of_trial: bool = False
) -> tuple[Path, RunRecord | None]:
    """The run's folder with its configuration, and the former record of a run that is resumed.

    Args:
        cfg: the composed configuration.
        overrides: what was typed.
        fingerprint: of the data.
        of_trial: a sweep runs it, which alone goes on with the runs of its trials.
    """
    if cfg.trainer.resume is None:
        folder = create_folder(Path(cfg.paths.outputs), cfg.name or run_name(overrides))
        resumed = None
        write_json(folder / "overrides.json", list(overrides))
    else:
        folder = Path(cfg.trainer.resume)
        resumed = RunRecord.read(folder)
        if resumed.trial is not None and not of_trial:
            raise ConfigError(
                f"trainer.resume={folder}: this run is a trial of the search {resumed.sweep}, which goes on "
                "with it by itself and never reads the test fold.\n  type the command of the search again"
            )
        if resumed.status == "finished":
            raise ConfigError(
                f"trainer.resume={folder}: this run is finished and its test fold is scored, so it is not trained on.\n"
                "  type the same without trainer.resume, with a larger trainer.max_epochs or trainer.patience"
            )
        check_same(cfg, read_config(folder), folder)
        if resumed.data.fingerprint != fingerprint:
            raise ConfigError(
                f"trainer.resume={folder}: the run was trained on other data ({resumed.data.fingerprint}) "
                f"than these ({fingerprint}).\n"
                "  type the dataset.source and dataset.glove of that run, or leave trainer.resume out"
            )
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    return folder, resumed


def check_same(cfg: DictConfig, former: Any, folder: Path) -> None:
    """A run goes on only with the options it was started with.

    Raises:
        ConfigError: an option differs that is not free on resume.
    """
    now = flat_parameters(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    then = flat_parameters(OmegaConf.to_container(former))  # type: ignore[arg-type]
    differ = [
        key
        for key in sorted(set(now) | set(then))
        if now.get(key) != then.get(key) and not any(f"{key}.".startswith(f"{free}.") for free in FREE_ON_RESUME)
    ]
    if differ:
        key = differ[0]
        raise ConfigError(
            f"trainer.resume={folder}: {key}={now.get(key)} here, but the run has {then.get(key)}"
            + (f", and {len(differ) - 1} more differ" if len(differ) > 1 else "")
            + f".\n  type {key}={then.get(key)}, or leave trainer.resume out"
        )


def resume_line(overrides: Sequence[str], folder: Path) -> str:
    """What to type to go on with a run."""
    kept = [override for override in overrides if not override.startswith("trainer.resume=")]
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    folders = [source.path for source in sources if source.provider == "command-line"]
    return f"go on with: {train_command([*kept, f'trainer.resume={folder}'], folders)}"
