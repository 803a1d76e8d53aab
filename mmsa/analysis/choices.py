"""The option of a group that a stored configuration was made with, where nobody typed it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mmsa.program import installed
from mmsa.run_folder import flat_parameters, load_yaml, value_text


def chosen(group: str, part: Mapping[str, str]) -> str | None:
    """The option whose values the part of a configuration has, of those for its class; else the module of its class.

    Args:
        group: such as `feedback`, or `encoder` for any modality.
        part: the part's keys -> values as text.
    """
    target = part.get("_target_", "")
    of_class = {name: values for name, values in _options(group).items() if values.get("_target_") == target}
    agreeing = {name: len(values.items() & part.items()) for name, values in of_class.items()}
    return max(agreeing, key=lambda name: agreeing[name]) if agreeing else ["", *target.split(".")][-2] or None


@cache
def _options(group: str) -> dict[str, dict[str, str]]:
    """The options of a group and their values; those that others build on stand first."""
    known = {
        path.stem: _values(path) for path in sorted((installed("conf") / group).glob("*.yaml")) if group.isidentifier()
    }
    return {name: known[name][1] for name in sorted(known, key=lambda name: known[name][0])}


def _values(path: Path) -> tuple[int, dict[str, str]]:
    """The number of options of its group that an option builds on, and its values with theirs."""
    content = load_yaml(path) or {}
    depth, values = 0, dict[str, str]()
    for base in content.pop("defaults", []):
        below = path.with_name(f"{base.partition('@')[0]}.yaml") if isinstance(base, str) else path
        if below != path and below.is_file():
            deeper, inherited = _values(below)
            depth, values = depth + deeper + 1, values | inherited
    return depth, values | {key: value_text(value) for key, value in flat_parameters(content).items()}
