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
from benchmarks.shape import WIDTHS


@dataclass(frozen=True)
class Size:
    """How large the benchmarks are.

    Args:
        num_utterances: of the corpus.
        num_train: utterances that a training turn takes.
        num_videos: of the sequences to align.
        short: to see whether they work: narrow features and models, small batches, one round.
    """

    num_utterances: int = 4000
    num_train: int = 256
    num_videos: int = 20
    short: bool = False

    @property
    def widths(self) -> dict[str, int]:
        """Of the features."""
        return {"text": 6, "audio": 4, "visual": 3} if self.short else WIDTHS

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of every configuration."""
        return ("hidden_dim=4", "trainer.batch_size=8") if self.short else ()


SHORT = Size(num_utterances=20, num_train=8, num_videos=3, short=True)


@dataclass(frozen=True)
class Work:
    """What a turn did.

    Args:
        units: how many of the contest's unit.
        operations: of its matrix products on real steps; None: not counted.
        seconds: processor time, of a turn that cleans up afterwards; None: that of the turn.
        peak: most memory of the program that it ran, in MB; None: it ran none.
    """

    units: float = 1
    operations: float | None = None
    seconds: float | None = None
    peak: float | None = None


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
        most_rounds: where a turn takes a minute, in which the first round is as good as any and counts; None: no limit.
    """

    unit: str
    contenders: Sequence[Contender]
    plain: Contender | None = None
    most_rounds: int | None = None


@dataclass
class Figures:
    """What a contender's turns came to, one element a round.

    Args:
        seconds: processor time of the turn.
        units, operations: as of `Work`.
        shares: of the floor, the part of the time that a machine at its full fp32 rate would need.
        ratios: how many times as fast as the plain contender in the same round.
        peaks: as of `Work`.
    """

    seconds: list[float] = field(default_factory=list)
    units: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    operations: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)

    @property
    def per_unit(self) -> float:
        """Median processor seconds of one unit."""
        return median(s / u for s, u in zip(self.seconds, self.units, strict=True))

    def add(self, work: Work, seconds: float, speed: float) -> None:
        """One more turn, on a machine that makes `speed` operations a second."""
        self.seconds.append(seconds)
        self.units.append(work.units)
        if work.operations is not None:
            self.operations.append(work.operations)
            self.shares.append(work.operations / seconds / speed)
        if work.peak is not None:
            self.peaks.append(work.peak)

    def record(self) -> dict[str, Any]:
        """For the JSON."""
        return {"seconds_per_unit": self.per_unit, **{k: v for k, v in vars(self).items() if v}}


def processor_time() -> float:
    """Seconds of this process and of the programs that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def held(contest: Contest, rounds: int, size: Size) -> dict[str, Figures]:
    """The contest: every contender in every round, in turned order every second round, after one that does not count.

    Args:
        contest: what to measure.
        rounds: that count, >= 1.
        size: a short one has one round, which counts.
    """
    everyone = [*contest.contenders, *([contest.plain] if contest.plain else [])]
    figures = {contender.name: Figures() for contender in everyone}
    gc.freeze()  # what is there already is not searched again and again
    try:
        most = 1 if size.short else contest.most_rounds
        for number in range(1 if most else 0, min(rounds, most or rounds) + 1):
            speed = floor.rate(side=64 if size.short else 768)
            turns = {c.name: taken(c) for c in (everyone if number % 2 else reversed(everyone))}
            for contender in everyone if number else ():
                work, seconds = turns[contender.name]
                figures[contender.name].add(work, seconds, speed)
                if contest.plain not in (None, contender):
                    figures[contender.name].ratios.append(pace(*turns[contest.plain.name]) / pace(work, seconds))
    finally:
        gc.unfreeze()
    return figures


def taken(contender: Contender) -> tuple[Work, float]:
    """A turn, and its processor time."""
    gc.collect()
    start = processor_time()
    work = contender.turn()
    return work, processor_time() - start if work.seconds is None else work.seconds


def pace(work: Work, seconds: float) -> float:
    """Seconds of the same amount of work: per operation where they are counted, since lengths differ between turns."""
    return seconds / (work.operations or work.units)
