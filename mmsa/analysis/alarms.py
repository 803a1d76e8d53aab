"""Warnings below a result table: runs that a paper had better not rest on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from mmsa.analysis.anchors import FEWEST, best_anchors
from mmsa.analysis.layout import number
from mmsa.analysis.predictions import Facts, Stored
from mmsa.analysis.ranking import deciding
from mmsa.analysis.runs import Group, Run
from mmsa.record import NO_SEED
from mmsa.training.metrics import metric_mode

LEAST_SPREAD = 0.05
"""Standard deviation of predictions below which they hardly vary, as a share of that of the labels."""
ONE_CLASS = 0.99
"""Share of the predictions from which they are one class."""
MOST_OF_LABELS = 0.9
"""Share of the labels from which nothing is odd about predicting their class alone."""
EQUAL = 0.5
"""Share of predictions equal to their labels beyond which they were copied."""
FEW_LABELS = 10
"""Number of different labels up to which a right class is no copy."""
EQUAL_OF_FEW = 0.99
"""Share of right predictions of so few labels beyond which they were copied."""
BETTER = 0.2
"""Share by which an error is smaller than that of the best published result."""
LOST = 0.5
"""Share of what the other seeds gained over a constant."""
APART = 2.0
"""Distance between the collapsed seeds and the others, in ranges of the others."""
AGREE = 0.25
"""Largest range of the other seeds, as a share of what they gained."""
LEARNED = 0.1
"""Least gain of the other seeds, as a share of the constant's error."""
LEAST_SEEDS = 3
"""Number of seeds from which one can be far from the others, and an order be more than noise."""
STANDARD_ERRORS = 2.0
"""Standard errors over seeds by which an order of two rows is more than noise."""

_CORRELATIONS = ("corr", "corr_sims", "corr_emotions")
_CONSTANTS = ("mean", "majority")
_MOST_ROWS = 3
_LONGEST = 100


@dataclass(frozen=True)
class Rule:
    """A rule of a warning, as its page has it.

    Args:
        fires: where it warns.
        advice: what to do.
    """

    fires: str
    advice: str


RULES: dict[str, Rule] = {
    "constant": Rule(
        f"the predictions' standard deviation is below {LEAST_SPREAD} of the labels'; of a classification one class "
        f"has {ONE_CLASS:.0%} of the predictions, and below {MOST_OF_LABELS:.0%} of the labels",
        "look at the learning curves, and lower optimizer.lr",
    ),
    "undefined": Rule(
        "a correlation of a run is not a number, and its predictions are not constant",
        "look for predictions that are not finite, or labels that are constant",
    ),
    "leak": Rule(
        f"over {EQUAL:.0%} of the predictions equal their labels to 1e-6; where the labels have {FEW_LABELS} different "
        f"values or fewer, over {EQUAL_OF_FEW:.0%}",
        "look for labels among the features, and for test utterances in the train fold",
    ),
    "too good": Rule(
        f"an error of a row (MAE, or 1 minus an accuracy, F1 or correlation) is at least {BETTER:.0%} smaller than "
        f"that of the best published result on the data set, of a metric that {FEWEST} or more of them have",
        "look for labels among the features, and for test utterances in the train fold",
    ),
    "below baseline": Rule(
        "the mean of a row in the metric that selects epochs is worse than the best of its own baselines",
        "train longer, choose other options, or check the units of an import, before you compare it",
    ),
    "collapsed": Rule(
        f"of {LEAST_SEEDS} seeds or more, fewer than half lost {LOST:.0%} or more of the others' gain over a constant, "
        f"at {APART:g} times the others' range or more from them; the others' range is at most {AGREE:.0%} of their "
        f"gain, and the gain at least {LEARNED:.0%} of the constant's error",
        "look at the learning curves of these seeds; report the median, or say that seeds collapse",
    ),
    "uncommitted": Rule(
        "files differed from the commit when a run started",
        "commit, and run again, so that the code of the table can be found",
    ),
    "commits": Rule("the runs of a table are of more than one git commit", "run all rows with one commit"),
    "seeds": Rule("rows over seeds have different numbers of them", "run the same seeds in each row"),
    "order": Rule(
        f"the best row by validation and that of the test fold are two, each by more than {STANDARD_ERRORS:g} standard "
        f"errors over {LEAST_SEEDS} seeds or more",
        "choose by validation, and show both folds",
    ),
}


@dataclass(frozen=True)
class Alarm:
    """A warning.

    Args:
        rule: key of RULES.
        finding: the row, the runs and the number.
    """

    rule: str
    finding: str

    @property
    def line(self) -> str:
        """Its line below a table."""
        return f"warning: {self.finding}: {RULES[self.rule].advice}"


def alarms(groups: Sequence[Group], stored: Stored | None = None) -> list[Alarm]:
    """The warnings on the rows of one table.

    Args:
        groups: the rows, on the same data and task.
        stored: the predictions, where they have been read; runs without any are not tested for what needs them.
    """
    read = stored or Stored()
    tests: dict[str, Callable[[Group], str | None]] = {
        "constant": lambda row: _of_runs(row, lambda run: _constant(run, read.facts(run))),
        "undefined": lambda row: _of_runs(row, lambda run: _undefined(run, read.facts(run))),
        "leak": lambda row: _of_runs(row, lambda run: _leak(read.facts(run))),
        "too good": lambda row: None if any(_leak(read.facts(run)) for run in row.runs) else _too_good(row),
        "below baseline": _below_baseline,
        "collapsed": _collapsed_seeds,
    }
    found: list[Alarm] = []
    for rule, test in tests.items():
        texts = [text for row in groups if (text := test(row)) is not None]
        left = len(texts) - _MOST_ROWS
        more = [f"{left} more row{'s' if left > 1 else ''} of this kind"] if left > 0 else []
        found += [Alarm(rule, text) for text in [*texts[:_MOST_ROWS], *more]]
    return [*found, *_of_table(groups)]


def collapsed(errors: Sequence[float], constant: float) -> list[int]:
    """The places of runs of one row that are far worse than the others, in the order of the errors.

    Args:
        errors: one per seed, 0 the best; infinite where a run has none.
        constant: of the best constant prediction.
    """
    order = sorted(range(len(errors)), key=lambda place: errors[place])
    for num in range((len(errors) - 1) // 2 if len(errors) >= LEAST_SEEDS else 0, 0, -1):
        rest = [errors[place] for place in order[:-num]]
        gain, span = constant - median(rest), rest[-1] - rest[0]
        if not (gain >= LEARNED * constant and span <= AGREE * gain):
            continue
        nearest = errors[order[-num]]
        if nearest - median(rest) >= LOST * gain and nearest - rest[-1] >= APART * span:
            return sorted(order[-num:])
    return []


def disagreement(valid: Sequence[Sequence[float]], test: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """The best row by validation, and another one that is the best of the test fold; None where noise may decide.

    Args:
        valid, test: errors of each row, one per seed, of which there are two or more.
    """
    if not valid:
        return None
    chosen, best = (min(range(len(valid)), key=lambda row: fmean(fold[row])) for fold in (valid, test))
    clear = _clearly(valid[chosen], valid[best]) and _clearly(test[best], test[chosen])
    return (chosen, best) if clear else None


def _of_runs(row: Group, test: Callable[[Run], str | None]) -> str | None:
    """The runs of a row that a test finds something in, and what it finds in the first."""
    found = [(run, text) for run in row.runs if (text := test(run)) is not None]
    return f"{_named(row, [run for run, _ in found])}: {found[0][1]}" if found else None


def _constant(run: Run, facts: Facts | None) -> str | None:
    if facts is None or facts.num_labels == 1:
        return None
    if run.task != "classification":
        hardly = facts.spread < LEAST_SPREAD
        return f"the predictions vary {facts.spread:.2g} times as much as the labels" if hardly else None
    share, of_labels = facts.one_class
    hardly = share >= ONE_CLASS and of_labels < MOST_OF_LABELS
    return f"one class has {share:.1%} of the predictions" if hardly else None


def _undefined(run: Run, facts: Facts | None) -> str | None:
    names = [name for name in _CORRELATIONS if math.isnan(run.metrics.get(f"{run.fold}/{name}", 0.0))]
    return f"{names[0]} is not a number" if names and _constant(run, facts) is None else None


def _leak(facts: Facts | None) -> str | None:
    if facts is None or facts.equal <= (EQUAL_OF_FEW if facts.num_labels <= FEW_LABELS else EQUAL):
        return None
    return f"{facts.equal:.1%} of the predictions equal their labels"


def _too_good(row: Group) -> str | None:
    first = row.runs[0]
    if first.fold != "test" or first.planted:
        return None
    for metric, best in best_anchors(first.dataset).items():
        value = fmean(_score(run, metric) for run in row.runs)
        if _error(metric, value) <= (1 - BETTER) * _error(metric, best.metrics[metric]):
            return f"{_named(row)}: {metric} {number(value)}, against {number(best.metrics[metric])} of {best.label}"
    return None


def _below_baseline(row: Group) -> str | None:
    metric = deciding(row.runs[0])
    known = [(run, _best_of(run, metric, run.baselines)) for run in row.runs] if metric else []
    if not metric or any(best is None for _, best in known):
        return None
    ours = fmean(_error(metric, _score(run, metric)) for run, _ in known)
    names, errors = zip(*(best for _, best in known if best is not None), strict=True)
    if not ours > fmean(errors):
        return None
    value, theirs = (_error(metric, error) for error in (ours, fmean(errors)))
    return f"{_named(row)}: {metric} {number(value)} is worse than {number(theirs)} of the baseline {_short(names[0])}"


def _collapsed_seeds(row: Group) -> str | None:
    metric = deciding(row.runs[0])
    constant = _best_of(row.runs[0], metric, _CONSTANTS) if metric else None
    if not metric or constant is None or not _over_seeds(row):
        return None
    errors = [_error(metric, _score(run, metric)) for run in row.runs]
    worst = math.inf if metric_mode(metric) == "min" else 1.0
    errors = [worst if math.isnan(error) else error for error in errors]
    places = collapsed(errors, constant[1])
    if not places:
        return None
    values = ", ".join(number(_score(row.runs[place], metric)) for place in places)
    others = median(errors[place] for place in range(len(errors)) if place not in places)
    where = _named(row, [row.runs[place] for place in places])
    return f"{where}: {metric} {values}, against {number(_error(metric, others))} of the others"


def _of_table(groups: Sequence[Group]) -> Iterator[Alarm]:
    runs = [run for row in groups for run in row.runs]
    if changed := [row for row in groups if any(run.git.dirty for run in row.runs)]:
        num = sum(bool(run.git.dirty) for run in runs)
        rows = f" ({_listed(changed)})" if num < len(runs) else ""
        yield Alarm("uncommitted", f"{num} of {len(runs)} runs had changes that no commit holds{rows}")
    if len(commits := {run.git.commit for run in runs if run.git.commit}) > 1:
        yield Alarm("commits", f"runs of {len(commits)} git commits")
    seeded = [row for row in groups if row.runs[0].seed != NO_SEED]
    counts = Counter(len(row.runs) for row in seeded)
    if len(counts) > 1 and all(map(_over_seeds, seeded)):
        fewest = [row for row in seeded if len(row.runs) == min(counts)]
        yield Alarm("seeds", f"rows have {min(counts)} to {max(counts)} seeds, the fewest {_listed(fewest)}")
    if text := _order(groups):
        yield Alarm("order", text)


def _order(groups: Sequence[Group]) -> str | None:
    """The rows that validation and the test fold prefer, where they disagree."""
    metric = deciding(groups[0].runs[0]) if groups else None
    if not metric or groups[0].runs[0].fold != "test":
        return None

    def errors(row: Group, fold: str) -> list[float]:
        return [_error(metric, run.metrics.get(f"{fold}/{metric}", math.nan)) for run in row.runs]

    usable = [row for row in groups if len(row.runs) >= LEAST_SEEDS and _over_seeds(row)
              and all(map(math.isfinite, errors(row, "valid") + errors(row, "test")))]  # fmt: skip
    test = [errors(row, "test") for row in usable]
    places = disagreement([errors(row, "valid") for row in usable], test)
    if places is None:
        return None
    (chosen, value), (best, theirs) = (
        (_named(usable[place]), number(_error(metric, fmean(test[place])))) for place in places
    )
    return f"validation chooses {chosen}, whose test {metric} is {value}; that of {best} is {theirs}"


def _clearly(smaller: Sequence[float], larger: Sequence[float]) -> bool:
    """Whether one mean is below another by more than noise."""
    error = math.sqrt(variance(smaller) / len(smaller) + variance(larger) / len(larger))
    return fmean(larger) - fmean(smaller) > STANDARD_ERRORS * error


def _error(metric: str, value: float) -> float:
    """A metric as an error, of which 0 is the best, and back."""
    return value if metric_mode(metric) == "min" else 1.0 - value


def _score(run: Run, metric: str) -> float:
    return run.metrics.get(f"{run.fold}/{metric}", math.nan)


def _best_of(run: Run, metric: str, names: Iterable[str]) -> tuple[str, float] | None:
    """The best of some of a run's baselines, and its error; the correlation of a constant counts as 0."""
    errors = {}
    for name in names:
        value = run.baselines.get(name, {}).get(f"{run.fold}/{metric}", math.nan)
        value = 0.0 if math.isnan(value) and metric in _CORRELATIONS and name in run.baselines else value
        if math.isfinite(value):
            errors[name] = _error(metric, value)
    return min(errors.items(), key=lambda item: item[1]) if errors else None


def _over_seeds(row: Group) -> bool:
    """Whether the runs of a row differ in their seeds alone, on one fold."""
    first = row.runs[0]
    return all((run.configuration, run.data.held_out) == (first.configuration, first.data.held_out) for run in row.runs)


def _named(row: Group, runs: Sequence[Run] = ()) -> str:
    """A row, with the seeds of some of its runs."""
    if not runs or len(runs) == len(row.runs):
        return _short(row.label)
    seeds = ", ".join(str(run.seed) for run in runs[:_MOST_ROWS])
    more = f" and {len(runs) - _MOST_ROWS} more" if len(runs) > _MOST_ROWS else ""
    return f"{_short(row.label)}, seed{'s' if len(runs) > 1 else ''} {seeds}{more}"


def _listed(rows: Sequence[Group]) -> str:
    more = f" and {len(rows) - _MOST_ROWS} more" if len(rows) > _MOST_ROWS else ""
    return "; ".join(_short(row.label) for row in rows[:_MOST_ROWS]) + more


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
