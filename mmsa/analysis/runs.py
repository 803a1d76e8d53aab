"""Finished runs, read back from their folders and grouped by configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsa.errors import DataError

# Overrides that do not change what is computed, or that a table says elsewhere (the data by name and fingerprint).
_NOT_CONFIGURATION = ("seed", "name", "dataset", "dataset.source", "trainer.resume", "tracking", "paths", "hydra")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: the run's folder.
        name: its name.
        seed: its seed.
        sweep: id of the multirun it belongs to.
        data: name of the data set and fingerprint of its store.
        planted: the data are the built-in corpus.
        task: regression or classification.
        configuration: the overrides that tell it from other runs on the same data, sorted.
        primary: names of the metrics that tables show, in order.
        metrics: `fold/metric` -> value of the selected weights.
        baselines: baseline -> `fold/metric` -> value.
        commit: git commit of the code.
    """

    folder: Path
    name: str
    seed: int
    sweep: str | None
    data: tuple[str, str]
    planted: bool
    task: str
    configuration: tuple[str, ...]
    primary: tuple[str, ...]
    metrics: Mapping[str, float]
    baselines: Mapping[str, Mapping[str, float]]
    commit: str | None

    @property
    def fold(self) -> str:
        """The fold that tables show: test, or valid where the test fold was not scored."""
        return "test" if any(name.startswith("test/") for name in self.metrics) else "valid"

    @property
    def label(self) -> str:
        """The configuration as a row's label."""
        return " ".join(self.configuration) or "defaults"


@dataclass(frozen=True)
class FoundRuns:
    """The finished runs under an outputs folder in the order of their names, and how many were left out."""

    runs: tuple[Run, ...]
    num_unfinished: int
    num_damaged: int


def read_runs(outputs: Path, sweep: str | None = None) -> FoundRuns:
    """Read every finished run; unfinished and damaged folders are counted and left out.

    Args:
        outputs: the outputs folder.
        sweep: only the runs of this multirun.
    """
    runs: list[Run] = []
    num_unfinished = num_damaged = 0
    root = outputs / "runs"
    for folder in sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []:
        try:
            result = _result(folder)
            if sweep is not None and result.get("sweep") != sweep:
                continue
            if result.get("status") != "finished":
                num_unfinished += 1
                continue
            runs.append(_run(folder, result))
        except DataError:
            num_damaged += 1
    return FoundRuns(tuple(runs), num_unfinished, num_damaged)


def read_run(folder: Path) -> Run:
    """Read one finished run.

    Raises:
        DataError: the folder does not hold a finished run.
    """
    result = _result(folder)
    if result.get("status") != "finished":
        raise DataError(f"{folder}: a finished run is needed; this one is {result.get('status', 'without a status')}.")
    return _run(folder, result)


def by_configuration(runs: Iterable[Run]) -> dict[tuple[str, ...], list[Run]]:
    """Runs that differ in nothing but their seed; of two with the same seed the newest, by name, counts."""
    groups: dict[tuple[str, ...], dict[int, Run]] = {}
    for run in sorted(runs, key=lambda run: run.folder.name):
        groups.setdefault(run.configuration, {})[run.seed] = run
    return {configuration: [seeds[seed] for seed in sorted(seeds)] for configuration, seeds in groups.items()}


def configuration_of(overrides: Iterable[str]) -> tuple[str, ...]:
    """The overrides that tell a configuration: sorted, the last of each key, without those that change no result."""
    last: dict[str, str] = {}
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        room = key.partition(".")[0]
        if key not in _NOT_CONFIGURATION and room not in ("paths", "tracking", "hydra"):
            last[key] = override
    return tuple(last[key] for key in sorted(last))


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not the folder of a run: {path.name} is missing or damaged.") from error
    if not isinstance(result, dict):
        raise DataError(f"{folder} is not the folder of a run: {path.name} is not a JSON object.")
    return result


def _run(folder: Path, result: Mapping[str, Any]) -> Run:
    try:
        return Run(
            folder=folder,
            name=str(result["name"]),
            seed=int(result["seed"]),
            sweep=result.get("sweep"),
            data=(str(result["dataset"]), str(result["data"]["fingerprint"])),
            planted=bool(result.get("planted", result["dataset"] == "synthetic")),
            task=str(result["task"]),
            configuration=configuration_of(result["overrides"]),
            primary=tuple(result["primary"]),
            metrics=_numbers(result["metrics"]),
            baselines={str(name): _numbers(scores) for name, scores in result["baselines"].items()},
            commit=(result.get("git") or {}).get("commit"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder} is not the folder of a run: result.json lacks a part ({error}).") from error


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): math.nan if value is None else float(value) for name, value in values.items()}  # JSON has no NaN
