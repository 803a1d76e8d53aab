"""Whose videos a store holds, as far as the standard folds of CMU's data sets show."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mmsa.data.store import Store
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.dataset import Dataset
from mmsa.dataset.folds import standard_folds
from mmsa.dataset.pom import Pom
from mmsa.errors import DataError

_PUBLISHED: tuple[type[Dataset], ...] = (CmuMosi, CmuMosei, Pom)


def whose_videos(store: Store, dataset: Dataset) -> dict[str, Any] | None:
    """How many of its videos are in the published folds of its data set, and in those of others where none is.

    None where that cannot be known: nothing is published, or no id of the source states a video.
    """
    ids = store.report.get("ids", {})
    if not dataset.sdk_name or ids.get("absent", 0) + ids.get("own_video", 0) >= len(store.ids):
        return None
    videos = set(store.videos)
    with suppress(DataError):  # without mmsdk nothing is known
        own = len(videos & standard_folds(dataset.sdk_name, dataset.sdk_folds).keys())
        others = {
            other.name: len(videos & standard_folds(other.sdk_name, other.sdk_folds).keys())
            for other in _PUBLISHED
            if not own and other.sdk_name != dataset.sdk_name
        }
        return {
            "videos": len(videos),
            "published": own,
            "of_others": {name: count for name, count in others.items() if count},
            "examples": sorted(videos)[:3],
        }
    return None
