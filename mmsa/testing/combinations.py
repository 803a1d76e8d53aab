"""Which options go together, by the declarations of the parts, and few combinations in which every pair occurs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from mmsa import parts
from mmsa.layers.support import ANY_NUMBER
from mmsa.testing.batches import MAX_STEPS, WIDTHS

Value = tuple[str, Any]
"""A factor and one of its values, such as ("fusion", "concat") or ("num_modalities", 3)."""
Pair = frozenset[Value]
GROUPS = ("fusion", "encoder", "regularizer", "feedback")
UNEQUAL = ("encoder.audio.hidden_dim=9",)
"""What makes encoders of one kind unequally wide."""
MEANINGLESS = {frozenset({("num_modalities", 1), differ}) for differ in (("axes", "own"), ("widths", "unequal"))}
"""A single modality has no other to differ from."""


class Combination(NamedTuple):
    """The parts of a model.

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
    def pairs(self) -> set[Pair]:
        return {frozenset(two) for two in itertools.combinations(self._asdict().items(), 2)}


class Combinations:
    """All combinations of some options.

    Args:
        options: per group of GROUPS the options that are combined.
        compose: overrides -> configuration.
        typed: the override of an option of a group; for others GROUP=OPTION.
    """

    def __init__(
        self,
        options: Mapping[str, Sequence[str]],
        compose: Callable[..., DictConfig],
        typed: Mapping[Value, Sequence[str]] | None = None,
    ) -> None:
        self.compose = compose
        self.typed = dict(typed or {})
        self.factors: dict[str, list[Any]] = {
            "fusion": list(options["fusion"]),
            "encoder": list(options["encoder"]),
            "regularizer": list(options["regularizer"]),
            "num_modalities": [3, 2, 4, 1],
            "feedback": list(options["feedback"]),
            "axes": ["common", "own"],
            "widths": ["equal", "unequal"],
        }

    def overrides(self, combination: Combination) -> list[str]:
        """The overrides of a combination."""
        named = [self.typed.get((g, getattr(combination, g)), (f"{g}={getattr(combination, g)}",)) for g in GROUPS]
        return [*itertools.chain(*named), *(UNEQUAL if combination.widths == "unequal" else ())]

    def part_of(self, group: str, option: str) -> Any:
        """The part that an option names, beside parts that go with it: an instance, of encoders the class."""
        cfg = self.compose(*self.typed.get((group, option), (f"{group}={option}",)))
        if group == "encoder":
            return parts.target_of(cfg, "encoder.text")
        supported = getattr(parts.target_of(cfg, group), "num_modalities", ANY_NUMBER)
        names = list(WIDTHS)[: next(n for n in (3, 2, 4, 1) if n in supported)]
        given = {
            "input_dims": dict.fromkeys(names, 8),
            "source_dims": {"sequence": dict.fromkeys(names, 8)},
            "modalities": names,
            "generator": torch.Generator(),
            "max_steps": dict.fromkeys(names, MAX_STEPS),
        }
        return parts.built(cfg, group, **{name: given[name] for name in parts.GIVEN[group]})

    @cached_property
    def refused(self) -> dict[Pair, tuple[Value, Value]]:
        """The pairs that exclude one another, each with the option that declares it first."""
        found: list[tuple[Value, Value]] = []
        made = {(g, option): self.part_of(g, option) for g in GROUPS for option in self.factors[g]}
        for group in ("encoder", "fusion", "regularizer", "feedback"):
            for option in self.factors[group]:
                part, name = made[group, option], (group, option)
                serves = getattr(part, "serves", ("sequence", "utterance"))
                found += [
                    (name, (g, o)) for (g, o), other in made.items() if g == "fusion" and other.reads not in serves
                ]
                supported = getattr(part, "num_modalities", ANY_NUMBER)
                found += [(name, ("num_modalities", n)) for n in (1, 2, 3, 4) if n not in supported]
                if getattr(part, "requires_alignment", False):
                    found.append((name, ("axes", "own")))
                if getattr(part, "requires_equal_widths", False):
                    found.append((name, ("widths", "unequal")))
        return {frozenset(two): two for two in found}

    def every(self) -> Iterator[Combination]:
        """The full product, meaningless ones left out."""
        for values in itertools.product(*self.factors.values()):
            combination = Combination(**dict(zip(self.factors, values, strict=True)))
            if not combination.pairs & MEANINGLESS:
                yield combination

    def is_allowed(self, combination: Combination) -> bool:
        """Whether no part of it refuses another."""
        return not combination.pairs & self.refused.keys()

    def completed(
        self, chosen: Mapping[str, Any], excluded: Collection[Pair], wanted: Collection[Pair] = ()
    ) -> Combination | None:
        """One with these values and without the excluded pairs, which has as many wanted ones as it can find."""
        factor = next((factor for factor in self.factors if factor not in chosen), None)
        if factor is None:
            return Combination(**chosen)
        values = self.factors[factor]
        pairs = {value: {frozenset({(factor, value), other}) for other in chosen.items()} for value in values}
        fitting = [value for value in values if pairs[value].isdisjoint(excluded)]
        for value in sorted(fitting, key=lambda value: -len(pairs[value].intersection(wanted))):
            if whole := self.completed({**chosen, factor: value}, excluded, wanted):
                return whole
        return None

    def pairwise(self) -> list[Combination]:
        """Few in which every pair occurs that any allowed one has; always the same."""
        excluded = self.refused.keys() | MEANINGLESS
        values = [(factor, value) for factor, values in self.factors.items() for value in values]
        twos = [two for two in itertools.combinations(values, 2) if two[0][0] != two[1][0]]
        missing = dict.fromkeys(pair for pair in map(frozenset, twos) if pair not in excluded)  # in order, unlike a set
        found = []
        while missing:
            first = next(iter(missing))
            del missing[first]
            if combination := self.completed(dict(first), excluded, missing):
                found.append(combination)
                missing = dict.fromkeys(pair for pair in missing if pair not in combination.pairs)
        return found

    def refusals(self) -> Iterator[tuple[Value, Value, Combination]]:
        """The refused pairs, each in a combination in which nothing else is refused, where there is one."""
        for pair, two in self.refused.items():
            if combination := self.completed(dict(two), (self.refused.keys() | MEANINGLESS) - {pair}):
                yield (*two, combination)
