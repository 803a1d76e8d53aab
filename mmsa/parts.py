"""From a node of a configuration to the part that it names."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache, partial
from importlib.util import find_spec
from types import FunctionType
from typing import Any, cast

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from mmsa import config
from mmsa.commands import quoted
from mmsa.config import (
    PACKAGES_VARIABLE,
    PLAIN_GROUPS,
    TopOptions,
    check_options,
    conf_folder,
    parameters,
    passes_on,
)
from mmsa.data.loading import Loading
from mmsa.errors import ConfigError
from mmsa.process import silence
from mmsa.program import training
from mmsa.tracking.tracker import Tracker

GIVEN: dict[str, tuple[str, ...]] = {
    "dataset": ("loading",),
    "encoder": ("input_dim", "reads", "max_steps", "pretrained"),
    "fusion": ("input_dims", "max_steps"),
    "regularizer": ("modalities", "generator", "max_steps"),
    "feedback": ("input_dims", "source_dims", "max_steps"),
    "task": ("kinds",),
    "objective": ("task", "utterance_dims", "fused_dim", "published_dims", "generator"),
    "optimizer": ("parameters", "named"),
    "scheduler": ("optimizer", "mode", "total_steps", "total_epochs"),
    "tracking": ("outputs", "warn"),
}
"""Per group the arguments that the program passes: they come from the data, another part, or several options.

`max_steps` is the most steps of an utterance: for an encoder its own, for other parts one per modality. Without
`pretrained` an encoder reads no weights of others: those of a run follow.
"""


def part(cfg: DictConfig, place: str) -> Callable[..., Any]:
    """The class or function that a node names, with the node's values bound."""
    target, values = target_of(cfg, place), values_of(cfg, place)
    if not _takes_loading(cfg, place):
        return partial(target, **values)
    options = {field.name: values.pop(field.name) for field in fields(Loading) if field.name in values}
    return partial(target, **values, loading=Loading(**options))


def check_nodes(cfg: DictConfig) -> None:
    """Check every option of a configuration by itself; every configuration from elsewhere passes here.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range, or a node names no part of ours.
    """
    groups = set(GIVEN) | set(PLAIN_GROUPS)
    check_options({str(key): value for key, value in cfg.items() if key not in groups}, TopOptions, "")
    for group, schema in PLAIN_GROUPS.items():
        check_options(values_of(cfg, group), schema, group)
    for group in GIVEN:
        check_group(cfg, group)


def check_group(cfg: DictConfig, group: str) -> None:
    """Check the options of the parts of one group.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range, or a node names no part of ours.
    """
    several = group == "encoder" and isinstance(cfg.get(group), DictConfig)
    for place in [f"{group}.{name}" for name in cfg[group]] if several else [group]:
        check_node(cfg, place)


def check_node(cfg: DictConfig, place: str) -> None:
    """Check the options of one node that names what to build.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    more = Loading if _takes_loading(cfg, place) else None
    check_options(values_of(cfg, place), target_of(cfg, place), place, GIVEN[place.partition(".")[0]], more)


def _takes_loading(cfg: DictConfig, place: str) -> bool:
    """Whether a node is a data set's, in which the options of `Loading` stand beside its own."""
    return place == "dataset" and "loading" in parameters(target_of(cfg, place))


def values_of(cfg: DictConfig, place: str) -> dict[str, Any]:
    """The options of a node: plain values, without anything that could be called.

    Raises:
        ConfigError: the node is none, or has keys by which Hydra would call something.
    """
    node = OmegaConf.select(cfg, place)
    if not isinstance(node, DictConfig):
        group, _, one = place.partition(".")
        form = f"{group}/{one}={node}" if one and isinstance(node, str) else f"{training()} --help"
        raise ConfigError(f"{place}={node}: needs an option of the group {group}.\n  type {form}")
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    if place.partition(".")[0] in GIVEN:
        values.pop("_target_", None)
    for key in _keys(values, place):
        if key.rpartition(".")[2].startswith("_"):
            raise ConfigError(f"{key}: an option is a plain value, and names nothing to call.\n  leave {key} out")
    return values


def _keys(node: Any, place: str) -> Iterator[str]:
    """The keys of a node and of all that is in it."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield f"{place}.{key}"
        yield from _keys(value, f"{place}.{key}")


@cache
def parts_of(group: str) -> tuple[str, ...]:
    """The classes and functions of ours that nodes of a group may name: those that its option files name."""
    files = sorted((conf_folder() / group).glob("*.yaml"))
    named = (re.search(r"^_target_: *(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE) for path in files)
    return tuple(dict.fromkeys(found[1] for found in named if found))


def target_of(cfg: DictConfig, place: str) -> Any:
    """The class or function that a node names: a part of ours of its group, or one of a package of the user's own.

    Raises:
        ConfigError: it names anything else, or what it names cannot be imported.
    """
    name = OmegaConf.select(cfg, f"{place}._target_")
    if not isinstance(name, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        came = "" if name is None else f"._target_={name}"
        raise ConfigError(f"{place}{came} names nothing to build: its YAML needs a line _target_: PACKAGE.MODULE.NAME")
    group, package = place.partition(".")[0], name.partition(".")[0]
    ours = name in parts_of(group)
    if not ours and package == "mmsa":
        raise ConfigError(
            f"{place}._target_={name}: that is no part of the group {group}; there is {', '.join(parts_of(group))}.\n"
            f"  type {group}=OPTION, one of those that {training()} --help lists"
        )
    if not ours and package not in config.PACKAGES:
        raise ConfigError(
            f"{place}._target_={name}: a configuration may build only admitted packages.\n"
            f"  if {package} is your own, type export {PACKAGES_VARIABLE}={quoted(package)}, and then the same command"
        )
    silence(logging.CRITICAL, "hydra.utils")  # get_object prints what it raises
    try:
        found = get_object(name)
    except Exception as error:  # whatever importing a user's module raises
        there = package in sys.modules or find_spec(package)
        where = "" if there else f"\n  type export PYTHONPATH=FOLDER, with the folder that holds {package}"
        raise ConfigError(f"{place}._target_={name} cannot be imported: {error}{where}") from error
    home = str(getattr(found, "__module__", None)).partition(".")[0]
    if not ours and not (isinstance(found, FunctionType | type) and home in config.PACKAGES):
        raise ConfigError(
            f"{place}._target_={name}: {package} only imports it, from {getattr(found, '__module__', 'elsewhere')}; a "
            f"part is a class or function of the package itself.\n  write one in {package} that calls it"
        )
    return found


def built(cfg: DictConfig, place: str, **given: Any) -> Any:
    """Build a node with those of the given arguments that it accepts; a constructor's refusal becomes a ConfigError."""
    target = target_of(cfg, place)
    accepted = parameters(target)
    try:
        return part(cfg, place)(**{name: value for name, value in given.items() if name in accepted})
    except (TypeError, ValueError) as error:
        if passes_on(target):
            raise ConfigError(
                f"{place}: its options are refused: {error}\n"
                f"  name those of {', '.join(given)} that it needs beside **options in {target.__name__}'s constructor"
            ) from None
        raise ConfigError(f"{place}: its options are refused: {error}") from error


def build_tracker(cfg: DictConfig, warn: Callable[[str], None]) -> Tracker:
    """The tracker, without the libraries that a model needs."""
    return cast(Tracker, built(cfg, "tracking", outputs=cfg.paths.outputs, warn=warn))
