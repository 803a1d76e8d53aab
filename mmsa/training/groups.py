"""Groups of parameters that an optimiser treats alike: by the module they are of, and by what kind they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmsa.errors import ConfigError
from mmsa.ranges import NonNegative, Positive


@dataclass(frozen=True)
class GroupOptions:
    """Options of the parameters of a module; None takes those of the enclosing module.

    Args:
        lr: learning rate, > 0.
        weight_decay: >= 0.
        decay_biases: parameters of one axis (biases, scales of norms) decay like the others.
    """

    lr: Positive | None = None
    weight_decay: NonNegative | None = None
    decay_biases: bool | None = None


def options_by_prefix(tree: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """The options in a tree of modules' names, by the prefix of parameters' names that they are for."""
    own = {key: value for key, value in tree.items() if value is not None and not isinstance(value, Mapping)}
    found = {prefix: own} if own else {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= options_by_prefix(value, f"{prefix}.{key}" if prefix else key)
    return found


def is_of(name: str, prefix: str) -> bool:
    """Whether a parameter's name is that of a module, or of one in it."""
    return name == prefix or name.startswith(f"{prefix}.")


def check_prefixes(prefixes: Iterable[str], names: Iterable[str]) -> None:
    """Refuse options for a module that has no parameter.

    Raises:
        ConfigError: one hasn't.
    """
    there = list(names)
    for prefix in prefixes:
        if not any(is_of(name, prefix) for name in there):
            modules = dict.fromkeys(".".join(name.split(".")[:-1][:2]) or name for name in there)
            place = f"optimizer.groups.{prefix}".rstrip(".")
            raise ConfigError(
                f"{place}: needs the name of a module with parameters; choose from {', '.join(modules)}.\n"
                f"  type ~{place}, or one of these names"
            )


def divided(
    parameters: Iterable[Any],
    named: Mapping[str, nn.Parameter] | None = None,
    groups: Mapping[str, Any] | None = None,
    decay_biases: bool = True,
) -> list[Any]:
    """Parameters or groups of them, each group divided by the options of its parameters.

    Args:
        parameters: tensors, or groups, whose own options go before those by name.
        named: the parameters by name.
        groups: a tree of modules' names, with any of `GroupOptions` for the parameters below; the inner ones go first.
        decay_biases: parameters of one axis decay, where no option says otherwise.
    """
    given = list(parameters)
    by_prefix = sorted(options_by_prefix(groups or {}).items(), key=lambda entry: len(entry[0]))
    if decay_biases and not by_prefix:
        return given
    names = {parameter: name for name, parameter in (named or {}).items()}
    found: list[Any] = []
    for group in given if given and isinstance(given[0], Mapping) else [{"params": given}]:
        own = {key: value for key, value in group.items() if key != "params"}
        parts: dict[Any, dict[str, Any]] = {}
        for parameter in group["params"]:
            options: dict[str, Any] = {"decay_biases": decay_biases}
            for prefix, more in by_prefix:
                options |= more if is_of(names[parameter], prefix) else {}
            options |= own
            if not options.pop("decay_biases") and parameter.ndim <= 1:
                options["weight_decay"] = 0.0
            parts.setdefault(repr(options), {**options, "params": []})["params"].append(parameter)
        found += sorted(parts.values(), key=lambda part: "lr" in part)  # first the rate that a run logs
    return found
