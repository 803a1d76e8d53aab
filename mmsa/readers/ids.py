"""The names of utterances: every family writes video and segment in a way of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsa.errors import DataError

# The last underscore, since the name of a video may hold others.
_FORMS = (
    re.compile(r"(?P<video>.+)\$_\$(?P<segment>\d{1,9})"),
    re.compile(r"(?P<video>.+)\[(?P<segment>\d{1,9})\]"),
    re.compile(r"(?P<video>.+)_(?P<segment>\d{1,9})"),
)
_ACCEPTED = "video$_$3, video[3], video_3, or three fields of which the first is video_3"


def segment_ids(raws: Sequence[object]) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """Video and segment of all ids of a source.

    Three fields [video, start, end] name no segment: those of a video are numbered from 0 by start. They differ from
    [video_clip, start, end] in their first fields, which do not all end in a clip, or of which fewer than half are
    different. An id of no known form is a video of its own, of one segment.

    Args:
        raws: the ids of all folds together, since a video's segments are counted over all of them.

    Returns:
        The pairs in the order of the ids, and how many were numbered by start or stand alone, for the report.

    Raises:
        DataError: an id is empty, or its start is no number.
    """
    fields = [_fields(raw) for raw in raws]
    firsts = [entry[0] for entry in fields]
    split = [_split(name) for name in firsts]
    if any(len(entry) == 3 for entry in fields) and (None in split or 2 * len(set(firsts)) < len(firsts)):
        return _numbered(fields), {"numbered_by_start": len(fields)}
    alone = sum(pair is None for pair in split)
    pairs = [pair or (name, 0) for name, pair in zip(firsts, split, strict=True)]
    return pairs, {"own_video": alone} if alone else {}


def name_rows(folds: Mapping[str, Sequence[object]]) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """Video and segment of every row of a source; a row without an id is a video of its own, named by fold and place.

    Args:
        folds: the ids by fold; None where a row has none.

    Returns:
        The pairs, fold after fold, and counts as of `segment_ids`, with "absent" ids.

    Raises:
        DataError: as of `segment_ids`.
    """
    pairs = [(f"{fold}-{i}", 0) for fold, raws in folds.items() for i in range(len(raws))]
    flat = [raw for raws in folds.values() for raw in raws]
    there = [row for row, raw in enumerate(flat) if raw is not None]
    named, report = segment_ids([flat[row] for row in there])
    for row, pair in zip(there, named, strict=True):
        pairs[row] = pair
    absent = len(flat) - len(there)
    return pairs, report | ({"absent": absent} if absent else {})


def column(values: object, count: int, where: str) -> list[Any]:
    """One entry per row, of a list or an array; of a source that has none, None for each.

    Raises:
        DataError: it is no list and no array.
    """
    if values is None:
        return [None] * count
    if not isinstance(values, list | tuple | np.ndarray) or getattr(values, "ndim", 1) == 0:
        raise DataError(f"{where}: one entry per utterance is required, got {type(values).__name__}.")
    return list(values)


def as_text(entry: object) -> str:
    """A name or a word as text: bytes are UTF-8, also those that Python 2 wrote as a string, and 3.0 is 3."""
    if isinstance(entry, str) and not entry.isascii():
        try:
            return entry.encode("latin-1").decode("utf-8")  # which text of other origin hardly ever is by chance
        except ValueError:
            return str(entry)
    if isinstance(entry, bytes):
        return entry.decode("utf-8", errors="replace")
    return str(int(entry)) if isinstance(entry, float) and entry.is_integer() else str(entry)


def _numbered(fields: Sequence[list[str]]) -> list[tuple[str, int]]:
    seconds = [[_seconds(field) for field in entry[1:]] for entry in fields]
    counts: dict[str, int] = {}
    pairs: list[tuple[str, int]] = [("", 0)] * len(fields)
    for i in sorted(range(len(fields)), key=lambda row: (seconds[row], row)):
        video = fields[i][0]
        pairs[i] = (video, counts.get(video, 0))
        counts[video] = pairs[i][1] + 1
    return pairs


def _seconds(field: str) -> float:
    try:
        return float(field)
    except ValueError:
        raise DataError(f"an id [video, start, end] needs times in seconds, got {field!r}.") from None


def _split(name: str) -> tuple[str, int] | None:
    matched = next(filter(None, (form.fullmatch(name) for form in _FORMS)), None)
    return (matched["video"], int(matched["segment"])) if matched else None


def _fields(raw: object) -> list[str]:
    """One id as text: one field, or three."""
    entries = np.asarray(raw).ravel().tolist() if isinstance(raw, np.ndarray) else raw
    fields = [as_text(entry) for entry in (entries if isinstance(entries, list | tuple) else [entries])]
    if len(fields) not in (1, 3) or not fields[0]:
        raise DataError(f"an id such as {_ACCEPTED} is required, got {fields}.")
    return fields
