"""Options: their files, their allowed values, and the refusal of others."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from mmsa.errors import ConfigError
from mmsa.overrides import default_values, instead
from mmsa.program import installed
from mmsa.ranges import Count, NaturalNumber, Positive, Threads

PACKAGES_VARIABLE = "MMSA_PACKAGES"
"""Environment variable: packages of the user's own, comma-separated, whose classes a configuration may name."""


def admitted_packages() -> tuple[str, ...]:
    """The packages that the environment admits now."""
    return tuple(filter(None, (name.strip() for name in os.environ.get(PACKAGES_VARIABLE, "").split(","))))


PACKAGES = admitted_packages()
"""Those packages. Read once, before Hydra composes anything: no configuration can add to them."""

WORDING = {
    "Input should be": "needs",
    "a valid integer": "an integer",
    "a valid ": "a ",
    "'str' instances are not allowed as a Sequence value": "needs a list",
    "an instance of Sequence": "a list",
    "an instance of Mapping": "a dictionary",
    "needs greater": "needs a value greater",
    "needs less": "needs a value less",
}
"""Pydantic's reasons in the words of our messages."""


@dataclass(frozen=True)
class PathOptions:
    """Folders.

    Args:
        data: prepared stores.
        outputs: runs, the tracking database, the stores by default.
    """

    data: str
    outputs: str


@dataclass(frozen=True)
class DeviceOptions:
    """Where a run computes.

    Args:
        accelerator: "cpu", "cuda", "mps", or "auto" for the first available of cuda, mps, cpu.
        precision: "32-true", or "bf16-mixed" for matrix products in bfloat16.
        deterministic: the same seed gives equal bits on the same machine, versions and number of threads, at some
            cost on cuda; otherwise results on cuda are only close.
        threads: CPU threads, 1 to 1024; PyTorch crashes on many more.
        pack_seeds: "auto" trains several seeds of one configuration in one joint step where that is faster, "off" one
            after the other.
        devices: how many share every batch, >= 1, each by a process of its own on this machine.
        graphs: "auto" trains by CUDA graphs on cuda where the parts allow them, "off" never does.
    """

    accelerator: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["32-true", "bf16-mixed"]
    deterministic: bool
    threads: Threads
    pack_seeds: Literal["auto", "off"] = "auto"
    devices: Count = 1
    graphs: Literal["auto", "off"] = "auto"


@dataclass(frozen=True)
class TrainerOptions:
    """Options of `mmsa.training.trainer.Trainer`, and those of the run.

    Args: as there, where null is None, and
        resume: folder of a run to resume; null starts a new one.
        keep_last: keep last.pt, from which nobody resumes a finished run.
    """

    max_epochs: Count
    batch_size: Count
    accumulate: Count
    patience: Count
    clip_norm: Positive | None
    clip_value: Positive | None
    resume: str | None
    keep_last: bool


@dataclass(frozen=True)
class TopOptions:
    """Values at the top of the configuration.

    Args:
        seed: of every random draw, >= 0.
        hidden_dim: width that every stage takes by default, >= 1.
        name: name of the run; null takes the overrides.
    """

    seed: NaturalNumber
    hidden_dim: Count
    name: str | None


PLAIN_GROUPS = {"paths": PathOptions, "device": DeviceOptions, "trainer": TrainerOptions}
"""Groups that name nothing to build, and what holds of their options."""


def conf_folder() -> Path:
    """The configuration files: of the checkout, or those installed with the package."""
    return installed("conf")


def execution_whitelist() -> tuple[str, ...]:
    """The names that Hydra itself may call: our callback, and those of the user's own packages."""
    return ("mmsa.multirun.MultirunCallback", *(f"{name}.*" for name in PACKAGES))


def check_options(
    values: Mapping[str, Any], target: Callable[..., Any], place: str, given: Iterable[str] = (), more: Any = None
) -> None:
    """Check the values of one node of the configuration against what `target` accepts.

    Args:
        values: option -> value, without Hydra's own keys.
        target: class or function whose annotations state types and ranges.
        place: the node's place in the configuration, such as "encoder.text"; "" at the top.
        given: parameters that the program fills in.
        more: a class whose parameters the node has too; None where there is none.

    Raises:
        ConfigError: an option is unknown, missing, of the wrong type or out of range.
    """
    settable = {name: option for name, option in parameters(target).items() if name not in set(given)}
    settable |= {} if more is None else parameters(more)
    prefix = f"{place}." if place else ""
    for name, value in values.items():
        if name not in settable and passes_on(target):
            raise ConfigError(
                f"{prefix}{name}: {target.__name__} may take it as one of its **options, which cannot be checked."
                f"\n  name {name} among the parameters of its constructor"
            )
        if name not in settable:
            raise ConfigError(f"{prefix}{name}: there is no such option.{instead(str(name), settable, prefix)}")
        check_value(f"{prefix}{name}", value, settable[name].annotation)
    for name, parameter in settable.items():
        if name not in values and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{prefix}{name} is missing.\n  type +{prefix}{name}=VALUE")


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Check one value against what an annotation admits.

    Raises:
        ConfigError: it is of the wrong type or out of range, or an empty text.
    """
    from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

    checks = ConfigDict(arbitrary_types_allowed=True, strict=True, allow_inf_nan=False)
    try:
        TypeAdapter(annotation, config=checks).validate_python(value)
    except PydanticSchemaGenerationError:
        return  # a type of the user's own, which the constructor has to check
    except ValidationError as error:
        raise ConfigError(_refusal(key, value, error)) from None
    if value == "":
        raise ConfigError(
            f"{key}= is empty, as a shell variable that is not set makes it.\n  type {key}=VALUE, or leave it out"
        )


def parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a class or function, with resolved annotations.

    Those of a class that passes its `**options` on are also those of the class that it extends.
    """
    found: dict[str, inspect.Parameter] = {}
    for function in _callables(target):
        hints = get_type_hints(function, include_extras=True)
        named = [p for p in inspect.signature(function).parameters.values() if p.kind not in _OPEN_ENDED]
        if found:  # of a class that is extended, whose own constructor may be given what it needs
            named = [p if p.default is not p.empty else p.replace(default=None) for p in named]
        found = {p.name: p.replace(annotation=hints.get(p.name, Any)) for p in named} | found
    return {name: parameter for name, parameter in found.items() if name != "self"}


def passes_on(target: Callable[..., Any]) -> bool:
    """Whether a class or function takes options that it does not name, other than those of a class that it extends."""
    last = list(_callables(target))[-1]
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(last).parameters.values())


_OPEN_ENDED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _callables(target: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """A function; or the constructor of a class, and of each that it extends as long as it passes `**options` on."""
    if not isinstance(target, type):
        yield target
        return
    for cls in target.__mro__:
        if "__init__" in vars(cls) and not cls.__module__.startswith(("torch.", "typing", "builtins")):
            constructor: Callable[..., Any] = vars(cls)["__init__"]
            yield constructor
            if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(constructor).parameters.values()):
                return


def _refusal(key: str, value: Any, error: Any) -> str:
    """The value that came, the allowed values, the option to type."""
    reasons = dict.fromkeys(d["msg"] for d in error.errors(include_url=False) if d["type"] != "none_required")
    said = list(reasons)
    for stiff, plain in WORDING.items():
        said = [reason.replace(stiff, plain) for reason in said]
    allowed = ", or ".join([*said[:1], *(reason.removeprefix("needs ") for reason in said[1:])])
    default = default_values(conf_folder()).get(key)
    if allowed == "needs a list" and isinstance(value, str | int | float):
        return f"{key}={value}: {allowed}.\n  type {key}=[{value}]"
    simple = isinstance(default, int | float | str) and "$" not in str(default)
    example = str(default).lower() if isinstance(default, bool) else default
    hint = f"\n  type for example {key}={example}" if simple else ""
    shown = {None: "null", True: "true", False: "false"}.get(value, value) if isinstance(value, bool | None) else value
    return f"{key}={shown}: {allowed}.{hint}"
