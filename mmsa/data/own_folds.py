"""Own folds: the videos of a store in parts, of which each in turn is the test fold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmsa.data.store import FOLDS, Parts, Store
from mmsa.errors import DataError


def own_folds(store: Store, num_folds: int | None, held_out: int | None) -> Store:
    """The store with these folds instead of its own: part `held_out` tests, the next one validates, the rest trains.

    The parts follow from the store's videos and their numbers of utterances alone, so every run, on any machine and
    with any seed, has the same ones.

    Args:
        store: the prepared data set, which stays as it is.
        num_folds: the number of parts, >= 3; None leaves the store its folds.
        held_out: 0 to num_folds - 1.

    Raises:
        DataError: there are fewer videos than parts.
    """
    if num_folds is None or held_out is None:
        return store
    part_of = parts_of(store.videos, num_folds)
    if len(part_of) < num_folds:
        so = f"type dataset.num_folds={len(part_of)}" if len(part_of) >= len(FOLDS) else "leave dataset.num_folds out"
        raise DataError(
            f"dataset.num_folds={num_folds} needs a video for each part, and {store.title} has {len(part_of)}.\n  {so}"
        )
    parts = np.array([part_of[video] for video in store.videos])  # (N,)
    folds = np.full(len(parts), "train")
    folds[parts == held_out] = "test"
    folds[parts == (held_out + 1) % num_folds] = "valid"
    report = {name: part for name, part in store.report.items() if name != "canonical"}  # sizes of the published folds
    return replace(store, folds=folds, parts=Parts(num_folds, held_out, _hash(part_of)), report=report)


def parts_of(videos: Sequence[str], num_folds: int) -> dict[str, int]:
    """Video -> its part: the largest video first, each into the part with the fewest utterances so far.

    Args:
        videos: the video of every utterance, in any order.
        num_folds: the number of parts.
    """
    sizes = [0] * num_folds
    part_of = {}
    counts = Counter(videos)
    for video in sorted(counts, key=lambda name: (-counts[name], _digest(name))):
        part_of[video] = part = sizes.index(min(sizes))
        sizes[part] += counts[video]
    return part_of


def own_folds_lines(store: Store) -> list[str]:
    """A line on the store's own folds, and one where videos are not known; none on the folds of its source."""
    parts = store.parts
    if parts is None:
        return []
    valid = (parts.held_out + 1) % parts.num_folds
    lines = [
        f"own folds by video: of parts 0 to {parts.num_folds - 1}, {parts.held_out} is the test fold and {valid} "
        f"validates (parts {parts.hash})"
    ]
    alone = sum(count == 1 for count in Counter(store.videos).values())
    odd = store.report.get("ids", {})
    unnamed = len(store.ids) if alone == len(store.ids) else odd.get("absent", 0) + odd.get("own_video", 0)
    if unnamed:
        lines.append(
            f"{unnamed:,} utterances are videos of their own, as far as the source says: "
            "one speaker may be in several parts"
        )
    return lines


def _hash(part_of: Mapping[str, int]) -> str:
    return _digest(json.dumps(sorted(part_of.items())))[:12]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
