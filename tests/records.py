"""The record of a run that never was, and what docs/results.md says of records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

from mmsa.analysis.metric_sums import metric_sums
from mmsa.analysis.predictions import read_predictions
from mmsa.record import RunRecord


def record(**changed: Any) -> RunRecord:
    """A finished run on CMU-MOSI, with what is changed of it."""
    known: dict[str, Any] = {
        "name": "run",
        "status": "finished",
        "seed": 1,
        "dataset": "cmu_mosi",
        "task": "regression",
        "data": {"fingerprint": "aaaabbbbccccdddd", "store": "cmu_mosi-aaaa.h5"},
        "monitor": "valid/mae",
        "mode": "min",
        "primary": ["mae", "corr"],
        "num_parameters": 12,
        "planted": False,
        "overrides": [],
        "git": {"commit": "c0ffee", "dirty": False},
    }
    return RunRecord.model_validate(known | changed)


def check_predictions(record: RunRecord, folder: Path) -> None:
    """The law of every finished run: its metrics are those of its predictions.csv."""
    for fold in ("valid", "test"):
        known = {name: value for name, value in record.metrics.items() if name.startswith(f"{fold}/")}
        if known:
            stored = read_predictions(folder, fold)
            finite = np.isfinite(stored.predicted).all()
            for name, value in known.items():
                sums = metric_sums(name.partition("/")[2], stored.predicted, stored.truth) if finite else None
                assert sums is None or sums.whole == pytest.approx(value, abs=1e-6, nan_ok=True), name


def documented() -> dict[str, str]:
    """The fields of result.json that docs/results.md lists, with their types in its words."""
    page = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    return dict(
        re.findall(r"^\| `([\w.]+)` \| (.+?) \| .+ \|$", page.partition("| key | type |")[2], flags=re.MULTILINE)
    )


def fields(model: type[BaseModel] = RunRecord, prefix: str = "") -> dict[str, str]:
    """The fields of the record, those of its parts by dotted names, with their types in the words of the page."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            found |= fields(part, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = _words(part)
    return found


def fits(value: Any, words: str) -> bool:
    """Whether a value of a file is of a type in the words of the page."""
    options = {"text": str, "integer": int, "number": (int, float), "true": bool, "false": bool, "null": NoneType}
    if words.startswith("object of ") and words != "object of objects of numbers":
        return all(
            fits(held, words.removeprefix("object of ").removesuffix("s") + " or null") for held in value.values()
        )
    if words.startswith("object of "):
        return all(fits(held, "object of numbers") for held in value.values())
    if words.startswith("list of "):
        return all(fits(held, words.removeprefix("list of ").removesuffix("s")) for held in value)
    named = re.split(r", | or ", words)
    return any(value == name.strip("`") if "`" in name else isinstance(value, options[name]) for name in named)


def _words(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        (kind,) = [part for part in get_args(annotation) if part is not NoneType]
        return "true, false or null" if kind is bool else f"{_words(kind)} or null"
    if get_origin(annotation) is Literal:
        *first, last = (f"`{option}`" for option in get_args(annotation))
        return f"{', '.join(first)} or {last}"
    if get_origin(annotation) is tuple:
        return f"list of {_words(get_args(annotation)[0])}s"
    if get_origin(annotation) is Mapping:
        held = _words(get_args(annotation)[1])
        return "object of objects of numbers" if held == "object of numbers" else f"object of {held}s"
    plain = {str: "text", int: "integer", bool: "true or false", float: "number"}
    return plain[get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation]
