"""Which rows of a result table differ: paired tests on the stored predictions of finished runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from mmsa.analysis.pairs import EQUAL, Pairs, paired, unlike
from mmsa.analysis.predictions import DRAW_SEED, Predictions, Sample, Stored
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.significance import (
    LEVEL,
    NUM_FLIPS,
    NUM_RESAMPLES,
    Interval,
    corrected_t_test,
    holm,
    over_videos_and_seeds,
    resamples,
    seed_effect,
    seeds_needed,
    sign_flips,
    t_test,
)
from mmsa.errors import DataError
from mmsa.training.metrics import METRICS, Array, metric_mode

Test = Literal["flips and bootstrap", "bootstrap", "t over seeds", "corrected t over folds", "none"]
MARK = "†"
_COUNTED = ("utterance", "video", "fold", "seed")
_UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)
_BOOTSTRAP = f"bootstrap over videos and seeds ({NUM_RESAMPLES:,} resamples, interval by t)"
_TESTS: dict[Test, str] = {
    "flips and bootstrap": f"the larger p of a sign-flip permutation by video of differences averaged over seeds "
    f"({NUM_FLIPS:,} flips) and of the {_BOOTSTRAP}",
    "bootstrap": _BOOTSTRAP,
    "t over seeds": "paired t test over seeds alone, on the metrics in result.json",
    "corrected t over folds": "corrected resampled t test (Nadeau and Bengio, 2003) over folds, whose train parts "
    "overlap: on the metrics of each test fold, averaged over seeds, with the variance factor 1/folds + test/train",
}


@dataclass(frozen=True)
class Difference:
    """A row minus the reference in one metric, over paired runs and the same utterances.

    Args:
        row, reference: labels of the groups.
        metric: its name, without a fold.
        difference: the mean over the pairs, and the interval over videos and seeds; over videos alone with one seed,
            over folds where there are several own folds.
        over_seeds: the same mean, and the interval by Student's t over seeds alone.
        p: of the test.
        adjusted: p after Holm over the family.
        effect: Cohen's d over seeds, and its interval; NaN with one seed.
        seeds_needed: the number of seeds with which a paired t test over seeds shows such an effect in four cases of
            five; None where it is not defined or over 1,000.
        test: behind p.
        num_seeds, num_videos, num_utterances: that both rows have; no videos and utterances without predictions.
        remark: a restriction of the comparison, in words; empty without any.
        num_folds: own folds that both rows have, where there are several; else 0.
    """

    row: str
    reference: str
    metric: str
    difference: Interval
    over_seeds: Interval
    p: float
    adjusted: float
    effect: Interval
    seeds_needed: int | None
    test: Test
    num_seeds: int
    num_videos: int
    num_utterances: int
    remark: str
    num_folds: int = 0

    @property
    def marked(self) -> bool:
        """Whether a table marks it."""
        return self.adjusted <= LEVEL

    @property
    def better(self) -> bool | None:
        """Whether the row is better than the reference; None where they are equal, or it is not known."""
        mean = self.difference.mean
        if self.metric not in METRICS or mean == 0 or math.isnan(mean):
            return None
        return (mean < 0) == (metric_mode(self.metric) == "min")


_EMPTY = Difference("", "", "", _UNKNOWN, _UNKNOWN, math.nan, math.nan, _UNKNOWN, None, "none", 0, 0, 0, "")


def differences(
    groups: Sequence[Group], reference: str | None, metrics: Sequence[str], stored: Stored | None = None
) -> list[Difference]:
    """Compare rows of one table, each with the reference, or all pairs; they are one family of Holm's.

    Args:
        groups: the rows, on the same data and task.
        reference: label of one of them; None compares each row with every row above it.
        metrics: names without a fold.
        stored: the predictions, where they have been read.

    Returns:
        Pair by pair, metric by metric.

    Raises:
        DataError: no row has the label of the reference.
    """
    if reference is None:
        pairs = [(row, above) for above, row in combinations(groups, 2)]
    else:
        named = next((group for group in groups if group.label == reference), None)
        if named is None:
            labels = ", ".join(repr(group.label) for group in groups)
            raise DataError(f"no row is {reference!r}.\n  name one of {labels}")
        pairs = [(group, named) for group in groups if group is not named]
    stored = stored or Stored()
    found = _flipped([one for row, other in pairs for one in _compared(row, other, metrics, stored)])
    adjusted = holm([one.p for one in found])
    return [replace(one, adjusted=value) for one, value in zip(found, adjusted, strict=True)]


def note(found: Sequence[Difference]) -> list[str]:
    """Lines below a table with these marks: the tests, and how many comparisons, videos and seeds they rest on."""
    tested = [one for one in found if not math.isnan(one.p)]
    if not tested:
        return ["no difference could be tested", *_remarks(found)]
    references = dict.fromkeys(one.reference for one in found)
    against = next(iter(references)) if len(references) == 1 else "its reference"
    sizes = {noun: {getattr(one, f"num_{noun}s") for one in tested} - {0} for noun in _COUNTED}
    on = [_span(numbers, noun) for noun, numbers in sizes.items() if numbers]
    family = f"{len(tested)} comparison{'s' if len(tested) > 1 else ''}"
    lines = [
        f"{MARK} differs from {against}: p <= {LEVEL} after Holm over {family}, paired on {', '.join(on)}",
        *(f"{', '.join(names)}: {_TESTS[test]}" for test, names in _by_test(tested).items()),
    ]
    if any(one.num_videos == one.num_utterances > 1 for one in tested):
        lines.append("no video has two utterances here: each utterance counts as independent of the others")
    seeds = sorted({one.num_seeds for one in tested if not one.num_folds})
    return [*lines, *map(_about_seeds, seeds), *_remarks(found)]


@dataclass(frozen=True)
class _Tested:
    """A difference before its sign flips and Holm.

    Args:
        difference: with the p of the bootstrap, or of t.
        sample: the utterances; None over seeds alone.
        by_video: of a mean what each video adds to it, averaged over seeds, (V,); None of other metrics.
    """

    difference: Difference
    sample: Sample | None = None
    by_video: Array | None = None


def _compared(row: Group, other: Group, metrics: Sequence[str], stored: Stored) -> list[_Tested]:
    """A row against another in each metric."""
    pairs, remarks = paired(row, other)
    if not pairs or len({run.data.held_out for run, _ in pairs}) > 1:
        return _over_folds(row, other, metrics, pairs, remarks, stored)
    runs = list({run.folder: run for pair in pairs for run in pair}.values())
    tables = [stored.predictions(run) for run in runs]
    read = {run.folder: table for run, table in zip(runs, tables, strict=True) if isinstance(table, Predictions)}
    sample = stored.sample(list(read.values())) if len(read) == len(runs) else None
    comparable = True
    if len(read) < len(runs):
        remarks.append(next(table for table in tables if isinstance(table, str)))
    elif sample is None or not _same_truths(read, sample, stored):
        comparable = False
        remarks.append("no utterance is in all runs" if sample is None else "their targets differ")
    elif left := max(len(table.rows) for table in read.values()) - len(sample.names):
        remarks.append(f"{left:,} utterance{'s are' if left > 1 else ' is'} not in all runs and left out")
    about: dict[str, Any] = {
        "row": row.label,
        "reference": other.label,
        "num_seeds": len(pairs),
        "remark": "; ".join(remarks),
    }
    empty = [replace(_EMPTY, metric=metric, **about) for metric in metrics]
    return [_tested(one, pairs, stored, sample) if comparable else _Tested(one) for one in empty]


def _over_folds(
    row: Group, other: Group, metrics: Sequence[str], pairs: Pairs, remarks: list[str], stored: Stored
) -> list[_Tested]:
    """A row against another over own folds, whose test utterances are no common sample: folds are resampled.

    Differences are averaged over the seeds of a fold, so that each fold counts once.
    """
    folds: dict[int, list[tuple[Run, Run]]] = {}
    for pair in pairs:
        folds.setdefault(pair[0].place[0], []).append(pair)
    tables = {run.folder: stored.predictions(run) for pair in pairs for run in pair}
    unread = [table for table in tables.values() if isinstance(table, str)]
    refused = next(filter(None, (unlike(of_fold, tables) for of_fold in folds.values())), "")
    counts = [of_fold[0][0].data.utterances for of_fold in folds.values()]
    num_test, num_train = (sum(count.get(name, 0) for count in counts) for name in ("test", "train"))
    told = [*remarks, *unread[:1], *filter(None, [refused])]
    empty = replace(
        _EMPTY,
        row=row.label,
        reference=other.label,
        remark="; ".join(told),
        num_seeds=len({run.seed for run, _ in pairs}),
        num_folds=len(folds),
    )
    if not folds or refused or min(num_test, num_train) < 1:
        return [_Tested(replace(empty, metric=metric)) for metric in metrics]
    return [
        _Tested(_by_folds(replace(empty, metric=metric, num_utterances=num_test), folds.values(), num_test / num_train))
        for metric in metrics
    ]


def _by_folds(empty: Difference, folds: Collection[Pairs], ratio: float) -> Difference:
    """The corrected resampled t test; over seeds alone where every fold has the same ones.

    Args:
        empty: the difference without its numbers.
        folds: the pairs of each fold.
        ratio: test to train utterances.
    """
    values = [[_recorded(ours, empty.metric) - _recorded(theirs, empty.metric) for ours, theirs in of] for of in folds]
    interval, p = corrected_t_test([fmean(of_fold) for of_fold in values], ratio)
    one = replace(empty, difference=interval, p=p, test="none" if math.isnan(p) else "corrected t over folds")
    if len({tuple(run.seed for run, _ in of) for of in folds}) > 1:
        return one
    return _over_seeds(one, [fmean(of_seed) for of_seed in zip(*values, strict=True)])


def _recorded(run: Run, metric: str) -> float:
    return run.metrics.get(f"{run.fold}/{metric}", math.nan)


def _tested(empty: Difference, pairs: Pairs, stored: Stored, sample: Sample | None) -> _Tested:
    """The difference in one metric, on the sample, or where predictions do not give the metric over seeds alone."""
    if sample is None:
        return _Tested(_by_seeds(empty, pairs))
    scores = [[stored.score(run, empty.metric, sample) for run in pair] for pair in pairs]
    both = [(ours, theirs) for ours, theirs in scores if ours is not None and theirs is not None]
    if len(both) < len(pairs):
        remark = f"{empty.metric}: not from the predictions"
        return _Tested(_by_seeds(replace(empty, remark="; ".join(filter(None, [empty.remark, remark]))), pairs))
    values = [ours.value - theirs.value for ours, theirs in both]
    resampled = np.stack([ours.resampled - theirs.resampled for ours, theirs in both], axis=1)  # (B, S)
    weights = resamples(len(pairs), np.random.default_rng(DRAW_SEED + 1))  # (B, S)
    num_videos = len(sample.starts)
    interval, p = over_videos_and_seeds(np.array(values), resampled, num_videos, weights)
    one = replace(empty, difference=interval, p=p, test="none" if math.isnan(p) else "bootstrap")
    one = replace(_over_seeds(one, values), num_videos=num_videos, num_utterances=len(sample.names))
    parts = [a.by_video - b.by_video for a, b in both if a.by_video is not None and b.by_video is not None]
    return _Tested(one, sample, np.mean(parts, axis=0) if parts and not math.isnan(p) else None)


def _by_seeds(empty: Difference, pairs: Pairs) -> Difference:
    """The paired t test over seeds alone, on the metrics in result.json."""
    values = [_recorded(ours, empty.metric) - _recorded(theirs, empty.metric) for ours, theirs in pairs]
    p = t_test(values)
    one = replace(empty, difference=Interval.of(values), p=p, test="none" if math.isnan(p) else "t over seeds")
    return _over_seeds(one, values)


def _flipped(tested: Sequence[_Tested]) -> list[Difference]:
    """With the sign flips of the means, all of one sample at once; the larger of both p counts."""
    found = [one.difference for one in tested]
    for sample in dict.fromkeys(one.sample for one in tested):
        means = {place: one.by_video for place, one in enumerate(tested) if one.sample is sample}
        totals = {place: by_video for place, by_video in means.items() if by_video is not None}
        if totals:
            flips = sign_flips(np.stack(list(totals.values())), np.random.default_rng(DRAW_SEED))
            for place, p in zip(totals, flips.tolist(), strict=True):
                found[place] = replace(found[place], p=max(p, found[place].p), test="flips and bootstrap")
    return found


def _over_seeds(one: Difference, values: Sequence[float]) -> Difference:
    """With the columns that rest on the seeds alone."""
    effect = seed_effect(values)
    return replace(one, over_seeds=Interval.of(values), effect=effect, seeds_needed=seeds_needed(effect.mean))


def _same_truths(tables: Mapping[Path, Predictions], sample: Sample, stored: Stored) -> bool:
    if len({table.truth.shape[1:] for table in tables.values()}) > 1:
        return False
    first, *others = (table.truth[stored.rows(folder, table, sample)] for folder, table in tables.items())
    return all(np.allclose(truth, first, rtol=0, atol=EQUAL) for truth in others)


def _by_test(tested: Iterable[Difference]) -> dict[Test, list[str]]:
    names: dict[Test, list[str]] = {}
    for one in tested:
        names.setdefault(one.test, [])
        names[one.test] += [one.metric] if one.metric not in names[one.test] else []
    return names


def _about_seeds(num: int) -> str:
    """The reach of a test over this number of seeds."""
    if num == 1:
        return "1 seed: the tests are about these trained models on other videos, not about other seeds"
    if num == 2:
        return "2 seeds hardly show how seeds vary: p may be too small, take three or more"
    least = 2.0 ** (1 - num)
    reach = "cannot fall below" if least > LEVEL else "reaches"
    return f"{num} seeds: p of a sign test over the seeds alone {reach} {least:.3g}; t assumes that they vary normally"


def _remarks(found: Iterable[Difference]) -> list[str]:
    """Each restriction once, with its rows."""
    return list(dict.fromkeys(f"{one.row} against {one.reference}: {one.remark}" for one in found if one.remark))


def _span(numbers: Collection[int], noun: str) -> str:
    """Such as 5 seeds, or 3 to 5 seeds."""
    least, most = min(numbers), max(numbers)
    return f"{least:,}{f' to {most:,}' if most > least else ''} {noun}{'s' if most > 1 else ''}"
