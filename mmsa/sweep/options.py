"""Options of a sweep, and the record in its folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Lt
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from mmsa.config import check_value
from mmsa.errors import ConfigError, DataError
from mmsa.files import content_of
from mmsa.ranges import Count, NaturalNumber
from mmsa.record import damage
from mmsa.secrets import is_of_environment

SPEC_FILE = "sweep.json"
SQLITE = "sqlite:///"
LATER_OPTIONS = {"grace": 10, "trial_minutes": None, "storage_minutes": 10}
"""Options that the record of an earlier sweep lacks, with their values for it."""


@dataclass(frozen=True)
class SweepOptions:
    """The node `sweep` of the configuration.

    Args:
        trials: finished or pruned trials at which the study ends, >= 1; a grid has as many as points.
        seeds: runs per trial, >= 1: seed, seed + 1, ...; the objective is their mean.
        objectives: `valid/METRIC`, `num_parameters` or `seconds`; None is the metric that selects epochs.
        confidence: in [0.5, 1): the objective is the bound that the mean over seeds keeps with this probability;
            None is the mean itself.
        pruner: ends trials whose first seed falls behind, by the "median" of the others or by successive "halving"
            of their number; with several seeds also trials whose seeds are behind those of the best (Wilcoxon).
        min_epochs: epochs before a trial may be pruned, >= 1.
        timeout: minutes after which no trial starts; None has no limit.
        grace: minutes after `timeout` that running trials get, >= 0; then they are stopped, and can be resumed.
        trial_minutes: minutes that a trial may take on a slot; None has no limit.
        storage: URL of a database, or "journal" for a file that network file systems can hold; None is SQLite in the
            sweep's folder.
        storage_minutes: how long each call of a storage that is away is tried again, >= 0.
        study: the study's name; None makes it from the search, so the same command resumes it.
        slots: "auto", a number, or a list such as [cuda:0, cuda:1, cpu].
        slots_per_gpu: trials side by side on a GPU, >= 1.
        gpu_memory: GiB that have to be free per slot on a GPU, >= 0.
        retries: how often a trial whose process died is resumed, >= 0.
        max_failures: failed trials with which the sweep ends, >= 1.
        final: every run scores the test fold: a grid that is reported, not a search.
        workers: how many copies a launcher other than Hydra's basic one starts, >= 1; None is for that one.
        space: dimension -> values, in the syntax of overrides; a single value is fixed.
        join: folder of a sweep, which a launcher gives to its workers.
    """

    trials: Count
    seeds: Count
    objectives: list[str] | None
    confidence: Annotated[float, Ge(0.5), Lt(1)] | None
    pruner: Literal["none", "median", "halving"]
    min_epochs: Count
    timeout: Annotated[float | int, Gt(0)] | None
    grace: Annotated[float | int, Ge(0)]
    trial_minutes: Annotated[float | int, Gt(0)] | None
    storage: str | None
    storage_minutes: Annotated[float | int, Ge(0)]
    study: str | None
    slots: Count | str | list[str]
    slots_per_gpu: Count
    gpu_memory: Annotated[float | int, Ge(0)]
    retries: NaturalNumber
    max_failures: Count
    final: bool
    workers: Count | None
    space: dict[str, Any]
    join: str | None


@dataclass(frozen=True)
class Search:
    """A search: its space, and its way.

    Args:
        working_folder: where relative paths begin.
        space: dimension -> values as given, in Hydra's own words; single values are fixed.
        arguments: the other overrides, in Hydra's own words.
        sampler: node of the sampler.
        seed: first seed.
        objectives: names of the objectives.
        modes: "min" or "max" of each.
        num_points: points of a grid; None is a search.
        config_folders: further folders of configuration files.
        packages: packages of the user's own that a configuration may name.
        options: the options of the sweep.
    """

    working_folder: str
    space: dict[str, str]
    arguments: list[str]
    sampler: dict[str, Any]
    seed: int
    objectives: list[str]
    modes: list[str]
    num_points: int | None
    config_folders: list[str]
    packages: str
    options: dict[str, Any]

    @property
    def total(self) -> int:
        """Trials that the study ends with."""
        return self.num_points if self.num_points is not None else int(self.options["trials"])


@dataclass(frozen=True)
class SweepSpec(Search):
    """The record from which workers start, in the sweep's folder.

    Args:
        study: the study's name.
        folder: the sweep's folder; its file does not say it, and a file of storage that lies under the same outputs is
            named from it there: people move and copy folders.
        storage: URL of a database, without its secret, or path of a journal file.
        sources: data set -> SHA-256 of the source that was chosen when the sweep was made, by role of the file.
    """

    study: str
    folder: str
    storage: str
    sources: dict[str, dict[str, str]] = field(default_factory=dict)

    def save(self) -> None:
        """Write it into the sweep's folder, for nobody else to read: it names users and hosts."""
        path = Path(self.folder) / SPEC_FILE
        content = asdict(self) | {"storage": _named_from(Path(self.folder), self.storage)}
        del content["folder"]
        temporary = path.with_name(f".{SPEC_FILE}.{os.getpid()}.tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
        temporary.replace(path)

    @classmethod
    def load(cls, folder: Path) -> SweepSpec:
        """Read it from a sweep's folder, which anybody may have written: every value is of the type that stands here.

        Raises:
            DataError: the folder is not a sweep's.
        """
        try:
            content = from_json(content_of(folder / SPEC_FILE))
            former = content.pop("folder", None)  # sweeps were made with absolute paths before
            content["options"] = LATER_OPTIONS | content["options"]
            content["folder"] = str(folder.resolve())
            spec: SweepSpec = TypeAdapter(cls).validate_json(to_json(content), strict=True)
            storage = _named_from(Path(former), spec.storage) if former else spec.storage
            known = get_type_hints(SweepOptions, include_extras=True)
            for key in known.keys() & spec.options.keys():
                check_value(f"sweep.{key}", spec.options[key], known[key])
            return replace(spec, storage=_placed(folder.resolve(), storage))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            what = damage(error) if isinstance(error, ValidationError) else "is missing or damaged"
            raise DataError(
                f"{folder} is not the folder of a sweep: its {SPEC_FILE} {what}.\n"
                "  name a folder that a sweep has made, as in outputs/sweeps"
            ) from error

    def check_complete(self) -> None:
        """Check that a worker finds every option.

        Raises:
            DataError: one is missing.
        """
        if lacking := [name for name in get_type_hints(SweepOptions) if name not in self.options]:
            raise DataError(
                f"{self.folder}: its {SPEC_FILE} lacks sweep.{lacking[0]}, as of another version of mmsa.\n"
                "  run the command of the sweep again"
            )

    @property
    def file(self) -> Path | None:
        """The file of its storage; None where that is a server's."""
        path = _scheme_and_file(self.storage)[1]
        return Path(path) if path else None


def _named_from(folder: Path, storage: str) -> str:
    """A storage as the sweep's folder names it: a file under the same outputs by a relative path."""
    scheme, path = _scheme_and_file(storage)
    return scheme + os.path.relpath(path, folder) if Path(path).is_relative_to(folder.parent.parent) else storage


def _placed(folder: Path, storage: str) -> str:
    """The storage that a sweep's folder names so."""
    scheme, path = _scheme_and_file(storage)
    return scheme + os.path.normpath(folder / path) if path else storage


def _scheme_and_file(storage: str) -> tuple[str, str]:
    """The file of an SQLite database, or of a journal, which has no scheme; "" where it is a server's URL."""
    scheme = SQLITE if storage.startswith(SQLITE) else ""
    return scheme, "" if is_server(storage) else storage.removeprefix(scheme)


def is_server(storage: str) -> bool:
    """Whether a storage is a server's URL, perhaps one that the environment has; else it is a file."""
    return not storage.startswith(SQLITE) and ("://" in storage or is_of_environment(storage))


def is_of_search(override: str) -> bool:
    """Whether an override is of the search itself, not of its trials."""
    return re.match(r"[+~]*(sweep|hydra)([./@=]|$)", override) is not None


def check_together(options: Mapping[str, Any]) -> None:
    """Check that the options of a sweep fit together.

    Raises:
        ConfigError: they do not.
    """
    objectives, study = options["objectives"], options["study"]
    if study is not None and not re.fullmatch(r"\w[\w.+-]*", study):
        raise ConfigError(
            f"sweep.study={study}: it names a folder: letters, digits and _.+- only.\n  type sweep.study=NAME"
        )
    if objectives is not None and not objectives:
        raise ConfigError("sweep.objectives=[]: at least one is needed.\n  type sweep.objectives=[valid/mae]")
    if objectives and options["pruner"] != "none" and (len(objectives) > 1 or "/" not in objectives[0]):
        why = "several objectives give no order" if len(objectives) > 1 else f"{objectives[0]} is known at the end only"
        raise ConfigError(
            f"sweep.pruner={options['pruner']}: {why}, so no trial can be ended by it.\n  type sweep.pruner=none"
        )
    if objectives and len(objectives) > 1 and options["confidence"] is not None:
        raise ConfigError("sweep.confidence: it bounds one objective, not several.\n  type sweep.confidence=null")
    if options["confidence"] is not None and options["seeds"] < 2:
        raise ConfigError("sweep.confidence needs several seeds per trial.\n  type sweep.seeds=3")
    if options["final"] and options["seeds"] > 1:
        raise ConfigError("sweep.seeds: the runs of a plain grid name their seeds.\n  type seed=1,2,3 instead")
