"""Which options go together, by what the parts say of themselves, and few combinations in which every pair occurs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch

from mmsa import parts
from mmsa.layers.support import ANY_NUMBER
from tests.contracts.conftest import composed, encoder_overrides, options

Value = tuple[str, Any]
"""A factor and one of its values, such as ("fusion", "concat") or ("num_modalities", 3)."""
Pair = frozenset[Value]


class Combination(NamedTuple):
    """What a model is built of.

    Args:
        encoder, fusion, regularizer, feedback: options of these groups.
        num_modalities: how many there are.
        axes: "common", or "own" for modalities with steps of their own.
        widths: "equal", or "unequal" for encoders of different widths.
    """

    encoder: str
    fusion: str
    regularizer: str
    feedback: str
    num_modalities: int
    axes: str
    widths: str

    @property
    def overrides(self) -> list[str]:
        groups = [f"{group}={getattr(self, group)}" for group in ("fusion", "regularizer", "feedback")]
        return [*encoder_overrides(self.encoder), *groups, *(UNEQUAL if self.widths == "unequal" else [])]

    @property
    def pairs(self) -> set[Pair]:
        return {frozenset(two) for two in itertools.combinations(self._asdict().items(), 2)}


UNEQUAL = ["encoder.audio.hidden_dim=9"]
FACTORS: dict[str, list[Any]] = {
    "fusion": options("fusion"),
    "encoder": options("encoder"),
    "regularizer": options("regularizer"),
    "num_modalities": [3, 2, 4, 1],
    "feedback": options("feedback"),
    "axes": ["common", "own"],
    "widths": ["equal", "unequal"],
}
MEANINGLESS = {frozenset({("num_modalities", 1), differ}) for differ in (("axes", "own"), ("widths", "unequal"))}
"""A single modality has no other to differ from."""


@cache
def part_of(group: str, option: str) -> Any:
    """The part that an option names, beside parts that it goes together with: an instance, of encoders the class."""
    if group == "encoder":
        return parts.target_of(composed(f"encoder/text={option}"), "encoder.text")
    cfg = composed(f"{group}={option}")
    supported = getattr(parts.target_of(cfg, group), "num_modalities", ANY_NUMBER)
    widths = dict.fromkeys(("text", "audio", "visual", "gaze")[: next(n for n in (3, 2, 4, 1) if n in supported)], 8)
    given = {
        "input_dims": widths,
        "source_dims": {"sequence": widths},
        "modalities": list(widths),
        "generator": torch.Generator(),
        "max_steps": dict.fromkeys(widths, 9),
    }
    return parts.built(cfg, group, **{name: given[name] for name in parts.GIVEN[group]})


@cache
def refused() -> dict[Pair, tuple[Value, Value]]:
    """The pairs that exclude one another, each with the option that says so first."""
    found: list[tuple[Value, Value]] = []
    for group in ("encoder", "fusion", "regularizer", "feedback"):
        for option in options(group):
            part, name = part_of(group, option), (group, option)
            serves = getattr(part, "serves", ("sequence", "utterance"))
            found += [(name, ("fusion", f)) for f in options("fusion") if part_of("fusion", f).reads not in serves]
            supported = getattr(part, "num_modalities", ANY_NUMBER)
            found += [(name, ("num_modalities", n)) for n in sorted(FACTORS["num_modalities"]) if n not in supported]
            if getattr(part, "requires_alignment", False):
                found.append((name, ("axes", "own")))
            if getattr(part, "requires_equal_widths", False):
                found.append((name, ("widths", "unequal")))
    return {frozenset(two): two for two in found}


def every_combination() -> Iterator[Combination]:
    """The full product, meaningless ones left out."""
    for values in itertools.product(*FACTORS.values()):
        combination = Combination(**dict(zip(FACTORS, values, strict=True)))
        if not combination.pairs & MEANINGLESS:
            yield combination


def is_allowed(combination: Combination) -> bool:
    return not combination.pairs & refused().keys()


def completed(
    chosen: Mapping[str, Any], excluded: Collection[Pair], wanted: Collection[Pair] = ()
) -> Combination | None:
    """A combination with these values and without the excluded pairs, which has as many wanted ones as it can find."""
    factor = next((factor for factor in FACTORS if factor not in chosen), None)
    if factor is None:
        return Combination(**chosen)
    pairs = {value: {frozenset({(factor, value), other}) for other in chosen.items()} for value in FACTORS[factor]}
    fitting = [value for value in FACTORS[factor] if pairs[value].isdisjoint(excluded)]
    for value in sorted(fitting, key=lambda value: -len(pairs[value].intersection(wanted))):
        if whole := completed({**chosen, factor: value}, excluded, wanted):
            return whole
    return None


def pairwise() -> list[Combination]:
    """Few combinations in which every pair occurs that any allowed one has; always the same."""
    excluded = refused().keys() | MEANINGLESS
    values = [(factor, value) for factor, values in FACTORS.items() for value in values]
    twos = [two for two in itertools.combinations(values, 2) if two[0][0] != two[1][0]]
    missing = dict.fromkeys(pair for pair in map(frozenset, twos) if pair not in excluded)  # in order, unlike a set
    found = []
    while missing:
        first = next(iter(missing))
        del missing[first]
        if combination := completed(dict(first), excluded, missing):
            found.append(combination)
            missing = dict.fromkeys(pair for pair in missing if pair not in combination.pairs)
    return found


def refusals() -> Iterator[tuple[Value, Value, Combination]]:
    """The refused pairs, each in a combination in which nothing else is refused, where there is one."""
    for pair, two in refused().items():
        if combination := completed(dict(two), (refused().keys() | MEANINGLESS) - {pair}):
            yield (*two, combination)
