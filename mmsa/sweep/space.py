"""The search space of a sweep, read from the configuration and the command line."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mmsa.config import conf_folder
from mmsa.errors import ConfigError, text_of
from mmsa.overrides import explained, native_overrides, typed_key, typed_overrides
from mmsa.sweep.options import is_of_search

EXAMPLE = "'optimizer.lr=tag(log, interval(1e-4, 1e-2))' or feedback=none,mmlatch"
Refusals = Callable[[Mapping[str, Any]], ConfigError | None]
MAX_POINTS = 100_000
"""Points of a grid beyond which it is taken for a mistake."""


@dataclass(frozen=True)
class Space:
    """The dimensions of a sweep, and the overrides that all of its trials share.

    Args:
        distributions: of the keys that vary, by their name in Hydra's own words, in the order given.
        fixed: overrides of one value, deletions (`~x`) and additions (`+x=1`) among them, in Hydra's own words.
        texts: of the keys that vary, the values as they were given.
    """

    distributions: dict[str, BaseDistribution]
    fixed: tuple[str, ...]
    texts: dict[str, str]


def as_typed(space: Mapping[Any, Any]) -> dict[str, str]:
    """The values of a search space as they would be typed.

    Raises:
        ConfigError: a value is a list or a node.
    """
    for key, value in space.items():
        if not isinstance(value, str | int | float | None):
            raise ConfigError(
                f"sweep.space: {key} needs a text with a range, a choice or one value; it is {value}."
                f"\n  write for example {key}: none,mmlatch or {key}: tag(log, interval(1e-4, 1e-2))"
            )
    return {str(key): _text(value) for key, value in space.items()}


def read_space(params: Mapping[str, str], arguments: Sequence[str], seeds_allowed: bool) -> Space:
    """The space of the configuration's `sweep.space` and of the overrides, which win where both have a key.

    Args:
        params: value in Hydra's sweep syntax by key; short forms of ours (`encoder/text`) are allowed.
        arguments: overrides typed after train.py, in Hydra's own words; those of `sweep` and `hydra` are left out.
        seeds_allowed: `seed` may vary, as in a plain grid.

    Raises:
        ConfigError: a value cannot be read or searched, a key may not vary, or nothing varies.
    """
    lines = native_overrides(["-m", *(f"{key}={value}" for key, value in params.items())])[1:]
    typed = [_parsed(argument) for argument in arguments if not is_of_search(argument)]
    typed_keys = {_bare_key(override) for override in typed}
    given = [override for override in map(_parsed, lines) if _bare_key(override) not in typed_keys]
    distributions, fixed, texts = {}, [], {}
    for key, override in {override.get_key_element(): override for override in [*given, *typed]}.items():
        distribution = _distribution(override)
        if distribution is None:
            fixed.append(str(override.input_line))
        elif distribution.single():
            fixed.append(f"{key}={_text(_values(distribution)[0])}")
        else:
            _check_may_vary(override, distribution, seeds_allowed)
            distributions[key], texts[key] = distribution, _value_text(override)
    if not distributions:
        raise ConfigError(
            "a sweep needs something that varies: a range or a choice; each key here has one value, or none was given."
            f"\n  type for example {'seed=1,2,3 feedback=none,mmlatch' if seeds_allowed else EXAMPLE}"
        )
    return Space(distributions, tuple(fixed), texts)


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Every combination of the values, in the order of the keys, the last one changing fastest.

    Raises:
        ConfigError: a dimension is continuous, or there are more than 100000 points.
    """
    values = {key: _grid_values(key, distribution) for key, distribution in space.distributions.items()}
    count = math.prod(map(len, values.values()))
    if count > MAX_POINTS:
        sizes = " × ".join(f"{len(found)} of {typed_key(key)}" for key, found in values.items())
        raise ConfigError(
            f"a grid may have {MAX_POINTS} points, this one has {count}: {sizes}."
            "\n  type hydra/sweeper/sampler=tpe, which tries sweep.trials points, or fewer values"
        )
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def first_point(space: Space) -> dict[str, Any]:
    """The first choice, or the lower end, of every dimension."""
    return {key: _values(distribution)[0] for key, distribution in space.distributions.items()}


def overrides_of(space: Space, params: Mapping[str, Any]) -> list[str]:
    """The overrides of a trial, from which Hydra reads the very values that Optuna has.

    Args:
        space: the sweep's.
        params: values of keys of the space; of all of them for a whole trial.
    """
    return [f"{key}={_text(params[key])}" for key in space.distributions if key in params]


def check_space(space: Space, check: Callable[[list[str]], None]) -> None:
    """Try every choice, and both ends of every range, before a trial does.

    Each is tried with the other keys at their first value (first choice, lower end), so a space with c choices in all,
    in d keys, and r ranges costs 1 + (c - d) + r compositions. A value that is refused there is tried beside each
    choice of the other keys too, one key at a time, and is only an error where all of them refuse it: options may
    exclude one another. Values inside a range and other combinations are not tried.

    Args:
        space: the sweep's.
        check: composes the configuration of some overrides and raises its errors.

    Raises:
        ConfigError: a value is refused: which one, why, and the corrected option.
    """
    refusal = _refusals(space, check)
    first = first_point(space)
    for key, distribution in space.distributions.items():
        for value in _values(distribution):
            point = {**first, key: value}
            reason = refusal(point)
            if reason and all(refusal(other) for other in _beside(space, point, key)):
                raise _refused(space, refusal, point, key) from reason


def _beside(space: Space, point: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """The point with each choice of each key but `key`, one at a time."""
    for other, distribution in space.distributions.items():
        if other != key and isinstance(distribution, CategoricalDistribution):
            yield from ({**point, other: choice} for choice in _values(distribution))


def _refused(space: Space, refusal: Refusals, point: dict[str, Any], key: str) -> ConfigError:
    """Which value of a refused point is at fault: the one without which the rest is accepted."""

    def without(culprit: str) -> dict[str, Any]:
        return {other: value for other, value in point.items() if other != culprit}

    culprit = next((other for other in [key, *point] if refusal(without(other)) is None), None)
    if culprit is None and (common := refusal({})):  # something that all trials have
        return common
    shown = dict(zip(point, typed_overrides(overrides_of(space, point)), strict=True))
    culprit = culprit or key
    elsewhere = culprit != key and any(refusal(other) is None for other in _beside(space, point, culprit))
    beside = f" beside {shown[key]}" if elsewhere else ""
    reason, distribution = str(refusal(point)), space.distributions[culprit]
    if "needs an integer" in reason and isinstance(distribution, FloatDistribution):  # Hydra's interval(16, 128) is one
        low, high = distribution.low, distribution.high
        reason = f"needs whole numbers.\n  type '{typed_key(culprit)}=int(interval({low:g}, {high:g}))'"
    return ConfigError(f"the sweep cannot try {shown[culprit]}{beside}: {reason}")


def _refusals(space: Space, check: Callable[[list[str]], None]) -> Refusals:
    """The refusal of a point, or a part of one, composing each once; None where it is accepted."""

    @cache
    def asked(*overrides: str) -> ConfigError | None:
        try:
            check(list(overrides))
        except ConfigError as error:
            return error
        except (HydraException, OmegaConfBaseException) as error:
            return ConfigError(explained(text_of(error), conf_folder()))
        return None

    return lambda point: asked(*space.fixed, *overrides_of(space, point))


def _parsed(line: str) -> Override:
    try:
        return OverridesParser.create().parse_override(line)
    except HydraException as error:
        key, _, value = line.partition("=")
        raise ConfigError(
            f"{typed_key(key)}: {value or 'no value'} cannot be read as a range, a choice or a value: "
            f"{str(error).partition(chr(10))[0]}.\n  type for example {EXAMPLE}; a text with special signs needs quotes"
        ) from error


def _bare_key(override: Override) -> str:
    """The key without the signs of an addition or a deletion."""
    return override.get_key_element().lstrip("+~")


def _value_text(override: Override) -> str:
    return str(override.input_line).partition("=")[2]


def _distribution(override: Override) -> BaseDistribution | None:
    """The official plugin's distribution of a range or a choice, if we can search it; None for one value."""
    try:
        distribution = create_optuna_distribution_from_override(override)
    except (AssertionError, NotImplementedError, ValueError) as error:
        raise _unsearchable(override, str(error).rstrip(".") or "Optuna has no such distribution") from error
    if not isinstance(distribution, BaseDistribution):
        return None
    if isinstance(distribution, FloatDistribution) and not math.isfinite(distribution.high - distribution.low):
        raise _unsearchable(override, "its ends must be finite numbers")
    if isinstance(distribution, CategoricalDistribution):
        _check_choices(override, distribution.choices)
    return distribution


def _check_choices(override: Override, choices: Sequence[Any]) -> None:
    """Refuse choices that Hydra or Optuna would take for others."""
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep | RangeSweep) and sweep.shuffle:
        raise _unsearchable(override, "shuffle(...) gives another order in every process; the sampler mixes by itself")
    if len(set(choices)) < len(choices):
        raise _unsearchable(override, "two of its choices are equal (to Optuna, true is 1 and 1 is 1.0)")
    for choice, element in zip(choices, override.sweep_iterator(), strict=True):
        meant = Override._convert_value(element)  # texts without their quotes, in lists and mappings too
        if isinstance(choice, str) and OverridesParser.create().parse_override(f"x={choice}").value() != meant:
            raise _unsearchable(override, f"the choice {choice} has signs that need quotes around it")


def _unsearchable(override: Override, reason: str) -> ConfigError:
    key = typed_key(override.get_key_element())
    return ConfigError(f"{key}: {_value_text(override)} cannot be searched: {reason}.\n  type for example {EXAMPLE}")


def _check_may_vary(override: Override, distribution: BaseDistribution, seeds_allowed: bool) -> None:
    key = _bare_key(override)
    if key == "seed" and not seeds_allowed:
        count = len(_values(distribution)) if isinstance(distribution, CategoricalDistribution) else 3
        raise ConfigError(
            f"seed may not be searched ({_value_text(override)}): the best one is luck."
            f"\n  type sweep.seeds={count}: each trial runs with this number of seeds, and its score is their mean"
        )
    if key == "dataset.held_out" and not seeds_allowed:
        raise ConfigError(
            f"dataset.held_out may not be searched ({_value_text(override)}): the best part is the easiest.\n"
            "  type dataset.held_out=0: a search keeps one part, and each part has a search of its own"
        )
    if re.match(r"(paths|tracking)([.@]|$)|(name|trainer\.resume)$", key):
        raise ConfigError(
            f"{key} needs one value for the whole sweep, since runs are read or written there; "
            f"it is {_value_text(override)}.\n  type {key}=VALUE"
        )


def _values(distribution: Any) -> list[Any]:
    """The choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def _grid_values(key: str, distribution: Any) -> Sequence[Any]:
    """Every value of a dimension, from the first to the last."""
    if isinstance(distribution, CategoricalDistribution):
        return _values(distribution)
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if distribution.step is None:
        raise ConfigError(
            f"{typed_key(key)}: a grid needs single values, this is every number from {distribution.low} to "
            f"{distribution.high}.\n  type '{typed_key(key)}=choice({distribution.low}, {distribution.high})' or "
            f"'{typed_key(key)}=range(START, STOP, STEP)'"
        )
    steps = round((distribution.high - distribution.low) / distribution.step)
    # Decimal, so that 0.1 + 2 × 0.1 is the 0.3 that a user would type.
    low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
    return [float(low + index * step) for index in range(steps + 1)]


def _text(value: Any) -> str:
    """A value as Hydra reads it back without loss; texts are as the plugin wrote them, with their quotes."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
