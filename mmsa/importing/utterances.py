"""Which utterances of a store the ids of a file mean."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmsa.data.store import Store
from mmsa.errors import DataError
from mmsa.importing.sheet import shown
from mmsa.readers.ids import segment_ids

Place = tuple[str, int]
"""Video and segment."""
_NUM_NAMED = 3
_FEW = 2
"""Videos of which the first segments are not left out by chance."""


def rows_of(path: Path, ids: Sequence[str], store: Store) -> list[int]:
    """The row of the store that each id means: that of the id itself, or of the same video and segment.

    The files of the field write an id as `video[3]`, `video$_$3` or `video_3`.

    Args:
        path: of the file, for messages.
        ids: N of them.
        store: the prepared data set.

    Raises:
        DataError: an id means no utterance, or several, or the file counts segments from another number.
    """
    if "" in ids:
        raise DataError(
            f"{path}: {ids.count('')} of its {len(ids)} lines have no id.\n  write the utterance's id there"
        )
    times = Counter(store.ids)
    exact = {name: row for row, name in enumerate(store.ids)}
    places = segment_ids(store.ids)[0]
    several = Counter(places)
    by_place = {place: row for row, place in enumerate(places) if several[place] == 1}
    asked = segment_ids(ids)[0]
    if not set(ids) & exact.keys():
        _check_first(path, asked, places, store)
    rows = [exact.get(name, by_place.get(place)) for name, place in zip(ids, asked, strict=True)]
    unknown = list(dict.fromkeys(name for name, row in zip(ids, rows, strict=True) if row is None))
    if unknown:
        counted = f"{len(unknown):,} of {len(set(ids)):,} ids are"
        raise DataError(
            f"{path}: {counted} none of {store.title}: {some(unknown)}.\n  write the ids of the data set: "
            + "; ".join(_nearest(name, store.ids) for name in unknown[:_NUM_NAMED])
        )
    if twice := [name for name in dict.fromkeys(ids) if times[name] > 1]:
        raise DataError(
            f"{path}: the data set has several utterances of {len(twice)} of these ids: {some(twice)}.\n"
            "  give each utterance an id of its own in its source, and prepare it again"
        )
    return [row for row in rows if row is not None]


def _check_first(path: Path, asked: Sequence[Place], places: Sequence[Place], store: Store) -> None:
    """Refuse ids that count the segments of a video from 1 where the data count from 0: they name the next ones.

    A part of a fold may have neither first nor last segments, and would be taken for others.
    """
    known, videos = set(places), {video for video, _ in asked}
    first = [video for video in videos if (video, 0) in known]
    shifted = all(segment and (video, segment - 1) in known for video, segment in asked)
    if len(first) >= _FEW and shifted:
        raise DataError(
            f"{path}: its ids count the segments of each video from 1, those of {store.title} from 0.\n"
            "  name the source that the system read, with --source, or write the ids of these data, as in "
            f"{shown(store.ids[0])}"
        )


def some(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _NUM_NAMED:,} more" if len(listed) > _NUM_NAMED else ""
    return ", ".join(map(shown, listed[:_NUM_NAMED])) + more


def check_once(path: Path, ids: Sequence[str], rows: Sequence[int], seeds: Mapping[int, Sequence[int]]) -> None:
    """Check that each utterance has one line per seed.

    Args:
        path, ids: as above.
        rows: as of `rows_of`.
        seeds: seed -> its lines.

    Raises:
        DataError: one has several.
    """
    for seed, lines in seeds.items():
        times = Counter(rows[line] for line in lines)
        twice = list(dict.fromkeys(ids[line] for line in lines if times[rows[line]] > 1))
        if twice:
            of_seed = "" if len(seeds) == 1 else f" of seed {seed}"
            say = "leave one line each" if len(seeds) > 1 else "leave one line each, or add a column seed"
            raise DataError(f"{path}: {len(twice):,} ids{of_seed} stand in several lines: {some(twice)}.\n  {say}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """An unknown id beside the one of the data set that is like it."""
    close = difflib.get_close_matches(name[:100], known, n=1)
    return f"{shown(name)} may be {shown(close[0])}" if close else f"{shown(name)}, as in {shown(known[0])}"
