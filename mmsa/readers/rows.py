"""Utterances one by one, as most families hold them: ordered, repaired, counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.naming import EMOTIONS
from mmsa.data.ragged import Ragged, offsets_of, release
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.ids import as_text
from mmsa.readers.spool import Held, Spool

MODALITIES = ("text", "audio", "visual")
FOLD_NAMES = {"train": ("train",), "valid": ("valid", "dev", "val", "validation"), "test": ("test",)}
"""The names of the folds, ours first."""
# Chinese has no spaces between words: each character stands for itself, as in BERT's own tokeniser.
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\s\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_SHOWN = 3
_BLOCK = 1 << 22  # bytes of joined steps


@dataclass(frozen=True)
class Utterance:
    """One utterance.

    Args:
        fold: train, valid or test.
        video: its video.
        segment: its place in the video, counted as in the source.
        targets: one number or one vector each.
        features: (T, D) numbers per modality, float32 in the store; no steps where the modality is absent.
        words: None where the source lacks them.
        name: its id where the source gives one of another form.
    """

    fold: str
    video: str
    segment: int
    targets: Mapping[str, Any]
    features: Mapping[str, np.ndarray]
    words: list[str] | None = None
    name: str = ""

    @property
    def id(self) -> str:
        return self.name or f"{self.video}[{self.segment}]"


def gather(
    rows: Iterable[Utterance], report: Mapping[str, Any], held: Sequence[str] = (), folder: Path | None = None
) -> Prepared:
    """All rows by fold, video and segment; values that are not finite become 0 and are counted.

    Rows without steps in any modality, and without words, are dropped, as are those whose label is not finite. A
    modality without a step in any row is left out, and so is one whose rows differ in width, which the report explains.

    Args:
        rows: of all folds, with the same targets and modalities each.
        report: what the reader counted; extended.
        held: modalities that are never left out, whose width the rows say also where they have no step.
        folder: has room for the features until they are in the store; None holds them in memory.

    Raises:
        DataError: there are no rows, they differ in width in every modality, or those of the folds in labels.
    """
    dropped = {reason: [*ids] for reason, ids in report.get("dropped", {}).items()}
    kept = _usable(rows, dropped)
    features, non_finite, touched = {}, {}, {}
    silent = [m for m in kept[0].features if m not in held and not any(row.features[m].size for row in kept)]
    uneven = {m: odd for m in kept[0].features if (odd := _odd_widths(kept, m))}
    if uneven and len(uneven) + len(silent) == len(kept[0].features):
        odd = "; ".join(f"{modality} {odd}" for modality, odd in uneven.items())
        raise DataError(f"{odd}.\n  type dataset.source=FILE in which each modality has as many features everywhere")
    for modality in (m for m in kept[0].features if m not in silent and m not in uneven):
        features[modality], non_finite[modality], mended = _joined(kept, modality, folder)
        touched[modality] = [kept[row].id for row in mended]
    words = [row.words or [] for row in kept]
    return Prepared(
        ids=[row.id for row in kept],
        videos=[row.video for row in kept],
        folds=[row.fold for row in kept],
        targets={name: np.array([row.targets[name] for row in kept], dtype=np.float32) for name in kept[0].targets},
        features=features,
        words=None if all(row.words is None for row in kept) else words,
        report={
            **report,
            "dropped": dropped,
            "non_finite": non_finite,
            "non_finite_utterances": touched,
            **({"without_steps": silent} if silent else {}),
            **({"uneven": uneven} if uneven else {}),
        },
    )


def _usable(rows: Iterable[Utterance], dropped: dict[str, list[str]]) -> list[Utterance]:
    """The rows that are kept, in their order; adds to the dropped ones."""
    kept = []
    for row in sorted(rows, key=lambda row: (FOLDS.index(row.fold), row.video, row.segment)):
        if not any(map(len, row.features.values())) and not (row.words and not row.features):
            dropped.setdefault("no steps", []).append(row.id)
        elif not all(np.isfinite(target).all() for target in row.targets.values()):
            dropped.setdefault("label not finite", []).append(row.id)
        else:
            kept.append(row)
    if not kept:
        counts = ", ".join(f"{reason} {len(ids)}" for reason, ids in dropped.items())
        raise DataError(f"no utterance is left; dropped: {counts or 'none, since there were none'}.")
    columns = sorted({", ".join(row.targets) for row in kept})
    if len(columns) > 1:
        raise DataError(f"the same labels are required in every fold, got {' and '.join(columns)}.")
    return kept


def labelled(rows: Sequence[Utterance], targets: Mapping[str, np.ndarray]) -> list[Utterance]:
    """The rows with these targets, of which each has a label per row."""
    return [replace(row, targets={name: labels[i] for name, labels in targets.items()}) for i, row in enumerate(rows)]


def by_fold(content: object) -> dict[str, Any] | None:
    """The train, valid and test folds of a dictionary, under any of their names; None where one is missing."""
    named = {as_text(name).lower(): part for name, part in content.items()} if isinstance(content, dict) else {}
    found = {fold: named[name] for fold in FOLDS for name in reversed(FOLD_NAMES[fold]) if name in named}
    return found if len(found) == len(FOLDS) else None


def words_said(said: object) -> list[str] | None:
    """The words of a sentence, of several, or of a list of words; None without any."""
    parts = said.ravel().tolist() if isinstance(said, np.ndarray) else said
    if isinstance(parts, list | tuple):
        return [word for part in parts for word in words_said(part) or []]
    return _WORD.findall(as_text(parts)) if isinstance(parts, str | bytes) else None


def sentiment_targets(labels: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Labels (N, 1) or (N, 7), with any axes of 1 -> "sentiment" (N,), and of seven columns "emotions" (N, 6).

    Raises:
        DataError: there is another number of columns.
    """
    columns = labels.reshape(len(labels), -1) if labels.size else labels.reshape(len(labels), 1)
    if columns.shape[1] not in (1, 1 + len(EMOTIONS)):
        raise DataError(
            f"{where}: 1 label column, or 7 (sentiment and six emotions), is required, got labels {labels.shape}."
        )
    targets = {"sentiment": columns[:, 0]}
    if columns.shape[1] > 1:
        targets["emotions"] = columns[:, 1:]
    return targets


def numbers(values: object, where: str, num_axes: int | None = None) -> np.ndarray:
    """`values` as an array of numbers.

    Args:
        values: an array, or lists.
        where: what they are, for the message.
        num_axes: how many axes are required; None takes any.

    Raises:
        DataError: they are no numbers, or have other axes.
    """
    try:
        array = np.asarray(values)
        if array.dtype.hasobject:  # of arrays, which numpy leaves as they are
            array = np.asarray(array.tolist())
        if array.dtype.kind not in "fiub":
            array = float32(array)
    except (TypeError, ValueError, OverflowError) as error:
        reason = "its rows differ in shape" if "inhomogeneous" in str(error) else str(error).splitlines()[0]
        raise DataError(f"{where} must hold numbers ({reason}).") from error
    if num_axes is not None and array.ndim != num_axes:
        raise DataError(f"{where}: an array of {num_axes} axes is required, got shape {array.shape}.")
    return array


def as_steps(values: object, where: str) -> np.ndarray:
    """`values` as (T, D) float32, None as no steps; values beyond float32 become infinite, which `gather` counts.

    Raises:
        DataError: they are no numbers, or not of two axes.
    """
    array = numbers([] if values is None else values, where)
    if not array.size and array.ndim < 2:  # an empty list of steps says no width
        array = array.reshape(0, 0)
    return float32(numbers(array, where, num_axes=2))


def float32(values: np.ndarray) -> np.ndarray:
    """`values` as float32; values beyond it become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float32, copy=False)


def check_required(required: Sequence[str], held: Sequence[str], where: str) -> None:
    """Refuse a source that lacks a modality of the run.

    Raises:
        DataError: it does; the message names the modalities to go without.
    """
    lacking = [modality for modality in required if modality not in held]
    if lacking:
        left = [modality for modality in required if modality in held] or list(held)
        without = f"\n  type dataset.modalities=[{','.join(left)}]" if left else ""
        raise DataError(f"{where} has no {', '.join(lacking)}.{without}")


def _joined(rows: Sequence[Utterance], modality: str, folder: Path | None) -> tuple[Ragged, int, list[int]]:
    """The steps of all rows, values that are not finite set to 0; the number of those, and the rows that had them."""
    sequences = [row.features[modality] for row in rows]
    width = next((steps.shape[1] for steps in sequences if len(steps)), sequences[0].shape[1])
    offsets = offsets_of([len(steps) for steps in sequences])
    wrong_steps = np.zeros(offsets[-1], dtype=bool)
    num_wrong = 0
    with Spool(folder) if folder else Held(int(offsets[-1])) as kept:
        kept.append(np.zeros((0, width), np.float32))
        block = offsets[:-1] // max(1, _BLOCK // max(1, 4 * width))
        for places in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(block)) + 1):
            parts = [float32(sequences[place]) for place in places if len(sequences[place])]
            if parts:
                values = np.concatenate(parts)
                wrong = ~np.isfinite(values)
                values[wrong] = 0.0
                num_wrong += int(wrong.sum())
                wrong_steps[offsets[places[0]] : offsets[places[-1] + 1]] = wrong.any(axis=1)
                kept.append(values)
                release(sequences[places[0]])
        ragged = Ragged(kept.array(), offsets)
    return ragged, num_wrong, np.flatnonzero(ragged.touched(wrong_steps)).tolist()


def _odd_widths(rows: Sequence[Utterance], modality: str) -> str:
    """Which rows have another number of features than most have; empty where none has."""
    widths = [(row, row.features[modality].shape[1]) for row in rows if len(row.features[modality])]
    counts = Counter(width for _, width in widths)
    if len(counts) < 2:
        return ""
    usual = counts.most_common(1)[0][0]
    odd = [(row, width) for row, width in widths if width != usual]
    folds = ", ".join(dict.fromkeys(row.fold for row, _ in odd))
    named = ", ".join(f"{row.id} has {width}" for row, width in odd[:_SHOWN])
    more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
    return f"has {usual} features per step in {counts[usual]} utterances; others, all in {folds}, differ: {named}{more}"
