"""Composition, paid once: choices of groups are composed once a session, plain values are set on a copy of that."""

from __future__ import annotations

import copy
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmsa.compose import _is_plain_value

HYDRA = hydra.compose
"""Hydra's own, which takes 0.1 s of processor time."""
_known: dict[tuple[str, ...], DictConfig] = {}


def _is_value(override: Override) -> bool:
    return _is_plain_value(override) or override.key_or_group in ("seed", "name", "hidden_dim")


def remembering(config_name: str, overrides: list[str]) -> Any:
    """What Hydra composes of these overrides."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    if any(override.key_or_group.startswith("hydra") for override in parsed):  # a folder of the test's own
        return HYDRA(config_name, overrides)
    choices = tuple(str(override.input_line) for override in parsed if not _is_value(override))
    if choices not in _known:
        _known[choices] = HYDRA(config_name, list(choices))
    config = copy.deepcopy(_known[choices])
    try:
        for override in filter(_is_value, parsed):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:  # which Hydra words better
        return HYDRA(config_name, overrides)
    return config
