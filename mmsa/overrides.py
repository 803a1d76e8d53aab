"""What is typed after train.py: our short form of it, and what to type when Hydra refuses it."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

TEXTS = (
    "name",
    "dataset.source",
    "dataset.glove",
    "encoder.text.name",
    "paths.data",
    "paths.outputs",
    "trainer.resume",
    "tracking.uri",
    "sweep.storage",
    "sweep.study",
)
"""Keys whose value is a text as it stands, such as the path `a=b (1)`, which Hydra by itself would not read."""

MODALITIES = ("text", "audio", "visual")
"""Those whose encoder can be chosen by itself."""


def native_overrides(overrides: Sequence[str]) -> list[str]:
    """Our short forms in Hydra's own words: `encoder/text=bert`, the encoder of one modality, and unquoted paths."""
    multirun = "-m" in overrides or "--multirun" in overrides or is_sweep(overrides)

    def native(override: str) -> str:
        key, equals, value = override.partition("=")
        stage, slash, modality = key.partition("/")
        if equals and slash and stage == "encoder" and modality.isidentifier():
            return f"encoder@encoder.{modality}={value}"
        return text_override(key, value) if equals and key in TEXTS and not _is_text(override, multirun) else override

    return [native(override) for override in [*overrides, *_text_encoder(overrides)]]


def is_sweep(overrides: Sequence[str]) -> bool:
    """Whether an option of the group `sweep` is chosen: many runs, whether or not -m is typed."""
    chosen = [override.partition("=")[2] for override in overrides if override.startswith("sweep=")]
    return bool(chosen) and chosen[-1] != "null"


def _text_encoder(overrides: Sequence[str]) -> list[str]:
    """`encoder=X` typed beside a recipe is of the text too, for which a recipe may have chosen another one."""
    typed = dict(override.partition("=")[::2] for override in overrides)
    if "experiment" not in typed or "encoder/text" in typed or "," in typed.get("encoder", ","):
        return []
    return [f"encoder/text={typed['encoder']}"]


def typed_overrides(overrides: Iterable[str]) -> list[str]:
    """Hydra's words in ours, as a run is named and typed: `encoder/text=bert`, and `${encoder}` as it was."""
    short = (re.sub(r"^encoder@encoder\.(\w+)=", r"encoder/\1=", override) for override in overrides)
    return [override.replace(r"\{", "{").replace(r"\}", "}") for override in short]


def typed_key(key: str) -> str:
    """A key in our words."""
    return typed_overrides([f"{key}="])[0].removesuffix("=")


def text_override(key: str, value: str) -> str:
    """`key=value` where Hydra takes the value as it stands, whatever signs are in it."""
    return f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it, whatever signs are in it."""
    return QuotedString(text, Quote.double).with_quotes()


def _is_text(override: str, multirun: bool) -> bool:
    """Whether Hydra reads the value as a text or null, or as several ones in a multirun."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return multirun if parsed.is_sweep_override() else isinstance(parsed.value(), str | None)


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
        advised = re.search(r"use \+[^=\s]+=(.+)", message)  # to append it, with the value that came
        value = advised[1] if advised else "VALUE"
        return message if found[1].startswith("hydra") else _unknown_key(found[1], value, conf)
    if found := re.search(r"Could not find '([^'/]+)/([^']+)'", message):
        return _unknown_option(found[1], found[2], message, conf)
    if found := re.search(r"Error when parsing index: \d+, string: (.*?) out of \[", message, flags=re.DOTALL):
        key, equals, value = found[1].partition("=")
        form = shlex.quote(text_override(key, value)) if equals else "KEY=VALUE, as in seed=2; --help lists the keys"
        return f"{found[1]}: cannot be read as KEY=VALUE; a value with special signs needs quotes.\n  type {form}"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", message):
        key, _, value = found[1].partition("=")
        return (
            f"{found[1]}: one value is needed, these are several.\n  type python train.py -m {found[1]} for one run "
            f"with each of them, or '{key}=[{value}]' for a list"
        )
    if "Config group override must be a string" in message:
        return (
            "a group needs the name of one of its options.\n  type for example feedback=none; --help lists the groups"
        )
    return message


def _unknown_key(key: str, value: str, conf: Path) -> str:
    """A key that the composed configuration has not."""
    if found := re.fullmatch(r"encoder@encoder\.(\w+)", key):
        return f"encoder/{found[1]}: there is no such modality.{instead(found[1], MODALITIES, 'encoder/')}"
    known = default_values(conf)
    group, _, name = key.rpartition(".")
    if key in known and group == "sweep":
        return f"{key}: an option of a sweep, and none is chosen.\n  type sweep=search {key}={value}"
    room = key.partition(".")[0]
    options = [path.stem for path in sorted((conf / room).glob("*.yaml")) if name in _content(path)]
    if key in known and options:
        return (
            f"{key}: no option of the chosen {room}, but of {', '.join(options)}."
            f"\n  type {group.replace('.', '/', 1)}={options[0]} {key}={value}"
        )
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == group]
    namesakes = [other for other in known if other.rpartition(".")[2] == name]
    if group and siblings:
        return f"{key}: there is no such option.{instead(name, siblings, f'{group}.')}"
    if namesakes:
        return f"{key}: there is no such option.\n  type {namesakes[0]}=VALUE"
    groups = {path.parent.name for path in conf.glob("*/*.yaml")}
    tops = [other for other in known if "." not in other]
    return f"{key}: there is no such group or option.{instead(key, [*sorted(groups), *tops])}"


def _unknown_option(group: str, option: str, message: str, conf: Path) -> str:
    """An option that a group has not; Hydra's message lists those that it has, a user's own ones among them."""
    listed = re.findall(r"^\t(\S+)$", message, flags=re.MULTILINE)
    there = [name for name in listed if "=" not in name] or sorted(path.stem for path in (conf / group).glob("*.yaml"))
    close = difflib.get_close_matches(option, there, n=1, cutoff=0.4) or there[:1]
    shown = f"{group}={option}: there is no such option; there is {', '.join(there)}."
    return f"{shown}\n  type {group}={close[0]}" if close else shown


def default_values(conf: Path) -> dict[str, Any]:
    """Every key, such as "trainer.max_epochs", that some option of some group in a folder has, and its first value."""
    top = OmegaConf.load(conf / "config.yaml")
    found = {key: value for key, value in _flat(top) if not key.startswith("hydra")}
    for path in sorted(conf.glob("*/*.yaml")):
        group = path.parent.name
        if group in ("debug", "experiment"):  # their keys are those of other groups
            continue
        if group == "sweep":  # whose files also hold the keys of others
            found |= {key: value for key, value in _flat(_content(path)) if key.startswith("sweep.")} | found
            continue
        places = [f"encoder.{m}" for m in MODALITIES] if group == "encoder" else [group]
        for key, value in _flat(_content(path)):
            for place in places if key[0] != "_" else ():
                found.setdefault(f"{place}.{key}", value)
    return found


def _content(path: Path) -> DictConfig:
    """What an option file says, over what the options that it starts from say."""
    own = cast(DictConfig, OmegaConf.load(path))
    entries = [entry for entry in own.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    parents = [_content(path.parent / f"{entry.partition('@')[0]}.yaml") for entry in entries]
    return cast(DictConfig, OmegaConf.merge(*parents, own))


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", OmegaConf.to_container(value) if isinstance(value, ListConfig) else value._value()
