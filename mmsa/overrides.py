"""The overrides of train.py: our short forms, and the corrected override when Hydra refuses one."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from omegaconf import DictConfig, ListConfig, OmegaConf

from mmsa.errors import ConfigError
from mmsa.program import training
from mmsa.secrets import VARIABLES, keep, unset

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
"""Keys whose value is plain text, such as the path `a=b (1)`, which Hydra would not read without quotes."""

_NO_TEXTS = ("null", "true", "false", "nan", "inf")
"""Words that are values of other types where they stand without quotes."""

MODALITIES = ("text", "audio", "visual")
"""Those whose encoder can be chosen by itself."""


def native_overrides(overrides: Sequence[str]) -> list[str]:
    """Our short forms in Hydra's own words: `encoder/text=bert`, the encoder of one modality, and unquoted paths."""
    multirun = "-m" in overrides or "--multirun" in overrides or is_sweep(overrides)

    def native(override: str) -> str:
        override = without_secret(override)
        key, equals, value = override.partition("=")
        stage, slash, modality = key.partition("/")
        if equals and key in TEXTS:
            return override if _is_text(override, multirun) else text_override(key, value)
        named = re.fullmatch(r""" *(["']?)([A-Za-z]\w*)\1 *""", value)
        if named and named[2].lower() not in _NO_TEXTS:
            value = named[2]
        if equals and "." not in key and value.lstrip().startswith("["):  # Hydra would lay one option over another
            each = shlex.quote(f"{key}={value.strip(' []')}")
            form = f"{training()} -m {each} for one run with each of them" if "," in value else each
            raise ConfigError(f"{override}: one value is needed, this is a list.\n  type {form}")
        if equals and slash and stage == "encoder" and modality.isidentifier():
            key = f"encoder@encoder.{modality}"
        return f"{key}{equals}{value}"

    return [native(override) for override in [*overrides, *_text_encoder(overrides)]]


def without_secret(override: str) -> str:
    """An override as it may be stored and shown; the secret of its address is kept in the environment."""
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in VARIABLES:
        return override
    quote = value[0] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else ""
    shown = keep(key.lstrip("+"), value[1:-1] if quote else value)
    return f"{key}={quote}{shown}{quote}"


def check_dashes(arguments: Sequence[str], conf: Path) -> None:
    """Refuse options with dashes, such as `--epochs 10`.

    Args:
        arguments: typed after train.py.
        conf: folder of the configuration files.

    Raises:
        ConfigError: an argument with dashes is none of Hydra's.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}.\n  type {training()} --help")

    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    unknown = [argument for argument in parser.parse_known_args(list(arguments))[1] if argument.startswith("-")]
    if unknown:
        word, _, value = unknown[0].partition("=")
        after = [*arguments, "--"][arguments.index(unknown[0]) + 1]
        value = value or ("VALUE" if "=" in after or after.startswith("-") else after)
        advice = _at_the_top(word.strip("-").replace("-", "_"), value, conf)
        raise ConfigError(f"{word}: an option is typed as KEY=VALUE, without dashes.{advice}")


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


def recorded(overrides: Sequence[str]) -> list[str]:
    """Overrides from Python as the command line records the same ones: without quotes that mean nothing."""
    return typed_overrides(native_overrides(overrides))


def typed_key(key: str) -> str:
    """A key in our words."""
    return typed_overrides([f"{key}="])[0].removesuffix("=")


def text_override(key: str, value: str) -> str:
    """`key=value`, quoted so that Hydra takes the value literally."""
    return f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """A text quoted for Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double).with_quotes()


def _is_text(override: str, multirun: bool) -> bool:
    """Whether Hydra reads the value as a text or null, or as several ones in a multirun."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return multirun if parsed.is_sweep_override() else isinstance(parsed.value(), str | None)


def instead(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A line with the option to type instead of `name`."""
    there = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    if close:
        return f"\n  type {prefix}{close[0]}=VALUE"
    return f"\n  there is: {', '.join(there) or 'none'}"


def explained(message: str, conf: Path) -> str:
    """Hydra's refusal of an override in our words: the override, the known ones, and the corrected one.

    Args:
        message: text of Hydra's error.
        conf: folder of the configuration files.
    """
    if found_unset := unset(message):
        return found_unset
    if found := re.search(r"Could not (?:override|delete)[^']*'([^']+)'", message):
        advised = re.search(r"use \+[^=\s]+=(.+)", message)  # to append it, with the value that came
        value = advised[1] if advised else "VALUE"
        return message if found[1].startswith("hydra") else _unknown_key(found[1], value, conf)
    if found := re.search(r"Could not find '([^'/]+)/([^']*)'", message):
        return _unknown_option(found[1], found[2], message, conf)
    if found := re.search(r"Error when parsing index: \d+, string: (.*?) out of \[", message, flags=re.DOTALL):
        key, _, value = (part.strip() for part in found[1].partition("="))
        default = default_values(conf).get(key)
        if isinstance(default, int | float | list):
            form = "for example " + shlex.quote(f"{key}={default}".replace("'", ""))
        else:
            form = shlex.quote(text_override(key, value)) if value else "KEY=VALUE, as in seed=2; --help lists the keys"
        return f"{found[1]}: cannot be read as KEY=VALUE; a value with special signs needs quotes.\n  type {form}"
    if found := re.search(r"Interpolation key '([^']+)' not found\s+full_key: (\S+)", message):
        return f"{found[2]}: there is no key {found[1]} to take a value from.\n  {training()} --cfg job prints all keys"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", message):
        override = typed_overrides([found[1]])[0]
        key, _, value = override.partition("=")
        takes_one = "." not in key or isinstance(default_values(conf).get(key), int | float | str)
        together = "" if takes_one or value.startswith(("[", "{")) else f", or '{key}=[{value}]' for a list"
        return (
            f"{override}: one value is needed, these are several.\n  type {training()} -m {shlex.quote(override)} "
            f"for one run with each of them{together}"
        )
    if found := re.search(r"Sweep parameters '(.+)' requires --multirun", message):
        way = "sweep=search" if "interval(" in found[1] else "-m"
        return f"{found[1]}: a run needs one value, these are many.\n  type {training()} {way} {shlex.quote(found[1])}"
    if "sweep type : INTERVAL_SWEEP" in message:
        return (
            "-m tries every value, and interval(…) has infinitely many.\n"
            "  type sweep=search instead of -m, or single values: optimizer.lr=1e-4,1e-3"
        )
    if "Config group override must be a string" in message or "Error resolving interpolation '${encoder}'" in message:
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
        return f"{key}: an option of sweeps, and no sweep is chosen.\n  type sweep=search {key}={value}"
    room = key.partition(".")[0]
    options = [path.stem for path in sorted((conf / room).glob("*.yaml")) if name in option_content(path)]
    if key in known and options:
        form = f"{'for example ' if len(options) > 1 else ''}{group.replace('.', '/', 1)}={options[0]} {key}={value}"
        return f"{key}: not an option of the chosen {room}, but of {', '.join(options)}.\n  type {form}"
    siblings = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == group]
    if group and siblings:
        return f"{key}: there is no such option.{instead(name, siblings, f'{group}.')}"
    return f"{key}: there is no such group or option.{_at_the_top(name, value, conf)}"


def _at_the_top(name: str, value: str, conf: Path) -> str:
    """A line with the override to type instead of `name=value`, which is no group and no top-level option."""
    known = default_values(conf)
    places: dict[str, str] = {}
    for key in known:
        leaf = key.rpartition(".")[2]
        if leaf == name or not key.startswith("sweep."):  # whose keys few mean who type another name
            places.setdefault(leaf, key)
    tops = [*sorted({path.parent.name for path in conf.glob("*/*.yaml")}), *(key for key in known if "." not in key)]
    places |= {top: top for top in tops}
    close = difflib.get_close_matches(name, places, n=1, cutoff=0.6)
    if not close:
        return f"\n  there is: {', '.join(tops)}"
    place = places[close[0]]
    room = place.partition(".")[0]
    options = [
        path.stem for path in _option_files(conf) if path.parent.name == room and close[0] in option_content(path)
    ]
    beside = "" if not options or options[0] == _usual(conf).get(room) else f", an option of {room}={'|'.join(options)}"
    return f"\n  type {'sweep=search ' if room == 'sweep' and room != place else ''}{place}={value}{beside}"


def _unknown_option(group: str, option: str, message: str, conf: Path) -> str:
    """An option that a group has not; Hydra's message lists those that it has, a user's own ones among them."""
    listed = re.findall(r"^\t(\S+)$", message, flags=re.MULTILINE)
    there = [name for name in listed if "=" not in name] or sorted(path.stem for path in (conf / group).glob("*.yaml"))
    meant = "cuda" if group == "device" and option.lower().startswith("gpu") else option
    close = difflib.get_close_matches(meant, there, n=1, cutoff=0.4) or there[:1]
    shown = f"{group}={option}: there is no such option; choose from {', '.join(there)}."
    of_one = f", or encoder/text={close[0]} for text alone" if close and group == "encoder" else ""  # Hydra hides which
    return f"{shown}\n  type {group}={close[0]}{of_one}" if close else shown


def default_values(conf: Path) -> dict[str, Any]:
    """Every key, such as "trainer.max_epochs", that some option of some group in a folder has, and its first value:
    that of the option which a run has by default, where it has the key."""
    top = OmegaConf.load(conf / "config.yaml")
    found = {key: value for key, value in _flat(top) if not key.startswith(("hydra", "defaults"))}
    for path in _option_files(conf):
        group = path.parent.name
        if group in ("debug", "experiment"):  # their keys are those of other groups
            continue
        if group == "sweep":  # whose files also hold the keys of others
            found |= {key: value for key, value in _flat(option_content(path)) if key.startswith("sweep.")} | found
            continue
        places = [f"encoder.{m}" for m in MODALITIES] if group == "encoder" else [group]
        for key, value in _flat(option_content(path)):
            for place in places if key[0] != "_" else ():
                found.setdefault(f"{place}.{key}", value)
    return found


def _option_files(conf: Path) -> list[Path]:
    """Of each group the option that a run has by default, and then the others of all groups."""
    usual = _usual(conf)
    return sorted(conf.glob("*/*.yaml"), key=lambda path: (path.stem != usual.get(path.parent.name), path))


def _usual(conf: Path) -> dict[str, str]:
    """The option of each group that a run has by default."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(conf / "config.yaml").defaults, resolve=False)
    chosen = [entry for entry in entries if isinstance(entry, dict)]
    return {str(group): str(option) for entry in chosen for group, option in entry.items()}


def option_content(path: Path) -> DictConfig:
    """The content of an option file, over that of the options in its defaults."""
    own = cast(DictConfig, OmegaConf.load(path))
    entries = [entry for entry in own.pop("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    parents = [option_content(path.parent / f"{entry.partition('@')[0]}.yaml") for entry in entries]
    return cast(DictConfig, OmegaConf.merge(*parents, own))


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in node:
        value = node._get_node(key)
        if isinstance(value, DictConfig):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", OmegaConf.to_container(value) if isinstance(value, ListConfig) else value._value()
