"""The table of tested differences: each with its intervals, its p, its effect and the seeds that it needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from mmsa.analysis.differences import MARK, Difference
from mmsa.analysis.layout import LABELS, Cell, Column, Row, Table
from mmsa.analysis.significance import CONFIDENCE, Interval

_SHARE = f"{100 * CONFIDENCE:g} %"
_TERMS = {
    "difference": f"row minus reference, {_SHARE} interval over videos and seeds",
    "p": "after Holm over all comparisons of the table",
    "over seeds alone": f"{_SHARE} interval of the same difference by Student's t over seeds",
    "effect": f"Cohen's d: the difference over its standard deviation over seeds, {_SHARE} interval",
    "seeds needed": "with which a t test over seeds shows an effect of this size in four cases of five",
}
FIELDS = (
    *("reference", "metric", "difference", "difference_low", "difference_high", "p", "p_adjusted", "marked"),
    *("over_seeds_low", "over_seeds_high", "effect", "effect_low", "effect_high", "seeds_needed", "test"),
    *("seeds", "videos", "utterances", "remark"),
)


def difference_table(
    found: Sequence[Difference],
    title: str,
    notes: Sequence[str],
    percent: Mapping[str, bool],
    about: Mapping[str, object],
) -> Table:
    """A line per pair of rows and metric.

    Args:
        found: the differences, pair by pair.
        title: of the table whose rows they are.
        notes: on the tests.
        percent: metric -> whether it is printed times 100.
        about: field of CSV -> the same in all lines.
    """
    pairs = [list(ones) for _, ones in groupby(found, key=lambda one: (one.row, one.reference))]
    references = {one.reference for one in found}
    several = len(references) > 1
    labels = [f"{one.row} against {one.reference}" if several else one.row for one, *_ in pairs]
    heads = ["difference", "p", "over seeds alone", "effect", "seeds needed"]
    return Table(
        title=f"{title}: differences {'of each pair of rows' if several else f'from {references.pop()}'}",
        notes=notes,
        columns=[LABELS, Column("metric", folds_to=14), *map(Column, heads)],
        blocks=[
            [_row("" if place else label, one, percent[one.metric]) for place, one in enumerate(ones)]
            for label, ones in zip(labels, pairs, strict=True)
        ],
        terms=_TERMS,
        fields=[*about, "kind", "label", *FIELDS],
        records=[[*about.values(), "difference", one.row, *_record(one)] for one in found],
    )


def _row(label: str, one: Difference, percent: bool) -> Row:
    seeds = "–" if one.seeds_needed is None else f"{one.seeds_needed}"
    difference, over_seeds = (_scaled(interval, percent) for interval in (one.difference, one.over_seeds))
    texts = [difference, _probability(one.adjusted), over_seeds.partition(" ")[2] or "–", one.effect.text(1), seeds]
    first, *rest = map(Cell, texts)
    return (Cell(label), Cell(f"{one.metric}{' %' if percent else ''}"), first._replace(mark=MARK * one.marked), *rest)


def _scaled(interval: Interval, percent: bool) -> str:
    if not percent:
        return interval.text()
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    return replace(interval, mean=mean, low=low, high=high).text(1)


def _probability(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _record(one: Difference) -> list[object]:
    return [
        one.reference,
        one.metric,
        *_numbers(one.difference),
        one.p,
        one.adjusted,
        str(one.marked).lower(),
        *_numbers(one.over_seeds)[1:],
        *_numbers(one.effect),
        one.seeds_needed,
        one.test,
        one.num_seeds,
        one.num_videos,
        one.num_utterances,
        one.remark,
    ]


def _numbers(interval: Interval) -> list[float]:
    return [interval.mean, interval.low, interval.high]
