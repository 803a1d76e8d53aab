"""result.json: the record of a run in its folder, as one type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from mmsa.errors import DataError
from mmsa.run_folder import write_text

FORMAT = 1
"""Version of result.json; a file that states none is of version 1."""
FILE = "result.json"

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A number that JSON holds as null where it is not finite."""
Scores = Mapping[str, Number]
"""Name of a metric, fold/metric -> value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


class Git(_Part):
    """State of the code: commit and whether files differed from it; None where git did not say."""

    commit: str | None = None
    dirty: bool | None = None


class DataRecord(_Part):
    """The store that a run read: docs/results.md describes each field."""

    fingerprint: str
    store: str
    source: str | None = None
    hashes: Mapping[str, str] = {}
    utterances: Mapping[str, int] = {}


class RunRecord(_Part):
    """The record of a run, from its start on: docs/results.md describes each field.

    A resumed run keeps name, overrides and tracking.
    """

    name: str
    status: Literal["running", "finished", "failed", "pruned"]
    seed: int
    dataset: str
    task: str
    data: DataRecord
    monitor: str
    mode: Literal["min", "max"]
    primary: tuple[str, ...]
    num_parameters: int
    planted: bool
    overrides: tuple[str, ...]
    started: str | None = None
    git: Git = Git()
    environment: Mapping[str, str] = {}
    sweep: str | None = None
    trial: int | None = None
    mlflow_run_id: str | None = None
    reason: str | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    weights: str | None = None
    metrics: Scores = {}
    baselines: Mapping[str, Scores] = {}
    training_seconds: float | None = None
    seconds: float | None = None
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record of a run's folder.

        Raises:
            DataError: the folder is not a run's, or a newer mmsa wrote it.
        """
        try:
            record = cls.model_validate_json((folder / FILE).read_bytes())
        except OSError as error:
            raise DataError(_not_a_run(folder, f"{FILE} is missing")) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            part = ".".join(map(str, first["loc"]))
            what = f"{FILE} lacks {part}" if first["type"] == "missing" else f"{FILE} is damaged"
            raise DataError(_not_a_run(folder, what)) from error
        if record.format > FORMAT:
            raise DataError(
                f"{folder}: a newer mmsa wrote {FILE} (version {record.format}, this one reads {FORMAT}).\n"
                "  update mmsa, or name another run"
            )
        return record

    def write(self, folder: Path) -> None:
        """Write the folder's result.json; numbers that are not finite become null."""
        write_text(folder / FILE, self.model_dump_json(indent=2) + "\n")

    @property
    def fold(self) -> str:
        """The fold that tables and figures show: test, or valid where the test fold was not scored."""
        return "test" if any(name.startswith("test/") for name in self.metrics) else "valid"


def _not_a_run(folder: Path, why: str) -> str:
    return f"{folder} is not the folder of a run: its {why}.\n  name a folder that a run ended with, as in outputs/runs"
