"""The layout that MulT and MultiBench share: {train, valid, test} -> padded arrays text, audio, vision; labels, id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import column, name_rows
from mmsa.readers.padding import PaddedFold, padded_rows, strip_folds
from mmsa.readers.rows import Utterance, check_required, numbers

_IEMOCAP = (4, 2)
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

    rows: list[Utterance]
    labels: np.ndarray
    modalities: list[str]
    report: dict[str, Any]


def holds_padded_folds(content: Any) -> bool:
    """Whether this is {train, valid, test} -> {labels, and a modality}."""
    if not isinstance(content, dict) or not all(isinstance(content.get(fold), dict) for fold in FOLDS):
        return False
    return all("labels" in content[fold] and content[fold].keys() & set(KEYS.values()) for fold in FOLDS)


def fields_of_ids(content: Mapping[str, Any]) -> int | None:
    """How many fields an id has, by the first that there is; None where the file has none."""
    for fold in FOLDS:
        ids = content[fold].get("id")
        if isinstance(ids, list | tuple | np.ndarray) and np.iterable(ids) and len(ids):
            return len(ids[0]) if isinstance(ids[0], list | tuple) else int(np.size(ids[0]))
    return None


def read_padded_folds(content: Mapping[str, Any], options: ReadOptions, progress: Progress, family: str) -> PaddedFolds:
    """Strip the padding of every modality; both families pad on the left.

    A row whose text is nothing but zeros is kept, where another modality has steps, and named in the report.

    Args:
        content: of which `holds_padded_folds`.
        options: which modalities have to be there.
        progress: shown per fold.
        family: named in errors.

    Raises:
        DataError: it is IEMOCAP's file, a required modality is missing, or the arrays do not fit together.
    """
    modalities = [m for m, key in KEYS.items() if all(key in content[fold] for fold in FOLDS)]
    check_required(options.required, modalities, f"{family}'s pickle")
    labels, ids, folds = [], {}, []
    for fold in FOLDS:
        of_fold, ids[fold], padded = _checked(content[fold], modalities, f"{family}'s pickle, fold {fold}")
        labels.append(of_fold)
        folds.append(padded)
    joined = _joined(labels, family)
    if joined.shape[1:] == _IEMOCAP:
        raise DataError(
            "this is MulT's IEMOCAP file: its labels are four emotions, each present or not, and no task predicts "
            "them. Give the file of CMU-MOSI or CMU-MOSEI."
        )
    names, odd = name_rows(ids)
    rows: list[Utterance] = []
    sides: dict[str, dict[str, str]] = {modality: {} for modality in modalities}
    stripped = progress(strip_folds(folds, documented="left"), f"reading {family}'s pickle", len(FOLDS))
    for fold, cut in zip(FOLDS, stripped, strict=True):
        for modality in modalities:
            sides[modality][fold] = cut.sides[modality]
        for i in range(len(ids[fold])):
            rows.append(Utterance(fold, *names[len(rows)], {}, {m: cut.steps[m][i] for m in modalities}))
    report = {"ids": odd, "padding": sides, "text_all_zero": _silent(rows)}
    return PaddedFolds(rows, joined, modalities, report)


def _silent(rows: list[Utterance]) -> list[str]:
    """Ids of the rows whose text is nothing but zeros while another modality has steps."""
    with_text = (row for row in rows if "text" in row.features)
    return [row.id for row in with_text if not row.features["text"].any() and any(map(len, row.features.values()))]


def _checked(part: Mapping[str, Any], modalities: list[str], where: str) -> tuple[np.ndarray, list[Any], PaddedFold]:
    """Labels, ids and modalities of a fold, of which there are as many."""
    labels = numbers(part["labels"], f"{where}, labels")
    rows = {m: padded_rows(part[KEYS[m]], f"{where}, {KEYS[m]}") for m in modalities}
    counts = {"labels": len(labels) if labels.ndim else 0} | {m: len(array) for m, (array, _) in rows.items()}
    ids = column(part.get("id"), counts["labels"], f"{where}, id")
    counts["id"] = len(ids)
    if len(set(counts.values())) != 1:
        raise DataError(f"{where}: as many labels, ids and rows of every modality are required, got {counts}.")
    lengths = {m: own for m, (_, own) in rows.items() if own is not None}
    return labels, ids, PaddedFold({m: array for m, (array, _) in rows.items()}, lengths, f"{where}, ")


def _joined(labels: list[np.ndarray], family: str) -> np.ndarray:
    """The labels of all folds; axes of 1 that only some folds have do not matter."""
    there = [of_fold for of_fold in labels if len(of_fold)] or labels[:1]
    if len({of_fold.shape[1:] for of_fold in there}) > 1:
        there = [of_fold.reshape(len(of_fold), -1) for of_fold in there]
    if len({of_fold.shape[1:] for of_fold in there}) > 1:
        shapes = [of_fold.shape for of_fold in labels]
        raise DataError(f"{family}'s pickle: the labels of its folds differ in shape: {shapes}.")
    return np.concatenate(there)
