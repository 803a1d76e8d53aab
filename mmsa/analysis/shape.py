"""The rows and columns of result tables, as they are asked for."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mmsa.analysis.ranking import ranked
from mmsa.analysis.runs import Group, Run, by_configuration, without_shared
from mmsa.analysis.selection import check_option, fits, is_like, wanted
from mmsa.errors import ConfigError
from mmsa.run_folder import override_key
from mmsa.training.metrics import METRICS

MOST_COMPARED = 20
"""Rows of a ranked table that are compared and drawn, the reference among them."""
_BOTH = ("acc2", "f1")
_MOST_ROWS = 8


@dataclass(frozen=True)
class Shape:
    """How result tables are made of runs.

    Args:
        metrics: the columns, each a metric, or two as a pair; none: those that the task shows.
        percent: accuracies and F1 are printed times 100.
        rows: (name, pattern) of the rows that are shown, in this order; none: all. With an empty name a row keeps its
            own.
        baselines: whether they stand below.
        seeds: one row per seed.
        by: options; runs that have the same values of them are one row.
        reference: name of the row with which the others are compared; none are.
        pairs: whether each pair of rows is compared.
        anchors: whether published results stand below.
        ranked: whether the rows stand in the order of their validation scores, with every metric that they have, and
            the first MOST_COMPARED are compared on the test fold, in the metrics that the task shows, with the
            reference; where a table has none, with the first row.
    """

    metrics: tuple[tuple[str, ...], ...] = ()
    percent: bool = False
    rows: tuple[tuple[str, str], ...] = ()
    baselines: bool = True
    seeds: bool = False
    by: tuple[str, ...] = ()
    reference: str | None = None
    pairs: bool = False
    anchors: bool = False
    ranked: bool = False

    def compared(self, groups: Sequence[Group]) -> tuple[str | None, Sequence[Group]]:
        """The reference of a table, None of each pair, and the rows that are compared; none where none are."""
        if self.pairs:
            return None, groups
        named = next((group for group in groups if group.label == self.reference), None)
        if not self.ranked:
            return self.reference, groups if named else []
        reference = named or (ranked(groups).best if groups[0].runs[0].fold == "test" else None)
        if reference is None:
            return None, []
        others = [group for group in groups if group is not reference][: MOST_COMPARED - 1]
        return reference.label, [reference, *others]

    def columns(self, runs: Sequence[Run]) -> tuple[tuple[str, ...], ...]:
        """The metrics of each column of a table of these runs."""
        if not self.ranked:
            return self.metrics or tuple((metric,) for metric in runs[0].primary)
        known = {name.partition("/")[2] for run in runs for name in run.metrics if name.startswith(f"{run.fold}/")}
        more = [metric for metric in METRICS if metric in known and metric != "loss"]
        return tuple((metric,) for metric in dict.fromkeys([*runs[0].primary, *more]))

    def check(self, runs: Sequence[Run]) -> None:
        """Check that runs have the metrics and options of this shape.

        Raises:
            ConfigError: no run has a metric or an option.
        """
        logged = {name.partition("/")[2] for run in runs for name in run.metrics}
        for metric in (name for column in self.metrics for name in column):
            if metric not in logged:
                raise ConfigError(f"--metrics {metric}: {_no_metric(metric, logged)}")
        for key in self.by:
            check_option(key, runs)

    def groups(self, runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
        """The rows of a table of comparable runs, and notes on them.

        Raises:
            ConfigError: several rows would have one name.
        """
        rows = by_configuration(runs)
        mixed: list[str] = []
        if self.by:
            rows, mixed = _pooled(rows, self.by)
        shared, rows = without_shared(self._chosen(rows) if self.rows else rows)
        trained = "trained " if any(row.runs[0].is_import for row in rows) else ""
        notes = [f"all {trained}rows: {shared}"] if shared else []
        notes += [f"a row is over runs that also differ in {', '.join(mixed)}"] if mixed else []
        if self.seeds:
            rows = [
                replace(row, label=f"{row.label} {run.place_text}".rstrip(), runs=(run,))
                for row in rows
                for run in row.runs
            ]
        return list(ranked(rows).groups) if self.ranked else rows, notes

    def _chosen(self, rows: Sequence[Group]) -> list[Group]:
        """The rows that are shown, by their names."""
        chosen: list[Group] = []
        for name, pattern in self.rows:
            found = _of_pattern(pattern, rows)
            if name and len(found) > 1:
                labels = "; ".join(row.label for row in found[:_MOST_ROWS])
                raise ConfigError(
                    f"--rows '{name}={pattern}' fits {len(found)} rows: {labels}.\n"
                    f"  name one of them, or type --rows '={pattern}' for all with their own names"
                )
            new = [row for row in found if row.runs not in [one.runs for one in chosen]]
            chosen += [replace(row, label=name or row.label) for row in new]
        return chosen


def shape_of(
    metrics: Sequence[str] = (),
    percent: bool = False,
    rows: Sequence[str] = (),
    baselines: bool = True,
    seeds: bool = False,
    by: Sequence[str] = (),
    reference: str | None = None,
    pairs: bool = False,
    anchors: bool = False,
) -> Shape:
    """The shape of a command line, in which metrics and options may be lists with commas, and rows are NAME=PATTERN.

    Raises:
        ConfigError: a pattern has no name, or options are asked for that exclude each other.
    """
    if reference is not None and pairs:
        raise ConfigError("--reference compares with one row, --pairs all rows.\n  leave one of them out")
    if (reference is not None or pairs) and (seeds or by):
        named = "--pairs" if pairs else "--reference"
        raise ConfigError(f"{named} compares configurations over their seeds.\n  leave --seeds and --by out")
    if seeds and by:
        raise ConfigError("--seeds has a row per seed, --by one over many runs.\n  leave one of them out")
    patterns = [row.partition("=") for row in rows]
    for name, equals, _ in patterns:
        if not equals:
            raise ConfigError(f"--rows {name}: needed is a name and a pattern.\n  type --rows 'NAME={name}'")
    listed = [word.strip() for words in metrics for word in words.split(",") if word.strip()]
    keys = [word.strip() for words in by for word in words.split(",") if word.strip()]
    columns = tuple(dict.fromkeys(column for word in listed for column in _columns(word)))
    chosen = tuple((name, pattern) for name, _, pattern in patterns)
    return Shape(columns, percent, chosen, baselines, seeds, tuple(keys), reference, pairs, anchors)


def check_rows(shape: Shape, tables: Sequence[Sequence[Run]]) -> None:
    """Check that each pattern of rows fits a row of a table.

    Raises:
        ConfigError: one fits none.
    """
    if shape.reference is not None:
        labels = list(dict.fromkeys(group.label for runs in tables for group in shape.groups(runs)[0]))
        if shape.reference not in labels:
            known = "; ".join(labels[:_MOST_ROWS])
            raise ConfigError(f"--reference {shape.reference}: there is no such row.\n  the rows are: {known}")
    rows = [_pooled(by_configuration(runs), shape.by)[0] if shape.by else by_configuration(runs) for runs in tables]
    for name, pattern in shape.rows:
        if not any(_of_pattern(pattern, of_table) for of_table in rows):
            labels = list(dict.fromkeys(row.label for of_table in rows for row in without_shared(of_table)[1]))
            more = f"; and {len(labels) - _MOST_ROWS} more" if len(labels) > _MOST_ROWS else ""
            raise ConfigError(
                f"--rows '{name}={pattern}' fits no row.\n  the rows are: {'; '.join(labels[:_MOST_ROWS])}{more}"
            )


def _of_pattern(pattern: str, rows: Sequence[Group]) -> list[Group]:
    """The row that is called so, whether or not shared overrides are left out of its label; else those that fit."""
    short = [group.label for group in without_shared(rows)[1]]
    exact = [row for row, label in zip(rows, short, strict=True) if pattern in (row.label, label)]
    return exact or [row for row, label in zip(rows, short, strict=True) if _matches(row, label, pattern)]


def _columns(word: str) -> list[tuple[str, ...]]:
    """The columns of a word of --metrics: a metric; `acc2_has0/non0`, a pair; `has0/non0`, both pairs of the field."""
    first, slash, second = word.partition("/")
    if not slash:
        return [(first,)]
    kind, underscore, _ = first.partition("_")
    if not underscore:
        return [(f"{kind}_{first}", f"{kind}_{second}") for kind in _BOTH]
    return [(first, second if second in METRICS else f"{kind}_{second}")]


def _no_metric(metric: str, logged: Iterable[str]) -> str:
    there = sorted(logged)
    if metric in METRICS:
        return f"no run here has it; they have {', '.join(there)}"
    close = difflib.get_close_matches(metric, [*METRICS, *there], n=1)
    again = f".\n  type --metrics {close[0]}" if close else ""
    return f"there is no such metric; these runs have {', '.join(there)}{again}"


def _matches(row: Group, label: str, pattern: str) -> bool:
    """Whether a row is that of a pattern: of its label, or KEY=VALUE words, which all its runs fit."""
    if is_like(row.label, pattern) or is_like(label, pattern):
        return True
    asked = [wanted(word) for word in pattern.split()]
    return bool(asked) and all(one and fits(run, dict([one])) for one in asked for run in row.runs)


def _pooled(rows: Sequence[Group], by: Sequence[str]) -> tuple[list[Group], list[str]]:
    """One row per value of these options, and the other options in which its runs differ."""
    members: dict[tuple[str, ...], list[Group]] = {}
    for row in rows:
        for run in row.runs:
            value = tuple(f"{key}={run.option(key) or '–'}" for key in by)
            members.setdefault(value, []).append(replace(row, runs=(run,)))
    mixed: set[str] = set()
    for ones in members.values():
        counts = Counter(part for one in ones for part in one.parts)
        mixed |= {override_key(part) for part, count in counts.items() if count < len(ones)} - set(by)
    pooled = [
        Group(" ".join(value), tuple(run for one in ones for run in one.runs), value) for value, ones in members.items()
    ]
    return pooled, sorted(mixed)
