"""Composition, paid once: choices of groups are composed once a session, plain values are set on a copy of that.

Files of options that Hydra reads again, and interpolations that OmegaConf parses again, come from memory too.
"""

from __future__ import annotations

import io
import pickle
from functools import cache
from typing import Any

import hydra
import omegaconf._utils
import omegaconf.base
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmsa.compose import _is_plain_value

HYDRA = hydra.compose
"""Hydra's own, which takes 0.1 s of processor time."""
LOAD = OmegaConf.load
PARSE = omegaconf.base.parse
_known: dict[tuple[str, ...], bytes] = {}
"""Pickled: taken out again, that is a copy at an eighth of `deepcopy`'s time."""


def _is_value(override: Override) -> bool:
    return _is_plain_value(override) or override.key_or_group in ("seed", "name", "hidden_dim")


def remembering(config_name: str, overrides: list[str]) -> Any:
    """What Hydra composes of these overrides."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    if any(override.key_or_group.startswith("hydra") for override in parsed):  # a folder of the test's own
        return HYDRA(config_name, overrides)
    choices = tuple(str(override.input_line) for override in parsed if not _is_value(override))
    if choices not in _known:
        _known[choices] = pickle.dumps(HYDRA(config_name, list(choices)))
    config = pickle.loads(_known[choices])
    try:
        for override in filter(_is_value, parsed):
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    except OmegaConfBaseException:  # which Hydra words better
        return HYDRA(config_name, overrides)
    return config


@cache
def _loaded(text: str) -> bytes:
    return pickle.dumps(LOAD(io.StringIO(text)))


def _load_remembered(file: Any, **options: Any) -> Any:
    """What OmegaConf makes of a file's text."""
    return pickle.loads(_loaded(file.read())) if hasattr(file, "read") and not options else LOAD(file, **options)


def remember() -> None:
    """Compose from memory from here on."""
    hydra.compose = remembering
    OmegaConf.load = staticmethod(_load_remembered)
    omegaconf.base.parse = omegaconf._utils.parse = cache(PARSE)
