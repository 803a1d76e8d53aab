"""The standard folds of CMU's data sets, as the mmsdk package lists them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from mmsa.data.store import FOLDS
from mmsa.errors import DataError

# The packaged train list of MOSEI has 2,250 ids, one more than the official 2,249.
_NOT_STANDARD = {"CMU_MOSEI": {"-NFrJFQijFE"}}


def standard_folds(dataset: str, num_videos: dict[str, int]) -> dict[str, str]:
    """Fold (train, valid, test) of every video of a data set.

    Args:
        dataset: mmsdk's name of it, CMU_MOSI or CMU_MOSEI.
        num_videos: how many videos each fold must have.

    Raises:
        DataError: mmsdk is not installed, or its lists are not the standard ones.
    """
    lists = _fold_lists(dataset)
    fold_of: dict[str, str] = {}
    for fold in FOLDS:
        videos = set(getattr(lists, f"standard_{fold}_fold")) - _NOT_STANDARD.get(dataset, set())
        if len(videos) != num_videos[fold] or videos & fold_of.keys():
            raise DataError(
                f"mmsdk lists {len(videos)} videos in the {fold} fold of {dataset}, {num_videos[fold]} of its own are "
                "required. Type: pip install cmu-multimodal-sdk==0.0.6"
            )
        fold_of.update(dict.fromkeys(videos, fold))
    return fold_of


def _fold_lists(dataset: str) -> ModuleType:
    """The module of fold lists, loaded by its path: importing mmsdk itself loads torch and prints."""
    package = importlib.util.find_spec("mmsdk")
    roots = list(package.submodule_search_locations or ()) if package is not None else []
    for root in roots:
        path = Path(root, "mmdatasdk", "dataset", "standard_datasets", dataset, f"{dataset.lower()}_std_folds.py")
        spec = importlib.util.spec_from_file_location(f"_folds_of_{dataset.lower()}", path)
        if path.is_file() and spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise DataError(f"The standard folds of {dataset} come with mmsdk. Type: pip install cmu-multimodal-sdk==0.0.6")
