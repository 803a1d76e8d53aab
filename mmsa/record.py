"""result.json: the record of a run in its folder, as one type."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from mmsa.errors import DataError, printable
from mmsa.files import content_of
from mmsa.occupancy import is_under_way
from mmsa.program import program
from mmsa.ranges import LARGEST
from mmsa.run_folder import write_text

FORMAT = 1
"""Version of result.json; a file that states none is of version 1."""
FILE = "result.json"
NO_SEED = -1
"""The seed of an import whose file states none: no run has it, so that it is compared with the runs of every seed."""
DIED = "its process died"

_LARGEST = 1e100
"""A score beyond it is no score: its square, and a sum of many, have to be numbers too."""


def _bounded(value: float) -> float:
    if math.isfinite(value) and abs(value) > _LARGEST:
        raise ValueError(f"beyond {_LARGEST:.0e}")
    return value


Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value), AfterValidator(_bounded)]
"""A number that JSON holds as null where it is not finite."""
Whole = Annotated[int, Ge(-(2**63)), Le(LARGEST)]
"""A whole number of 64 bits."""
FoldNumber = Annotated[int, Ge(0), Le(1_000_000)]
"""Of own folds; None where a run has the folds of its source."""
Seconds = Annotated[
    float | None,
    BeforeValidator(lambda value: None if isinstance(value, float) and not math.isfinite(value) else value),
]
"""A time; None where it is not known."""
Name = Annotated[str, StringConstraints(pattern=r"^[\w-]{1,128}$")]
"""A text that may be part of a file's name."""
Scores = Mapping[str, Number]
"""Name of a metric, fold/metric -> value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null", defer_build=True)


class Git(_Part):
    """State of the code: commit and whether files differed from it; None where git did not say."""

    commit: str | None = None
    dirty: bool | None = None


class DataRecord(_Part):
    """The store that a run read: docs/results.md describes each field."""

    fingerprint: Name
    store: str
    source: str | None = None
    hashes: Mapping[str, str] = {}
    utterances: Mapping[str, Whole] = {}
    num_folds: FoldNumber | None = None
    held_out: FoldNumber | None = None
    parts: Name | None = None


class Import(_Part):
    """The file of a run's predictions, and their number per fold; None of a run that was trained."""

    file: str | None = None
    sha256: str | None = None
    utterances: Mapping[str, Whole] = {}


class Packing(_Part):
    """The form in which a run was trained: docs/results.md describes each field; empty of a run alone."""

    seeds: tuple[Whole, ...] = ()
    epochs: Whole | None = None
    reason: str | None = None


class RunRecord(_Part):
    """The record of a run, from its start on: docs/results.md describes each field.

    A resumed run keeps name, overrides and tracking.
    """

    id: Name | None = None
    name: str
    status: Literal["running", "finished", "failed", "pruned"]
    seed: Whole
    dataset: str
    task: str
    data: DataRecord
    monitor: str
    mode: Literal["min", "max"]
    primary: Annotated[
        tuple[str, ...], MinLen(1), MaxLen(200), AfterValidator(lambda names: tuple(dict.fromkeys(names)))
    ]
    num_parameters: Whole
    planted: bool
    overrides: tuple[str, ...]
    started: str | None = None
    git: Git = Git()
    repairs: Whole = 0
    environment: Mapping[str, str] = {}
    sweep: str | None = None
    trial: Whole | None = None
    repeats: str | None = None
    packed: Packing = Packing()
    mlflow_run_id: str | None = None
    imported: Import = Import()
    reason: str | None = None
    best_epoch: Whole | None = None
    epochs: Whole | None = None
    weights: str | None = None
    metrics: Scores = {}
    baselines: Mapping[str, Scores] = {}
    training_seconds: Seconds = None
    seconds: Seconds = None
    format: Whole = FORMAT

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """The record of a run's folder, which anybody may have written: every value is of the type that stands here.

        A run whose process died is a failed one.

        Raises:
            DataError: the folder is not a run's, or a newer mmsa wrote it.
        """
        try:
            record = cls.model_validate_json(content_of(folder / FILE), strict=True)
        except ValidationError as error:
            raise DataError(_not_a_run(folder, f"{FILE} {damage(error)}")) from error
        except FileNotFoundError as error:
            raise DataError(_not_a_run(folder, f"{FILE} is missing")) from error
        except (OSError, ValueError) as error:
            raise DataError(_not_a_run(folder, f"{FILE} cannot be read")) from error
        if record.format > FORMAT:
            raise DataError(
                f"{folder}: a newer mmsa wrote {FILE} (version {record.format}, this one reads {FORMAT}).\n"
                "  update mmsa, or name another run"
            )
        if record.status == "running" and not is_under_way(folder):
            return record.model_copy(update={"status": "failed", "reason": DIED})
        return record

    def check_model(self, folder: Path, purpose: str) -> None:
        """Refuse an import where a model is needed.

        Args:
            folder: of the run.
            purpose: of the model, such as "to load".

        Raises:
            DataError: it is an import.
        """
        if self.is_import:
            raise DataError(
                f"{folder}: its predictions were imported from {self.imported.file}: there is no model {purpose}.\n"
                f"  type {program('mmsa')} report {shlex.quote(str(folder))} to see its scores, or name a trained run"
            )

    def write(self, folder: Path) -> None:
        """Write the folder's result.json; numbers that are not finite become null."""
        write_text(folder / FILE, self.model_dump_json(indent=2) + "\n")

    @property
    def fold(self) -> str:
        """The fold that tables and figures show: test, or valid where the test fold was not scored."""
        return "test" if any(name.startswith("test/") for name in self.metrics) else "valid"

    @property
    def is_import(self) -> bool:
        """Whether its predictions came from a file, so that there is no model."""
        return self.imported.file is not None

    @property
    def is_partial(self) -> bool:
        """Whether it is an import without predictions for some utterances of its fold."""
        held = self.imported.utterances.get(self.fold)
        return held is not None and held < self.data.utterances.get(self.fold, 0)

    @property
    def debug(self) -> str | None:
        """The option of `debug=`, with which a run stands in no table unless it is asked for."""
        typed = [override.removeprefix("debug=") for override in self.overrides if override.startswith("debug=")]
        return typed[-1] if typed and typed[-1] != "null" else None


def damage(error: ValidationError) -> str:
    """The first fault of a file of values, in a few words: lacks seed, or is damaged (seed: …)."""
    first = error.errors(include_url=False, include_input=False)[0]
    part = printable(".".join(map(str, first["loc"])))[:100]
    if first["type"] == "missing":
        return f"lacks {part}"
    return f"is damaged ({f'{part}: ' if part else ''}{printable(first['msg'])[:100]})"


def _not_a_run(folder: Path, why: str) -> str:
    return f"{folder} is not the folder of a run: its {why}.\n  name a folder that a run ended with, as in outputs/runs"
