"""A study in one snapshot: its progress, its best trials, and the next command."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import mul
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import MinLen
from pydantic import BaseModel, BeforeValidator, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import to_json

from mmsa.commands import train_command
from mmsa.data.naming import data_name
from mmsa.errors import DataError, MmsaError
from mmsa.record import Name, Number, Whole, damage
from mmsa.run_folder import override_key
from mmsa.sweep.options import is_of_search

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

ATTRIBUTE = "mmsa"
"""The user attribute of a study of ours that holds its StudyRecord."""

DATA_KEYS = {"dataset", "dataset.source"}
"""Dimensions of a space whose trials do not all read the same source."""
State = Literal["done", "pruned", "failed", "running", "waiting"]
STATES: dict[str, State] = {
    "COMPLETE": "done",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
"""Optuna's name of a trial's state -> ours."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Args:
        number: its number in the study.
        state: how it stands.
        values: one per objective; empty unless it is done.
        typed: the overrides that vary between trials, as typed.
        scores: the first objective of each seed that ended.
        seconds: seconds that it took; NaN where it has not ended.
        reason: why it was pruned or failed.
        slot: where it runs, or ran last; empty before it began.
        since: Unix time of that place's host at which it began there; NaN before.
    """

    number: int
    state: State
    values: tuple[float, ...]
    typed: tuple[str, ...]
    scores: tuple[float, ...]
    seconds: float
    reason: str
    slot: str = ""
    since: float = math.nan

    @property
    def overrides(self) -> dict[str, str]:
        """Key -> value as typed."""
        return {override_key(override): override.partition("=")[2] for override in self.typed}

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the first objective over the seeds, or None with fewer than two."""
        return stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def is_bound(self) -> bool:
        """Whether the first value is not the mean of its seeds but a confidence bound."""
        if not self.values or len(self.scores) < 2:
            return False
        return not math.isclose(self.values[0], fmean(self.scores), rel_tol=1e-6, abs_tol=1e-9)


@dataclass(frozen=True)
class StudyRecord:
    """The record of a study.

    Args:
        study: its name.
        objectives: `valid/metric`, num_parameters or seconds.
        modes: "min" or "max" per objective.
        total: the trials that were asked for.
        seeds: seeds per trial.
        seed: the first of them; the others follow it.
        final: a plain grid, whose runs score the test fold.
        dataset: name of the data set.
        fingerprint: fingerprint of its store.
        source: name of the file or folder that it was made from; None where there is none, or it differs by trial.
        planted: the data are the built-in corpus.
        sampler: name of the sampler.
        pruner: name of the pruner.
        fixed: overrides of every trial, as typed.
        space: key -> search space as typed.
        config_folders: further folders of configuration files.
        command: the command that resumes it.
        id: the study's own, by which its entry in a tracker is found again; older ones have none.
    """

    study: str
    objectives: Annotated[list[Annotated[str, StringConstraints(pattern=r"^[\w/]{1,200}$")]], MinLen(1)]
    modes: list[Annotated[str, StringConstraints(pattern=r"^(min|max)$")]]
    total: Whole
    seeds: Whole
    seed: Whole
    final: bool
    dataset: str
    fingerprint: str
    planted: bool
    sampler: str
    pruner: str
    fixed: list[Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]]
    space: dict[str, str]
    config_folders: list[str]
    command: str
    source: str | None = field(default=None, kw_only=True)
    id: Name | None = field(default=None, kw_only=True)

    @property
    def varies_in_data(self) -> bool:
        """Whether its trials do not all read the same source."""
        return bool(DATA_KEYS & self.space.keys())

    @property
    def data(self) -> str:
        """The name of its data."""
        return "the data of each trial" if self.varies_in_data else data_name(self.dataset, self.source)


@dataclass(frozen=True)
class Summary(StudyRecord):
    """A study at one moment.

    Args:
        counts: state -> number of trials.
        rows: every trial but those that were withdrawn before they ran, in the order of the numbers.
        best: the best trial; of several objectives the Pareto front, the first objective's best first.
        ranked: the done trials, best first; of several objectives the Pareto front, then the rest by the first one.
        reasons: why trials failed -> how many, the most frequent first.
        folder: where its relative paths begin; None is the working folder.
    """

    counts: Mapping[State, int]
    rows: tuple[TrialRecord, ...]
    best: tuple[TrialRecord, ...]
    ranked: tuple[TrialRecord, ...]
    reasons: Mapping[str, int]
    folder: Path | None = None

    @property
    def num_finished(self) -> int:
        """The trials that count towards the total: the done and the pruned ones."""
        return self.counts["done"] + self.counts["pruned"]

    def varying(self) -> list[str]:
        """Keys of the overrides that vary, in the order of the search space."""
        keys = dict.fromkeys(key for row in self.rows for key in row.overrides)
        order = [override_key(key) for key in self.space]
        return sorted(keys, key=lambda key: order.index(key) if key in order else len(order))

    def best_values(self) -> dict[str, float]:
        """The best value of each objective; empty while no trial is done."""
        columns = zip(*(row.values for row in self.ranked), strict=True)
        found = zip(self.objectives, self.modes, columns, strict=False)
        return {name: min(values) if mode == "min" else max(values) for name, mode, values in found}


def summarise(study: optuna.Study) -> Summary:
    """Read a study once.

    Raises:
        DataError: it is not a study of ours, or it is damaged.
    """
    try:
        about, rows = _read(study)
    except MmsaError:
        raise
    except Exception as error:  # of a value, of Optuna's own reading, or of a database
        cause = next(iter(str(error).splitlines()), "")[:100]
        what = damage(error) if isinstance(error, ValidationError) else f"cannot be read: {cause}"
        raise DataError(f"the study {study.study_name} {what}.\n  name another study") from error
    states = Counter(row.state for row in rows)
    signs = [1.0 if mode == "min" else -1.0 for mode in about.modes]
    done = sorted((row for row in rows if row.state == "done"), key=lambda row: [*map(mul, signs, row.values)])
    front = {trial.number for trial in study.best_trials} if len(signs) > 1 else {row.number for row in done[:1]}
    best = tuple(row for row in done if row.number in front)
    failures = Counter(row.reason or "without a reason" for row in rows if row.state == "failed")
    return Summary(
        **vars(about),
        counts={state: states[state] for state in STATES.values()},
        rows=rows,
        best=() if about.final else best,
        ranked=(*best, *(row for row in done if row.number not in front)),
        reasons=dict(failures.most_common()),
    )


def _read(study: optuna.Study) -> tuple[StudyRecord, tuple[TrialRecord, ...]]:
    """The record of a study, and those of its trials but the ones that were withdrawn before they ran."""
    held = study.user_attrs.get(ATTRIBUTE)
    if held is None:
        raise DataError(
            f"the study {study.study_name} was not made by a sweep of mmsa, and lacks the data of a table.\n"
            "  name another study"
        )
    about = TypeAdapter(StudyRecord).validate_json(to_json(held), strict=True)
    if not len(about.objectives) == len(about.modes) == len(study.directions):
        raise ValueError("it has other objectives than it was made with")
    trials = study.get_trials(deepcopy=False)
    return about, tuple(_record(trial, about) for trial in trials if not trial.user_attrs.get("surplus"))


def rerun_overrides(summary: Summary) -> list[str]:
    """Overrides that train the best configuration with five new seeds, and score the test fold, as typed.

    The fixed ones come first. Empty while no trial is done.
    """
    if not summary.best:
        return []
    best = summary.best[0]
    fixed = [override for override in summary.fixed if override_key(override) not in best.overrides]
    first = summary.seed + summary.seeds
    seeds = ",".join(str(seed) for seed in range(first, first + 5))
    kept = [override for override in fixed if not is_of_search(override) and override_key(override) != "seed"]
    return [*kept, *best.typed, f"seed={seeds}", "sweep=grid"]


def rerun_command(summary: Summary) -> str | None:
    """The command line of `rerun_overrides`; None while no trial is done."""
    overrides = rerun_overrides(summary)
    if not overrides:
        return None
    return train_command(overrides, summary.config_folders, summary.folder)


def seed_scores(trial: FrozenTrial) -> list[float]:
    """The first objective of each seed of a trial that ended, in the order of the seeds."""
    return [run["score"] for run in trial.user_attrs.get("seeds", {}).values() if "score" in run]


class _Seed(BaseModel):
    score: Number | None = None


class _Owner(BaseModel):
    slot: str = ""
    since: Number = math.nan


class _Attributes(BaseModel):
    """What a worker keeps with a trial, as far as a summary reads it, and the values of one that is done."""

    values: tuple[Number, ...]
    overrides: tuple[str, ...] = ()
    seeds: Mapping[str, _Seed] = {}
    seconds: Number = math.nan
    owner: Annotated[_Owner, BeforeValidator(lambda value: value or {})] = _Owner()
    reason: Annotated[str, BeforeValidator(lambda value: value or "")] = ""


def _record(trial: FrozenTrial, about: StudyRecord) -> TrialRecord:
    state = STATES[trial.state.name]
    known = {**trial.user_attrs, "values": trial.values if state == "done" else ()}
    attributes = _Attributes.model_validate_json(to_json(known), strict=True)
    if len(attributes.values) != (len(about.objectives) if state == "done" else 0):
        raise ValueError(f"trial {trial.number} has other objectives")
    return TrialRecord(
        number=trial.number,
        state=state,
        values=attributes.values,
        typed=attributes.overrides,
        scores=tuple(seed.score for seed in attributes.seeds.values() if seed.score is not None),
        seconds=attributes.seconds,
        slot=attributes.owner.slot,
        since=attributes.owner.since,
        reason=next(iter(attributes.reason.splitlines()), ""),
    )
