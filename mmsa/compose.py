"""The configuration of a run, composed from Python."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmsa.config import conf_folder
from mmsa.errors import ConfigError, stopped_by, text_of
from mmsa.overrides import explained, native_overrides, quoted
from mmsa.secrets import conceal


def compose(overrides: Sequence[str] = (), config_folders: Sequence[str] = ()) -> DictConfig:
    """The configuration of `python train.py OVERRIDES`.

    Args:
        overrides: as typed.
        config_folders: further folders of configuration files (--config-dir).

    Raises:
        ConfigError: an override names an unknown option or value.
    """
    former, around = GlobalHydra.instance().hydra, sys.exception()
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_folder()), job_name="mmsa"):
            further = [f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in config_folders)}]"]
            made = hydra.compose("config", [*native_overrides(overrides), *(further if config_folders else [])])
            return conceal(made)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if stopped := stopped_by(error, around):  # OmegaConf's closing fails over it
            raise stopped from None
        no_text = "Config group override" in str(error)  # of which Hydra tells by a plain ValueError
        if not no_text and not isinstance(error, HydraException | OmegaConfBaseException):
            raise
        raise ConfigError(explained(text_of(error), conf_folder())) from None
    finally:
        GlobalHydra.instance().hydra = former


def typed_config_folders() -> list[str]:
    """Further folders of configuration files (--config-dir) that were typed."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return [source.path for source in sources if source.provider == "command-line"]


class Composer:
    """Composes many configurations that differ mostly in plain values, such as those of a search, quickly.

    Choices of groups are composed by Hydra, once each; plain values are set on a copy, which is what Hydra does last.

    Args:
        config_folders: further folders of configuration files (--config-dir).
    """

    def __init__(self, config_folders: Sequence[str] = ()) -> None:
        self._config_folders = config_folders
        self._known: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The result of `compose` for these overrides, in Hydra's own words."""
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if _is_plain_value(override)]
        choices = tuple(str(override.input_line) for override in parsed if not _is_plain_value(override))
        if choices not in self._known:
            self._known[choices] = compose(choices, self._config_folders)
        config = copy.deepcopy(self._known[choices])
        try:
            for override in values:
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:  # which Hydra words better
            return compose(overrides, self._config_folders)
        return config


def _is_plain_value(override: Override) -> bool:
    """Whether an override sets a key that is there to a number or a text: no choice, no addition, no deletion."""
    key = override.key_or_group
    return override.type == OverrideType.CHANGE and override.package is None and "." in key and "/" not in key
