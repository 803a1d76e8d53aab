"""The configuration of a run, composed from Python."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mmsa.config import conf_folder
from mmsa.errors import ConfigError
from mmsa.overrides import explained, native_overrides


def compose(overrides: Sequence[str] = (), config_folders: Sequence[str] = ()) -> DictConfig:
    """What `python train.py OVERRIDES` would run with.

    Args:
        overrides: as typed.
        config_folders: further folders of configuration files (--config-dir).

    Raises:
        ConfigError: an override names an unknown option or value.
    """
    former = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_folder()), job_name="mmsa"):
            further = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in config_folders)}]"]
            return hydra.compose("config", [*native_overrides(overrides), *(further if config_folders else [])])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(str(error), conf_folder())) from error
    except ValueError as error:  # as which Hydra tells of an option that is no text
        if "Config group override" not in str(error):
            raise
        raise ConfigError(explained(str(error), conf_folder())) from error
    finally:
        GlobalHydra.instance().hydra = former
