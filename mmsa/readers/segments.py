"""Computational sequences that CMU's SDK has aligned: each entry is an utterance, video[segment]."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import PAUSE, Prepared
from mmsa.errors import DataError
from mmsa.readers.rows import Utterance, float32, gather, labelled, sentiment_targets
from mmsa.readers.sequence_file import SequenceFile

_KEY = re.compile(r".+\[\d{1,9}\]")


def are_segments(opened: Mapping[str, SequenceFile], fold_of: Mapping[str, str]) -> bool:
    """Whether the entries of these sequences are utterances, and not videos.

    Raises:
        DataError: only those of some are.
    """
    sides: dict[bool, SequenceFile] = {}
    for sequence in opened.values():
        if sequence.videos:
            sides[all(_KEY.fullmatch(key) and key not in fold_of for key in sequence.videos)] = sequence
    if len(sides) > 1:
        raise DataError(
            f"{sides[True].path} has utterances such as {sides[True].videos[0]}, as the SDK aligns them, and "
            f"{sides[False].path} has videos such as {sides[False].videos[0]}.\n"
            "  type dataset.source=FOLDER of sequences that are all aligned, labels included, or none of them"
        )
    return True in sides


def read_segments(
    opened: Mapping[str, SequenceFile],
    fold_of: Mapping[str, str],
    keep_pauses: bool,
    label_columns: Sequence[str],
    pay: Callable[[float], None],
    progress: Progress,
) -> Prepared:
    """Read utterances as the SDK left them: nothing is aligned again, so each modality has the steps that it has.

    An utterance that one of the sequences lacks is dropped, as in the SDK. Modalities with one step per word in every
    utterance share the time axis of the words, and pauses are taken from them and the words alone.

    Args:
        opened: sequences by role: words, labels, and every modality.
        fold_of, keep_pauses, label_columns, progress: as of `read_sequences`.
        pay: called with the bytes that are kept; may raise.

    Raises:
        DataError: a file does not hold what its role states.
    """
    keys = opened["labels"].videos
    places = {key: key[:-1].rsplit("[", 1) for key in keys}
    chosen = [key for key in keys if places[key][0] in fold_of]
    videos = {video for video, _ in places.values()}
    report: dict[str, Any] = {"dropped": _lacking(opened, chosen)}
    lacking = {key for lost in report["dropped"].values() for key in lost}
    chosen = [key for key in chosen if key not in lacking]
    rows, labels = [], []
    for key in progress(chosen, "reading utterances", len(chosen)):
        _, of_key = opened["labels"].labels(key, label_columns)
        if len(of_key) != 1:
            raise DataError(
                f"{opened['labels'].path}: {key} needs one row of labels, got {len(of_key)}.\n"
                "  type dataset.source=FOLDER of sequences as the SDK's align() left them, or of those before it"
            )
        _, said = opened["words"].words(key)
        steps = {m: float32(sequence.frames(key)[1]) for m, sequence in opened.items() if m not in ("words", "labels")}
        pay(sum(features.nbytes for features in steps.values()) + sum(map(len, said)))
        video, segment = places[key]
        rows.append(Utterance(fold_of[video], video, int(segment), {}, steps, said))
        labels.append(of_key)
    rows = labelled(rows, targets_of(labels, label_columns, opened["labels"].path))
    if not keep_pauses:
        rows, report["pauses_removed"] = _without_pauses(rows)
    prepared = gather(rows, report)
    unknown = sorted(videos - set(fold_of))
    prepared.report["skipped_videos"] = {"in no fold": unknown} if unknown else {}
    prepared.report["fold_videos_absent"] = sorted(set(fold_of) - videos)
    return prepared


def targets_of(labels: Sequence[np.ndarray], columns: Sequence[str], path: Path) -> dict[str, np.ndarray]:
    """The labels of all videos, each (n, columns), as targets by name; without names as of `sentiment_targets`."""
    joined = np.concatenate(labels) if labels else np.zeros((0, len(columns) or 1), np.float32)
    return {name: joined[:, i] for i, name in enumerate(columns)} or sentiment_targets(joined, str(path))


def _lacking(opened: Mapping[str, SequenceFile], chosen: Sequence[str]) -> dict[str, list[str]]:
    """The utterances that a sequence lacks, each by the first one."""
    lacking: dict[str, list[str]] = {}
    left = list(chosen)
    for role, sequence in opened.items():
        held = set(sequence.videos)
        if lost := [key for key in left if key not in held]:
            lacking[f"absent from {role}"] = lost
            left = [key for key in left if key in held]
    return lacking


def _without_pauses(rows: Sequence[Utterance]) -> tuple[list[Utterance], int]:
    """The rows without the steps of pauses, and how many there were."""
    modalities = rows[0].features if rows else ()
    of_words = [m for m in modalities if all(len(row.features[m]) in (0, len(row.words or ())) for row in rows)]
    kept, removed = [], 0
    for row in rows:
        spoken = np.array([word != PAUSE for word in row.words or ()], dtype=bool)
        removed += int((~spoken).sum())
        words = [word for word in row.words or () if word != PAUSE]
        cut = {m: row.features[m][spoken] for m in of_words if len(row.features[m])}
        kept.append(replace(row, features={**row.features, **cut}, words=words))
    return kept, removed
