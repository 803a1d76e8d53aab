"""Finished runs, read back from their folders and grouped by configuration."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa.errors import DataError, printable
from mmsa.occupancy import run_folders
from mmsa.record import RunRecord
from mmsa.run_folder import flat_parameters, override_key, stored_config, value_text

Options = frozenset[tuple[str, str]]
# Options, or whole groups, that change nothing of what one seed computes.
_NOT_CONFIGURATION = (
    "seed",
    "name",
    "dataset.source",
    "dataset.glove",
    "dataset.doctor",
    "trainer.resume",
    "trainer.keep_last",
    "tracking",
    "paths",
    "hydra",
)


class Run(RunRecord):
    """The record of a finished run, and what it is compared and labelled by.

    Args:
        folder: the run's folder.
        configuration: the options that it was computed with, flat, as text (see `configuration_of`).
        shown: the typed ones among them, as a label shows them (see `shown_overrides`).
    """

    folder: Path
    configuration: Mapping[str, str]
    shown: Mapping[str, str]


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, in the order of the seeds, and what tells them from other groups."""

    label: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class FoundRuns:
    """The finished runs under an outputs folder in the order of their names, and those that were left out.

    Args:
        runs: the runs.
        num_unfinished: run folders without a result.
        damaged: why run folders cannot be read, one line each.
        trials: study -> run folders of its trials.
    """

    runs: tuple[Run, ...]
    num_unfinished: int
    damaged: tuple[str, ...]
    trials: Mapping[str, int]


def read_runs(outputs: Path, sweep: str | None = None) -> FoundRuns:
    """Read every finished run; unfinished folders are counted and left out, damaged ones named and left out.

    So are the trials of a search, which are not scored on the test fold, unless their study is asked for.

    Args:
        outputs: the outputs folder.
        sweep: only the runs of this multirun, or of this study.
    """
    runs: list[Run] = []
    trials: Counter[str] = Counter()
    damaged: list[str] = []
    num_unfinished = 0
    for folder in run_folders(outputs):
        try:
            record = RunRecord.read(folder)
            if sweep is not None and record.sweep != sweep:
                continue
            if sweep is None and record.trial is not None:
                trials[str(record.sweep)] += 1
                continue
            if record.status != "finished":
                num_unfinished += 1
                continue
            runs.append(run_of(folder, record))
        except DataError as error:
            damaged.append(str(error).splitlines()[0])
    return FoundRuns(tuple(runs), num_unfinished, tuple(damaged), trials)


def read_run(folder: Path) -> Run:
    """Read one finished run.

    Raises:
        DataError: the folder does not hold a finished run.
    """
    record = RunRecord.read(folder)
    if record.status != "finished":
        raise DataError(f"{folder}: a finished run is needed; this one is {record.status}.")
    return run_of(folder, record)


def by_configuration(runs: Iterable[Run]) -> list[Group]:
    """Group runs by what they computed, in the order of their names; of two with the same seed the newest counts.

    A group's label is the fewest overrides that one of its runs was started with: `feedback=none`, where that is the
    default, is `defaults` as soon as a run of the group was started without it. Where groups would have one label
    (a default was edited, a run was resumed with other options), each also names the options in which they differ.
    """
    found: dict[Options, dict[int, Run]] = {}
    shown: dict[Options, dict[str, str]] = {}
    for run in sorted(runs, key=lambda run: run.folder.name):
        key = frozenset(run.configuration.items())
        found.setdefault(key, {})[run.seed] = run
        typed = dict(run.shown)
        shown[key] = min(shown.get(key, typed), typed, key=lambda parts: (len(parts), len(_label(parts))))
    _tell_apart(shown)
    return [Group(_label(shown[key]), tuple(run for _, run in sorted(found[key].items()))) for key in found]


def configuration_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What decides a run's result beside its seed: every option that is used, `group.key` -> value as text.

    Args:
        config: the resolved configuration; encoders of modalities that are not in it are left out.
    """
    config = dict(config)
    encoder, modalities = config.get("encoder"), (config.get("dataset") or {}).get("modalities")
    if isinstance(encoder, Mapping) and isinstance(modalities, list):
        used = set(modalities) if set(modalities) <= set(encoder) else {*modalities, "default"}
        config["encoder"] = {name: part for name, part in encoder.items() if name in used}
    return {name: value_text(value) for name, value in flat_parameters(config).items() if not _is_bookkeeping(name)}


def shown_overrides(overrides: Iterable[str], configuration: Mapping[str, str]) -> dict[str, str]:
    """Overrides for a label, key -> text: the last of each key, sorted, with the value that the run has.

    Those that change no result are left out, and so is the data set, which a table names in its title.

    Args:
        overrides: as they were typed.
        configuration: the run's configuration; a resumed run may have another value than was typed at first.
    """
    last: dict[str, str] = {}
    for override in overrides:
        key = override_key(override)
        if key != "dataset" and not _is_bookkeeping(key):
            last[key] = f"{key}={configuration[key]}" if key in configuration else override.lstrip("+")
    return {key: last[key] for key in sorted(last)}


def _tell_apart(shown: Mapping[Options, dict[str, str]]) -> None:
    """Add to labels that are equal the options in which their configurations differ, until no two are equal."""
    grown = True
    while grown:
        grown = False
        alike: dict[str, list[Options]] = defaultdict(list)
        for configuration, parts in shown.items():
            alike[_label(parts)].append(configuration)
        for members in alike.values():
            common = frozenset.intersection(*members)
            for member in members:
                new = {key: f"{key}={value}" for key, value in sorted(member - common) if key not in shown[member]}
                shown[member].update(new)
                grown = grown or bool(new)


def _label(parts: Mapping[str, str]) -> str:
    return " ".join(parts.values()) or "defaults"


def _is_bookkeeping(key: str) -> bool:
    return any(f"{key}.".startswith(f"{left_out}.") for left_out in _NOT_CONFIGURATION)


def run_of(folder: Path, record: RunRecord) -> Run:
    """The finished run of a record, with the configuration that is in its folder.

    Raises:
        DataError: the configuration is missing or damaged.
    """
    config = stored_config(folder)
    try:
        configuration = configuration_of(config)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} is not the folder of a run: its config.yaml is damaged.") from error
    shown = shown_overrides(record.overrides, configuration)
    known = dict(record)
    source = (config.get("dataset") or {}).get("source")
    if record.data.source is None and source:  # of an older version, which kept the path alone
        known["data"] = record.data.model_copy(update={"source": printable(Path(str(source)).name)})
    return Run(**known, folder=folder, configuration=configuration, shown=shown)
