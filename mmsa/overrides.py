"""What is typed after train.py: our short form of it, and what to type when Hydra refuses it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf


def native_overrides(overrides: Iterable[str]) -> list[str]:
    """`encoder/text=bert`, the encoder of one modality, in Hydra's own words."""

    def native(override: str) -> str:
        group, equals, option = override.partition("=")
        stage, slash, modality = group.partition("/")
        if equals and slash and stage == "encoder" and modality.isidentifier():
            return f"encoder@encoder.{modality}={option}"
        return override

    return [native(override) for override in overrides]


def instead(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A line that says what to type instead of `name`."""
    there = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    if close:
        return f"\n  type {prefix}{close[0]}=VALUE"
    return f"\n  there is: {', '.join(there) or 'none'}"


def explained(message: str, conf: Path) -> str:
    """Hydra's refusal of an override as what came, what is there, and what to type.

    Args:
        message: text of Hydra's error.
        conf: folder of the configuration files.
    """
    if found := re.search(r"Could not (?:override|delete)[^']*'([^']+)'", message):
        key, known = found[1], _defaults(conf)
        group, _, name = key.rpartition(".")
        siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == group]
        namesakes = [other for other in known if other.rpartition(".")[2] == name]
        if group and siblings:
            return f"{key}: there is no such option.{instead(name, siblings, f'{group}.')}"
        if namesakes:
            return f"{key}: there is no such option.\n  type {namesakes[0]}=VALUE"
        groups = {path.parent.name for path in conf.glob("*/*.yaml")}
        tops = [other for other in known if "." not in other]
        return f"{key}: there is no such group or option.{instead(key, [*sorted(groups), *tops])}"
    if found := re.search(r"Could not find '([^'/]+)/([^']+)'", message):
        group, option = found[1], found[2]
        options = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        listed = re.findall(r"^\t(\S+)$", message, flags=re.MULTILINE)
        there = [name for name in listed if "=" not in name] or options
        close = difflib.get_close_matches(option, there, n=1, cutoff=0.4) or there[:1]
        shown = f"{group}={option}: there is no such option; there is {', '.join(there)}."
        return f"{shown}\n  type {group}={close[0]}" if close else shown
    if found := re.search(r"Error when parsing index: \d+, string: (.*?) out of \[", message, flags=re.DOTALL):
        return (
            f"{found[1]}: needs the form KEY=VALUE; a value with = or a space in it needs quotes.\n"
            "  type for example 'dataset.source=\"a folder\"', and python train.py --help for the keys"
        )
    return message


def default_value(key: str, conf: Path) -> Any:
    """The value that a key has in the files; None where none has it.

    Args:
        key: such as "trainer.max_epochs".
        conf: folder of the configuration files.
    """
    return _defaults(conf).get(key)


def _defaults(conf: Path) -> dict[str, Any]:
    """Every key that some option of some group has, and its first value."""
    top = OmegaConf.load(conf / "config.yaml")
    found = {key: value for key, value in _flat(top) if not key.startswith("hydra")}
    for path in sorted(conf.glob("*/*.yaml")):
        group = path.parent.name
        places = [f"encoder.{m}" for m in ("text", "audio", "visual")] if group == "encoder" else [group]
        for key, value in _flat(OmegaConf.load(path)):
            for place in places if key[0] != "_" else ():
                found.setdefault(f"{place}.{key}", value)
    return found


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig):
            yield from _flat(value, f"{prefix}{key}.")
        elif key != "defaults":
            yield f"{prefix}{key}", OmegaConf.to_container(value) if isinstance(value, ListConfig) else value._value()
