"""From a node of a configuration to the part that it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, cast

from hydra.utils import execution_whitelist, get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from mmsa import config
from mmsa.config import PACKAGES_VARIABLE, check_options, parameters, passes_on
from mmsa.data.loading import Loading
from mmsa.errors import ConfigError

GIVEN: dict[str, tuple[str, ...]] = {
    "dataset": ("loading",),
    "encoder": ("input_dim", "reads", "max_steps"),
    "fusion": ("input_dims", "max_steps"),
    "regularizer": ("modalities", "generator", "max_steps"),
    "feedback": ("input_dims", "source_dims", "max_steps"),
    "task": ("kinds",),
    "objective": ("task", "utterance_dims", "fused_dim", "published_dims", "generator"),
    "optimizer": ("parameters", "named"),
    "scheduler": ("optimizer", "mode", "total_steps", "total_epochs"),
    "tracking": ("outputs", "warn"),
}
"""Per group what the program fills in: what only the data or another part knows, or what is made of several options.

`max_steps` is the most steps that an utterance may have: of an encoder its own, of others one per modality.
"""


def part(cfg: DictConfig, place: str) -> Callable[..., Any]:
    """The class or function that a node names, with the node's values bound."""
    # The node alone, since Hydra copies its parents.
    node: Any = OmegaConf.to_container(OmegaConf.select(cfg, place), resolve=True)
    loads = _takes_loading(cfg, place)
    options = {field.name: node.pop(field.name) for field in fields(Loading) if loads and field.name in node}
    with execution_whitelist(config.execution_whitelist()):
        made = instantiate(node, _partial_=True, _convert_="all")
    return partial(made, loading=Loading(**options)) if loads else cast(Callable[..., Any], made)


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
    """The options of a node, without Hydra's own keys."""
    node = OmegaConf.select(cfg, place)
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{place}={node}: needs an option of the group {place}.\n  type python train.py --help")
    values = cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
    return {key: value for key, value in values.items() if not key.startswith("_")}


def target_of(cfg: DictConfig, place: str) -> Any:
    """The class or function that a node names."""
    name = OmegaConf.select(cfg, f"{place}._target_")
    if not isinstance(name, str):
        raise ConfigError(f"{place} names nothing to build: its YAML needs a line _target_: PACKAGE.MODULE.NAME")
    package = name.partition(".")[0]
    if f"{package}.*" not in config.execution_whitelist():
        raise ConfigError(
            f"{place}._target_={name}: a configuration may only build what is admitted by name.\n"
            f"  if {package} is your own: {PACKAGES_VARIABLE}={package} python train.py …"
        )
    try:
        return get_object(name)
    except Exception as error:  # whatever importing a user's module raises
        raise ConfigError(f"{place}._target_={name} cannot be imported: {error}") from error


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
                f"  name what it needs of {', '.join(given)} beside **options in {target.__name__}'s constructor"
            ) from None
        raise ConfigError(f"{place}: its options are refused: {error}") from error
