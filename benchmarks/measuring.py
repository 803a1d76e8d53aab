"""Contenders that take turns in one process, measured in its processor time."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks import floor


@dataclass(frozen=True)
class Work:
    """What a turn did.

    Args:
        units: how many of the contest's unit.
        operations: of its matrix products on real steps; None: not counted.
    """

    units: float = 1
    operations: float | None = None


@dataclass(frozen=True)
class Contender:
    """One way to do a contest's work.

    Args:
        name: in the table.
        turn: does some of it.
    """

    name: str
    turn: Callable[[], Work]


@dataclass(frozen=True)
class Contest:
    """Contenders of one row of the table.

    Args:
        unit: of the work.
        contenders: at least one.
        plain: the one to which the ratios of the others are; None: no ratios.
    """

    unit: str
    contenders: Sequence[Contender]
    plain: Contender | None = None


@dataclass
class Figures:
    """What a contender's turns came to, one element a round.

    Args:
        seconds: processor time of the turn.
        units, operations: as of `Work`.
        shares: of the floor, the part of the time that a machine at its full fp32 rate would need.
        ratios: how many times as fast as the plain contender in the same round.
    """

    seconds: list[float] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    operations: list[float] = field(default_factory=list)

    @property
    def per_unit(self) -> float:
        """Median processor seconds of one unit."""
        return median(s / u for s, u in zip(self.seconds, self.units, strict=True))

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        return {"seconds_per_unit": self.per_unit, **{k: v for k, v in vars(self).items() if v}}


def processor_time() -> float:
    """Seconds of this process and of the programs that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def held(contest: Contest, rounds: int, side: int) -> dict[str, Figures]:
    """The contest, every contender in every round, in turned order every second round; one round before is not counted.

    Args:
        contest: what to measure.
        rounds: that count, >= 1.
        side: of the square matrices whose product gives the machine's rate.
    """
    everyone = [*contest.contenders, *([contest.plain] if contest.plain else [])]
    figures = {contender.name: Figures() for contender in everyone}
    for number in range(rounds + 1):
        speed = floor.rate(side=side)
        per_work: dict[str, float] = {}
        for contender in everyone if number % 2 else reversed(everyone):
            gc.collect()
            start = processor_time()
            work = contender.turn()
            seconds = processor_time() - start
            per_work[contender.name] = seconds / (work.operations or work.units)
            if number == 0:
                continue
            found = figures[contender.name]
            found.seconds.append(seconds)
            found.units.append(work.units)
            if work.operations is not None:
                found.operations.append(work.operations)
                found.shares.append(work.operations / seconds / speed)
        for contender in contest.contenders if contest.plain and number else ():
            figures[contender.name].ratios.append(per_work[contest.plain.name] / per_work[contender.name])
    return figures
