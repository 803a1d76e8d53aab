"""A folder of configuration files that somebody else may have written: it holds parts and values, and calls nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmsa.errors import ConfigError
from mmsa.run_folder import load_yaml

_PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)
_FILE = "file://"


def check_folders(arguments: Sequence[str]) -> None:
    """Check every folder of configuration files that a command line names, before Hydra reads it.

    Args:
        arguments: of train.py.

    Raises:
        ConfigError: a file sets what belongs to Hydra (environment, logging, callbacks, launchers), or an argument
            would take that from a folder.
    """
    found = get_args_parser().parse_known_args(list(arguments))[0]
    for name, why in (
        ("config_path", "the configuration begins with mmsa's own files"),
        ("config_name", "the configuration begins with mmsa's own config.yaml"),
        ("experimental_rerun", "it takes Hydra's settings from a folder"),
    ):
        if getattr(found, name, None) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: {why}.\n  type --config-dir FOLDER and GROUP=OPTION instead"
            )
    for folder in [*([found.config_dir] if found.config_dir else []), *_search_path(found.overrides)]:
        check_folder(Path(folder))


def _search_path(overrides: Sequence[str]) -> Iterator[str]:
    """The folders that `hydra.searchpath` names."""
    typed = [override for override in overrides if override.lstrip("+").startswith("hydra.searchpath")]
    for override in OverridesParser.create().parse_overrides(typed):
        value = override.value()
        for place in value if isinstance(value, list) else [value]:
            if "://" in str(place) and not str(place).startswith(_FILE):
                raise ConfigError(f"hydra.searchpath: {place} is no folder.\n  type hydra.searchpath=[file:///FOLDER]")
            yield str(place).removeprefix(_FILE)


def check_folder(folder: Path) -> None:
    """Check the files of a folder, and of the folders in it.

    Raises:
        ConfigError: a file sets what belongs to Hydra.
    """
    seen: set[str] = set()
    for place, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        for path in (Path(place, name) for name in sorted(files) if name.endswith(".yaml")):
            for what in _of_hydra(path, path.relative_to(folder)):
                raise ConfigError(
                    f"{path} sets {what}: only mmsa's own files and your command line may set options of Hydra.\n"
                    "  take it out of the file, and type it as an override: hydra.KEY=VALUE"
                )


def _of_hydra(path: Path, relative: Path) -> Iterator[str]:
    """The settings of a file that belong to Hydra."""
    if relative.parts[0] == "hydra":
        yield "hydra"
    try:
        content, text = load_yaml(path), path.read_text(encoding="utf-8")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not a file of YAML.\n  mend it, or take it out of the folder") from error
    yield from (f"@package {name}" for name in _PACKAGE.findall(text) if _names_hydra(name))
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path} has no options, which are KEY: VALUE.\n  mend it, or take it out of the folder")
    content = content or {}
    yield from (str(key) for key in content if str(key).partition(".")[0] == "hydra")
    entries = content.get("defaults")
    for entry in entries if isinstance(entries, list) else []:
        yield from (f"the default {key}" for key in _texts(entry) if _names_hydra(key))


def _texts(entry: Any) -> list[str]:
    """The group and package of an entry of a defaults list: a mapping's keys, or the text."""
    return [str(key) for key in entry] if isinstance(entry, dict) else [str(entry)]


def _names_hydra(text: str) -> bool:
    """Whether a group or package is Hydra's, or becomes known only when it is composed."""
    return "hydra" in re.split(r"[\W]+", text) or "${" in text
