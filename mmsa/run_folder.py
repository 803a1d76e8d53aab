"""A run's folder: the source of truth of a run, written so that a killed writer leaves whole files."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml  # type: ignore[import-untyped]
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter

from mmsa.errors import ConfigError, DataError, printable
from mmsa.files import content_of, written
from mmsa.program import program
from mmsa.secrets import unset

_YAML_BYTES, _YAML_DEPTH, _YAML_INDENT = 2**20, 200, 100
_NUMBER_LENGTH = 60
OF_THE_RUN = ("resume", "keep_last")
"""Options of the trainer's group that the run takes, not the trainer: they change no result."""
OF_STEPS = ("pack_seeds", "graphs")
"""Options of the group `device` on the form of steps, not on where they run: results are equal to rounding."""
_FILES_OF_DATA = ("dataset.source", "dataset.glove")
_METHOD = ("experiment", "regularizer", "feedback", "fusion", "encoder", "objective")
NUM_RUNS_VARIABLE = "MMSA_NUM_RUNS"
"""Environment variable: how many runs a multirun has."""
SWEEP_VARIABLE = "MMSA_SWEEP"
"""Environment variable: the id that ties the runs of one multirun together."""
_FORMER_TARGETS = {
    "mmsa.data.": "mmsa.dataset.",
    "mmsa.encoder.recurrent.": "mmsa.encoder.bilstm.",
    "mmsa.encoder.transformer.": "mmsa.encoder.bert.",
    "mmsa.training.optimizers.constant": "mmsa.training.schedules.none",
    "mmsa.training.optimizers.none": "mmsa.training.schedules.none",
    "mmsa.training.optimizers.plateau": "mmsa.training.schedules.plateau",
}
"""Former names of parts, as in the folders of older runs, and their names today."""
_ADDED: dict[str, dict[str, Any]] = {
    "mmsa.training.optimizers.": {"decay_biases": True, "groups": {}},
    "mmsa.encoder.bilstm.": {"utterance_dim": None},
    "mmsa.encoder.bert.": {"pooling": "mean"},
    "mmsa.training.classification.": {"class_weights": None},
    "mmsa.dataset.": {"num_folds": None, "held_out": None},
}
"""Options of parts that older runs lack, with the values that reproduce those runs."""


def run_name(overrides: Sequence[str]) -> str:
    """The overrides that distinguish a run, in one text, its data first; "default" without any."""
    # A folder's name is cut at its end.
    return _named(sorted(overrides, key=lambda override: override_key(override) not in ("dataset", *_FILES_OF_DATA)))


def short_name(overrides: Sequence[str]) -> str:
    """As `run_name`, for a list of runs: the method first, then its options, then the rest, and the seed last."""

    def place(override: str) -> tuple[bool, bool, bool]:
        key = override_key(override)
        return key == "seed", re.split("[/.]", key)[0] not in _METHOD, "." in key

    return _named(sorted(overrides, key=place))


def _named(overrides: Sequence[str]) -> str:
    typed = [override.lstrip("+").partition("=") for override in overrides if not is_hidden(override_key(override))]
    return " ".join(f"{key}{equals}{shown_value(key, value)}" for key, equals, value in typed) or "default"


def place_among_runs() -> str:
    """The number of this process's run in a multirun, such as "4 of 15"; empty where it is unknown."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    total = os.environ.get(NUM_RUNS_VARIABLE)
    if total is None or not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return ""
    return f"{HydraConfig.get().job.num + 1} of {total}"


def is_hidden(key: str) -> bool:
    """Whether an option, or a whole group, does not distinguish runs."""
    of_the_run = (f"trainer.{option}" for option in OF_THE_RUN)
    of_steps = (f"device.{option}" for option in OF_STEPS)
    named = ("dataset.doctor", "name", *of_the_run, *of_steps)
    return key.startswith(("paths.", "tracking", "hydra")) or key in named


def shown_value(key: str, value: str) -> str:
    """A value as typed; of a file of data its name, without its folder."""
    return printable(os.path.basename(os.path.abspath(value.strip("\"'")))) if key in _FILES_OF_DATA else value


def override_key(override: str) -> str:
    """The key of an override, without the signs that add or change it."""
    return override.lstrip("+~").partition("=")[0]


def check_paths(paths: Mapping[str, Any]) -> None:
    """Fail before hours of preparation.

    Args:
        paths: name in the group `paths` -> the folder.

    Raises:
        ConfigError: one of them is a file, or would be in one.
    """
    for name, folder in paths.items():
        key = f"paths.{name}"
        for path in (Path(folder), *Path(folder).parents):
            if path.exists() and not path.is_dir():
                raise ConfigError(f"{key}={folder}: {path} is a file, a folder is needed.\n  type {key}=FOLDER")


def check_own(folder: Path) -> None:
    """Check that whoever writes into a folder of a run or of a sweep, which others may have made, writes there only.

    Raises:
        DataError: something in it leads elsewhere.
    """
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DataError(
                f"{path} is a link, a pipe or a device: writing into it would write elsewhere.\n"
                "  replace it by a copy of what it leads to"
            )


def flat_parameters(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as `group.key` -> value; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= flat_parameters(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def value_text(value: Any) -> str:
    """A value as it is typed; whole numbers alike, whether they were written as 1 or as 1.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False, default=str).replace('"', "")


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name and rename."""
    content = text.encode()
    with written(path, len(content)) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, of dataclasses too; numbers that are not finite become null."""
    write_text(path, TypeAdapter(Any).dump_json(content, indent=2).decode() + "\n")


def write_history(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """One row per epoch; a loss of a phase that was not due is empty."""
    rows = [{"epoch": epoch, **metrics} for epoch, metrics in enumerate(history, start=1)]
    names = dict.fromkeys(name for row in rows for name in row) or ["epoch"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class Predicted(Protocol):
    """The utterances of a fold that were predicted."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def videos(self) -> Sequence[str]: ...


def write_predictions(
    path: Path, folds: Sequence[tuple[Predicted, np.ndarray, np.ndarray]], columns: Sequence[str] = ()
) -> None:
    """One row per utterance of these folds: its video, truths and predictions, (N,), or (N, K) of K named columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = [f"{side} {column}".rstrip() for side in ("target", "prediction") for column in columns or ("",)]
    writer.writerow(["id", "fold", "video", *named])
    for fold, truths, predictions in folds:
        values = zip(
            truths.reshape(len(truths), -1).tolist(), predictions.reshape(len(truths), -1).tolist(), strict=True
        )
        for name, video, (truth, prediction) in zip(fold.ids, fold.videos, values, strict=True):
            writer.writerow([name, fold.name, video, *truth, *prediction])
    write_text(path, text.getvalue())


def read_columns(path: Path) -> dict[str, list[str]]:
    """The columns of a table of a run's folder; none where it is missing.

    Raises:
        DataError: it is no table.
    """
    try:
        text = content_of(path).decode("utf-8")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
        head, rows = (lines[0], lines[1:]) if lines else ([], [])
        if any(len(row) != len(head) for row in rows):
            raise ValueError("has rows of other lengths than its first")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is damaged: {error}.\n  name another run") from None
    return {name: list(column) for name, column in zip(head, zip(*rows, strict=True), strict=False)}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table of a run's folder; none where it is missing.

    Raises:
        DataError: it is no table.
    """
    columns = read_columns(path)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def closed_to_trials(run: str, sweep: str) -> str:
    """Why a trial of a search has no test fold, and the command to use instead."""
    return (
        f"{run} is a trial of the search {sweep}, which never reads the test fold.\n"
        f"  type --fold valid, or the command that {program('mmsa')} report --sweep {sweep} prints"
    )


def read_config(folder: Path) -> DictConfig:
    """The configuration that a run was started with.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        config = OmegaConf.create(stored_config(folder))
        OmegaConf.to_container(config, resolve=True)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        if named := unset(str(error)):
            raise DataError(f"{folder / 'config.yaml'}: {named}") from None
        raise DataError(
            f"{folder / 'config.yaml'} cannot be read: {str(error).splitlines()[0][:160]}\n  name another run"
        ) from None
    return config


def stored_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a run: parts have the names that they have today, and options that came later are there.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / "config.yaml"
    try:
        stored = load_yaml(path)
        config: dict[str, Any] = _as_today(stored)
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        raise DataError(
            f"{path} is missing or damaged, and a run cannot be read without it.\n  name another run"
        ) from None
    if isinstance(config.get("trainer"), dict):
        config["trainer"] = {"accumulate": 1, "keep_last": False} | config["trainer"]
    if isinstance(config.get("device"), dict):
        config["device"] = {"devices": 1} | config["device"]
    config.setdefault("objective", {"_target_": "mmsa.objective.task.TaskObjective"})
    return config


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain values; that in C, where there is one, is ten times as fast: a report reads hundreds of files."""

    def number(self, node: Any) -> float:
        """A number; one of a thousand digits, or parts to the base of 60, would take hours, or no print."""
        if len(node.value) > _NUMBER_LENGTH:
            raise ValueError(f"a number of {len(node.value)} characters")
        read = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        return read(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.number)


def load_yaml(path: Path) -> Any:
    """The plain values of a file of YAML that anybody may have written.

    Raises:
        OSError, ValueError, yaml.YAMLError: it cannot be read, is larger than a configuration is, or has more than
            plain values.
    """
    text = content_of(path, _YAML_BYTES).decode("utf-8")
    # That in C ends the interpreter at some depth, and a few references to references become billions of values.
    if "*" in text or " " * _YAML_INDENT in text or sum(map(text.count, "[{-?")) > _YAML_DEPTH:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _YAML_DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError("deeper than a configuration is, or with references")
    try:
        return yaml.load(text, Loader=_Loader)
    except (ArithmeticError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError("values that cannot be read") from error  # such as dates that there are not


def _as_today(node: dict[Any, Any]) -> dict[Any, Any]:
    """A node, and those in it: parts have the name and the options that they have today."""
    found = {key: _as_today(value) if isinstance(value, dict) else value for key, value in node.items()}
    for former, today in _FORMER_TARGETS.items():
        if str(found.get("_target_", "")).startswith(former):
            found["_target_"] = str(found["_target_"]).replace(former, today, 1)
            break
    for part, options in _ADDED.items():
        if str(found.get("_target_", "")).startswith(part):
            found = copy.deepcopy(options) | found
    return found
