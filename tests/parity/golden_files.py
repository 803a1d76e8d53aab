"""What a golden file is: read from the `config` in it, whatever its name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np

METHODS_TO_COME = ("zoo_*", "face_*")
"""Names of files of methods that are not built yet; the issue that builds a method takes its files off this list."""

KINDS: dict[str, frozenset[str]] = {
    "trajectory": frozenset({"epochs", "clip_value", "model"}),
    "masking statistics": frozenset({"cases", "columns"}),
    "metrics": frozenset({"label_step"}),
    "misalatch": frozenset({"use_cmd_sim", "branch"}),
    "misa": frozenset({"use_cmd_sim"}),
    "slp": frozenset({"modality_feature_sizes"}),
    "classifier": frozenset({"num_classes", "attention", "bidirectional"}),
    "recurrent encoder": frozenset({"input_size", "return_hidden"}),
    "attention fusion": frozenset({"proj_sz"}),
    "feedback": frozenset({"mask_type", "mod2_sz"}),
    "feedback unit": frozenset({"mask_type", "mod1_sz"}),
}
"""Kind of file -> keys of its `config`; a file is of the first kind whose keys it has."""


@cache
def kind_of(path: Path) -> str | None:
    """The kind of a file, None for one that no test knows."""
    with np.load(path, allow_pickle=False) as arrays:
        stated = json.loads(str(arrays["config"])).keys() if "config" in arrays else ()
    return next((kind for kind, keys in KINDS.items() if keys <= set(stated)), None)


def golden_files(folder: Path, kinds: Iterable[str]) -> list[Path]:
    """The files of a folder that are of one of the kinds, sorted."""
    return [path for path in sorted(folder.glob("*.npz")) if kind_of(path) in set(kinds)]


def unknown_files(folder: Path) -> list[str]:
    """The names of a folder's files that no test knows, those of methods to come aside."""
    return [
        path.name
        for path in sorted(folder.glob("*.npz"))
        if kind_of(path) is None and not any(fnmatch(path.name, pattern) for pattern in METHODS_TO_COME)
    ]
