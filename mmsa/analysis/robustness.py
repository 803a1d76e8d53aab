"""How much a trained model loses when modalities or steps are missing, and which of two loses less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from mmsa.analysis.comparison import TrainedRun, about, comparable_groups, evaluated
from mmsa.analysis.corruption import DRAW_SEED, Condition, Corrupted, Way, conditions
from mmsa.analysis.layout import LABELS, Cell, Column, Row, Table, counted
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.scores import Estimate
from mmsa.analysis.significance import CONFIDENCE, Interval
from mmsa.analysis.tables import data_line, estimates_row, notes_of
from mmsa.training.metrics import METRICS, metric_mode

Scores = Mapping[Condition, Mapping[str, float]]

TITLES: dict[Way, str] = {
    "present": "only these modalities are present",
    "zero": "scattered steps become zeros",
    "repeat": "scattered steps repeat the step before",
    "stretch": "one stretch of steps becomes zeros",
}
_INTERVAL = f"mean difference and {100 * CONFIDENCE:.0f} % interval (Student's t over seeds)"


@dataclass(frozen=True)
class Probe:
    """The scores of runs under every condition.

    Args:
        fold: the fold that was scored.
        groups: the runs by configuration; the others are compared with the first.
        scores: by the run's folder, condition -> metric -> value; a run's first condition is clean.
    """

    fold: str
    groups: tuple[Group, ...]
    scores: Mapping[Path, Scores]

    @property
    def metric(self) -> str:
        """The task's primary metric."""
        return self.groups[0].runs[0].primary[0]

    @property
    def conditions(self) -> list[Condition]:
        """Those of any run, in their order."""
        return list(dict.fromkeys(c for group in self.groups for run in group.runs for c in self.scores[run.folder]))

    def values(self, group: Group, condition: Condition) -> list[float]:
        """The primary metric per seed; empty where the group's runs do not know the condition."""
        known = [self.scores[run.folder].get(condition) for run in group.runs]
        return [scores[self.metric] for scores in known if scores is not None]

    def clean(self, run: Run) -> Condition:
        """The condition of a run in which nothing is missing."""
        return next(iter(self.scores[run.folder]))

    def lost(self, run: Run, condition: Condition) -> float:
        """By how much the primary metric is worse than the clean one; negative where it is better."""
        scores = self.scores[run.folder]
        change = scores[condition][self.metric] - scores[self.clean(run)][self.metric]
        return change if metric_mode(self.metric) == "min" else -change


@dataclass(frozen=True)
class Difference:
    """A group minus the first one, paired by seed and averaged over conditions.

    Args:
        group: label of the group.
        against: label of the first group.
        conditions: averaged per seed.
        seeds: that both have.
        lost: difference of the losses against the clean score; negative: the group loses less than the first.
        score: difference of the metric itself.
    """

    group: str
    against: str
    conditions: tuple[Condition, ...]
    seeds: tuple[int, ...]
    lost: Interval
    score: Interval


def probe(runs: Iterable[TrainedRun], fold: Literal["valid", "test"] = "test") -> Probe:
    """Evaluate runs under every subset of their modalities and under dropped steps.

    The default is the test fold: finished runs have been scored on it before, and nothing is selected here.

    Args:
        runs: loaded, one after the other; of runs that differ in nothing but the seed and the folder the newest counts.
        fold: "valid" or "test".

    Raises:
        DataError: two runs predict different things, see `comparable_groups`.
    """
    scores = {run.folder: probe_run(run, fold) for run in runs}
    return Probe(fold, tuple(comparable_groups(scores)), scores)


def probe_run(run: TrainedRun, fold: str) -> dict[Condition, dict[str, float]]:
    """The metrics of one run under every condition, the clean one first."""
    utterances = run.data.fold(fold)
    in_pieces = next(utterances.batches(1)).pieces
    modalities = utterances.modalities
    probed = conditions(modalities, [m for m in modalities if m not in in_pieces])
    return {condition: evaluated(run, Corrupted(run.model, condition), utterances) for condition in probed}


def difference(probed: Probe, group: Group, chosen: Sequence[Condition]) -> Difference | None:
    """A group against the first over the conditions that both know; None without such or without a shared seed."""
    first = probed.groups[0]
    pairs = {run.seed: (run, other) for run in group.runs for other in first.runs if run.seed == other.seed}
    both = [c for c in chosen if all(c in probed.scores[run.folder] for pair in pairs.values() for run in pair)]
    if not pairs or not both:
        return None
    metric, scores = probed.metric, probed.scores
    lost = [fmean(probed.lost(a, c) - probed.lost(b, c) for c in both) for a, b in pairs.values()]
    score = [fmean(scores[a.folder][c][metric] - scores[b.folder][c][metric] for c in both) for a, b in pairs.values()]
    return Difference(group.label, first.label, tuple(both), tuple(pairs), Interval.of(lost), Interval.of(score))


def differences(probed: Probe, chosen: Sequence[Sequence[Condition]]) -> list[Difference]:
    """Every other group against the first, for each of these selections of conditions."""
    found = [difference(probed, group, one) for group in probed.groups[1:] for one in chosen]
    return [one for one in found if one is not None]


def spoiled(probed: Probe, way: Way) -> list[list[Condition]]:
    """The conditions of a way that take something away, by their modalities, each over its rates."""
    clean = {probed.clean(run) for group in probed.groups for run in group.runs}
    members = [c for c in probed.conditions if c.way == way and c not in clean]
    return [[c for c in members if c.modalities == m] for m in dict.fromkeys(c.modalities for c in members)]


def robustness_lines(probed: Probe) -> list[str]:
    """What each group loses more (+) or less (-) than the first, a line per way, averaged over modalities and rates."""
    lines = []
    for group in probed.groups[1:]:
        clean = difference(probed, group, [probed.clean(group.runs[0])])
        found = {way: difference(probed, group, [c for part in spoiled(probed, way) for c in part]) for way in TITLES}
        known = {way: one for way, one in found.items() if one is not None}
        if not known:
            lines.append(_unpaired(probed, group))
            continue
        num_seeds = len(next(iter(known.values())).seeds)
        lines.append(f"{group.label} against {probed.groups[0].label}, paired by seed ({counted(num_seeds)})")
        lines.append(f"  {probed.metric} lost against the clean score, mean over modalities and rates, {_INTERVAL}")
        lines += [f"    {TITLES[way]}: {one.lost.text()}" for way, one in known.items()]
        lines += [f"  clean {probed.metric} itself: {clean.score.text()}"] if clean is not None else []
    return lines


def make_tables(probed: Probe) -> list[Table]:
    """One table per way, a row per condition and a column per group, with the summary below the last."""
    better = "smaller" if metric_mode(probed.metric) == "min" else "larger"
    heads = [f"{group.label} ({counted(len(group.runs))})" for group in probed.groups]
    tables: list[Table] = []
    for way in TITLES:
        rows = [
            estimates_row(condition.label, [Estimate.of(probed.values(group, condition)) for group in probed.groups])
            for condition in probed.conditions
            if condition.way == way
        ]
        if rows:
            tables.append(
                Table(
                    title=f"{probed.metric} ({better} is better): {TITLES[way]}",
                    notes=[] if tables else _notes(probed),
                    columns=[LABELS, *map(Column, heads)],
                    blocks=[rows],
                    terms={probed.metric: METRICS[probed.metric].definition},
                )
            )
    return [*tables[:-1], replace(tables[-1], foot=robustness_lines(probed))]


def difference_tables(probed: Probe) -> list[Table]:
    """What every other group loses more or less than the first, per condition and over rates."""
    return [_difference_table(probed, group) for group in probed.groups[1:]]


def content(probed: Probe) -> dict[str, Any]:
    """What robustness.json holds: every metric of every run and condition, and the differences."""
    ways = [spoiled(probed, way) for way in TITLES]
    return {
        **about(probed.groups, probed.fold),
        "metric": probed.metric,
        "mask_seed": DRAW_SEED,
        "runs": [
            {
                "folder": str(run.folder),
                "group": group.label,
                "seed": run.seed,
                "clean": probed.clean(run),
                "scores": [{**asdict(c), "metrics": dict(found)} for c, found in probed.scores[run.folder].items()],
            }
            for group in probed.groups
            for run in group.runs
        ],
        "differences": differences(probed, [[c] for c in probed.conditions]),
        "differences_over_rates": differences(probed, [part for parts in ways for part in parts]),
        "differences_over_all": differences(probed, [[c for part in parts for c in part] for parts in ways]),
    }


def _difference_table(probed: Probe, group: Group) -> Table:
    first = probed.groups[0]
    chosen: list[tuple[str, Sequence[Condition]]] = [("nothing missing", [probed.clean(group.runs[0])])]
    for way in TITLES:
        parts = spoiled(probed, way)
        chosen.append((f"{TITLES[way]}: all", [c for part in parts for c in part]))
        for part in parts:
            chosen += [(f"{way}: {'+'.join(part[0].modalities)}, all rates", part)] if len(part) > 1 else []
            chosen += [(f"{way}: {condition.label}", [condition]) for condition in part]
    rows: list[Row] = []
    for label, selected in chosen:
        one = difference(probed, group, selected)
        rows += [(Cell(label), Cell(one.lost.text()), Cell(one.score.text()))] if one is not None else []
    if not rows:
        return Table(_unpaired(probed, group))
    return Table(
        title=f"{group.label} against {first.label}, paired by seed, {_INTERVAL}",
        columns=[LABELS, Column("lost against the clean score"), Column("the score itself")],
        blocks=[rows],
    )


def _unpaired(probed: Probe, group: Group) -> str:
    return f"{group.label} shares no seed with {probed.groups[0].label}: no paired differences"


def _notes(probed: Probe) -> list[str]:
    runs = [run for group in probed.groups for run in group.runs]
    notes = [data_line(runs, probed.fold), *notes_of(runs[0], max(len(group.runs) for group in probed.groups))]
    pieces = {m for run in runs for m in probed.clean(run).modalities if m not in _dropped(probed, run)}
    if pieces:
        notes.append(f"{', '.join(sorted(pieces))}: word pieces, whose steps are not dropped where a run reads them")
    return notes


def _dropped(probed: Probe, run: Run) -> set[str]:
    return {m for c in probed.scores[run.folder] if c.way != "present" for m in c.modalities}
