"""Shared by the pickles of MMSA, MulT and MultiBench: {train, valid, test} -> padded text, audio, vision; id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import column, name_rows
from mmsa.readers.padding import PaddedFold, Side, padded_rows, strip_folds
from mmsa.readers.rows import Utterance, check_required, numbers

_IEMOCAP = (4, 2)
KEYS = {"text": "text", "audio": "audio", "visual": "vision"}


@dataclass(frozen=True)
class Fold:
    """One fold, all of the same rows.

    Args:
        ids: None where a row has none.
        padded: its modalities.
        words: of every row, None where the source does not say them.
        targets: by name.
    """

    ids: Sequence[object]
    padded: PaddedFold
    words: Sequence[list[str] | None]
    targets: Mapping[str, np.ndarray]


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


def held_modalities(content: Mapping[str, Any]) -> list[str]:
    """The modalities that every fold has."""
    return [m for m, key in KEYS.items() if all(key in content[fold] for fold in FOLDS)]


def padded_arrays(
    part: Mapping[str, Any], modalities: Sequence[str], counts: Mapping[str, int], where: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays (N, T, D) of a fold by modality, and the lengths (N,) of those whose rows had different ones.

    Args:
        part: the fold's dictionary.
        modalities: those that are read.
        counts: of the other entries of the fold.
        where: named in errors.

    Raises:
        DataError: there are not as many of everything.
    """
    rows = {m: padded_rows(part[KEYS[m]], f"{where}, {KEYS[m]}") for m in modalities}
    counts = {**counts, **{KEYS[m]: len(array) for m, (array, _) in rows.items()}}
    if len(set(counts.values())) != 1:
        raise DataError(f"{where}: as many ids, labels and rows of every modality are required, got {counts}.")
    return (
        {m: array for m, (array, _) in rows.items()},
        {m: lengths for m, (_, lengths) in rows.items() if lengths is not None},
    )


def strip_rows(
    folds: Mapping[str, Fold], progress: Progress, family: str, documented: Side
) -> tuple[list[Utterance], dict[str, Any]]:
    """The utterances of all folds without their padding, and the findings on padding and ids.

    Args:
        folds: by name.
        progress: shown per fold.
        family: named in it.
        documented: as of `strip_folds`.
    """
    names, odd = name_rows({name: fold.ids for name, fold in folds.items()})
    rows: list[Utterance] = []
    modalities = list(folds["train"].padded.filled)
    sides: dict[str, dict[str, str]] = {m: {} for m in modalities}
    beyond: dict[str, list[int]] = {m: [] for m in modalities}
    stripped = strip_folds([fold.padded for fold in folds.values()], documented)
    shown = progress(stripped, f"reading {family}'s pickle", len(folds))
    for (name, fold), cut in zip(folds.items(), shown, strict=True):
        for m in modalities:
            sides[m][name] = cut.sides[m]
            beyond[m] += cut.beyond[m].tolist()
        for i, words in enumerate(fold.words):
            targets = {target: labels[i] for target, labels in fold.targets.items()}
            rows.append(Utterance(name, *names[len(rows)], targets, {m: cut.steps[m][i] for m in modalities}, words))
    report = {"ids": odd, "padding": sides}
    if any(map(any, beyond.values())):
        touched = {m: [row.id for row, steps in zip(rows, beyond[m], strict=True) if steps] for m in modalities}
        report |= {"beyond_length": {m: sum(beyond[m]) for m in modalities}, "beyond_length_utterances": touched}
    return rows, report


def read_padded_folds(
    content: Mapping[str, Any], options: ReadOptions, progress: Progress, family: str
) -> tuple[list[Utterance], np.ndarray, dict[str, Any]]:
    """All utterances of MulT or MultiBench without targets, their labels (N, …) as in the file, and the report.

    A row whose text is nothing but zeros is kept, where another modality has steps, and named in the report.

    Raises:
        DataError: it is IEMOCAP's file, a required modality is missing, or the arrays do not fit together.
    """
    modalities = held_modalities(content)
    check_required(options.required, modalities, f"{family}'s pickle")
    labels, folds = [], {}
    for fold in FOLDS:
        part, where = content[fold], f"{family}'s pickle, fold {fold}"
        of_fold = numbers(part["labels"], f"{where}, labels")
        count = len(of_fold) if of_fold.ndim else 0
        ids = column(part.get("id"), count, f"{where}, id")
        arrays, lengths = padded_arrays(part, modalities, {"labels": count, "id": len(ids)}, where)
        folds[fold] = Fold(ids, PaddedFold(arrays, lengths, f"{where}, "), [None] * count, {})
        labels.append(of_fold)
    joined = _joined(labels, family)
    if joined.shape[1:] == _IEMOCAP:
        raise DataError(
            "this is MulT's IEMOCAP file: its labels are four emotions, each present or not, and no task predicts "
            "them. Give the file of CMU-MOSI or CMU-MOSEI."
        )
    rows, report = strip_rows(folds, progress, family, "left")
    with_text = (row for row in rows if "text" in row.features and any(map(len, row.features.values())))
    return rows, joined, report | {"text_all_zero": [row.id for row in with_text if not row.features["text"].any()]}


def _joined(labels: list[np.ndarray], family: str) -> np.ndarray:
    """The labels of all folds; axes of 1 that only some folds have do not matter."""
    there = [of_fold for of_fold in labels if len(of_fold)] or labels[:1]
    if len({of_fold.shape[1:] for of_fold in there}) > 1:
        there = [of_fold.reshape(len(of_fold), -1) for of_fold in there]
    if len({of_fold.shape[1:] for of_fold in there}) > 1:
        shapes = [of_fold.shape for of_fold in labels]
        raise DataError(f"{family}'s pickle: the labels of its folds differ in shape: {shapes}.")
    return np.concatenate(there)
