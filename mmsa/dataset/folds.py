"""The standard folds of CMU's data sets, as the mmsdk package lists them."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsa.data.store import FOLDS
from mmsa.errors import DataError
from mmsa.program import program

# The packaged train list of MOSEI has 2,250 ids, one more than the official 2,249.
_NOT_STANDARD = {"CMU_MOSEI": {"-NFrJFQijFE"}}


def standard_folds(dataset: str, num_videos: Mapping[str, int]) -> dict[str, str]:
    """Fold (train, valid, test) of every video of a data set.

    Args:
        dataset: mmsdk's name of it, CMU_MOSI or CMU_MOSEI.
        num_videos: how many videos each fold must have.

    Raises:
        DataError: mmsdk is not installed, or its lists are not the standard ones.
    """
    lists = mmsdk_names(dataset, f"{dataset.lower()}_std_folds.py")
    fold_of: dict[str, str] = {}
    for fold in FOLDS:
        videos = set(lists[f"standard_{fold}_fold"]) - _NOT_STANDARD.get(dataset, set())
        if len(videos) != num_videos[fold] or videos & fold_of.keys():
            raise DataError(
                f"mmsdk lists {len(videos)} videos in the {fold} fold of {dataset}, {num_videos[fold]} of its own are "
                f"required. Type: {program('pip')} install cmu-multimodal-sdk==0.0.6"
            )
        fold_of.update(dict.fromkeys(videos, fold))
    return fold_of


def mmsdk_names(dataset: str, file: str) -> dict[str, Any]:
    """What a file of mmsdk's about a data set defines, run alone: importing mmsdk itself loads torch and prints.

    Raises:
        DataError: mmsdk is not installed.
    """
    package = importlib.util.find_spec("mmsdk")
    for root in list(package.submodule_search_locations or ()) if package is not None else []:
        path = Path(root, "mmdatasdk", "dataset", "standard_datasets", dataset, file)
        if path.is_file():
            return runpy.run_path(str(path))
    raise DataError(
        f"The standard folds and addresses of {dataset} come with mmsdk. "
        f"Type: {program('pip')} install cmu-multimodal-sdk==0.0.6"
    )
