"""The layout that MulT and MultiBench share: {train, valid, test} -> padded arrays text, audio, vision; labels, id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.readers.ids import segment_ids
from mmsa.data.readers.padding import strip_together
from mmsa.data.readers.rows import Row, check_required, numbers
from mmsa.data.store import FOLDS
from mmsa.errors import DataError

if TYPE_CHECKING:
    from mmsa.data.readers.families import ReadOptions

KEYS = {"text": "text", "audio": "audio", "visual": "vision"}


@dataclass(frozen=True)
class PaddedFolds:
    """Everything of such a file, without its padding.

    Args:
        rows: every utterance, without targets.
        labels: (N, ...) of the rows, as they stand in the file.
        modalities: those of the rows.
        report: sides of the padding per modality and fold, ids of rows whose text is all zero, odd ids.
    """

    rows: list[Row]
    labels: np.ndarray
    modalities: list[str]
    report: dict[str, Any]


def holds_padded_folds(content: Any) -> bool:
    """Whether this is {train, valid, test} -> {labels, and a modality}."""
    if not isinstance(content, dict) or not all(isinstance(content.get(fold), dict) for fold in FOLDS):
        return False
    return all("labels" in content[fold] and content[fold].keys() & set(KEYS.values()) for fold in FOLDS)


def ids_of(content: Mapping[str, Any]) -> np.ndarray | None:
    """The train fold's ids as an array, (N,) or (N, 3); None where the file has none."""
    ids = content["train"].get("id")
    try:
        return None if ids is None else np.asarray(ids)
    except ValueError:  # rows of different lengths, which are no ids
        return np.empty(0, dtype=object)


def read_padded_folds(content: Mapping[str, Any], options: ReadOptions, progress: Progress, family: str) -> PaddedFolds:
    """Strip the padding of every modality; both families pad on the left.

    A row whose text is nothing but zeros is kept, where another modality has steps, and named in the report.

    Args:
        content: of which `holds_padded_folds`.
        options: which modalities have to be there.
        progress: shown per fold.
        family: named in errors.

    Raises:
        DataError: a required modality is missing, or the arrays do not fit together.
    """
    modalities = [m for m, key in KEYS.items() if all(key in content[fold] for fold in FOLDS)]
    check_required(options.required, modalities, f"{family}'s pickle")
    arrays = {fold: _arrays(content[fold], modalities, f"{family}'s pickle, fold {fold}") for fold in FOLDS}
    names, report = _names(content, {fold: len(arrays[fold]["labels"]) for fold in FOLDS})
    rows: list[Row] = []
    sides: dict[str, dict[str, str]] = {modality: {} for modality in modalities}
    for fold in progress(FOLDS, f"reading {family}'s pickle", len(FOLDS)):
        part = arrays[fold]
        steps, found = strip_together({m: part[m] for m in modalities}, documented="left")
        for modality in modalities:
            sides[modality][fold] = found[modality]
        start = len(rows)
        for i in range(len(part["labels"])):
            video, segment = names[start + i]
            rows.append(Row(fold, video, segment, {}, {m: steps[m][i] for m in modalities}))
    shapes = sorted({arrays[fold]["labels"].shape[1:] for fold in FOLDS})
    if len(shapes) > 1:
        raise DataError(f"{family}'s pickle: the labels of its folds differ in shape: {shapes}.")
    labels = np.concatenate([arrays[fold]["labels"] for fold in FOLDS])
    report |= {"padding": sides, "text_all_zero": _silent(rows)}
    return PaddedFolds(rows, labels, modalities, report)


def _silent(rows: list[Row]) -> list[str]:
    """Ids of the rows whose text is nothing but zeros while another modality has steps."""
    with_text = (row for row in rows if "text" in row.features)
    return [row.id for row in with_text if not row.features["text"].any() and any(map(len, row.features.values()))]


def _arrays(part: Mapping[str, Any], modalities: list[str], where: str) -> dict[str, np.ndarray]:
    arrays = {m: numbers(part[KEYS[m]], f"{where}, {KEYS[m]}", num_axes=3) for m in modalities}
    arrays["labels"] = numbers(part["labels"], f"{where}, labels")
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if "id" in part:
        counts["id"] = (
            len(part["id"]) if isinstance(part["id"], list | tuple | np.ndarray) and np.ndim(part["id"]) else 0
        )
    if len(set(counts.values())) != 1:
        raise DataError(f"{where}: as many labels, ids and rows of every modality are required, got {counts}.")
    return arrays


def _names(content: Mapping[str, Any], counts: Mapping[str, int]) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Video and segment of all rows; without ids each row is a video of its own."""
    if all("id" in content[fold] for fold in FOLDS):
        names, odd = segment_ids([raw for fold in FOLDS for raw in content[fold]["id"]])
        return names, {"ids": odd}
    alone = [(f"{fold}-{i}", 0) for fold in FOLDS for i in range(counts[fold])]
    return alone, {"ids": {"absent": len(alone)}}
