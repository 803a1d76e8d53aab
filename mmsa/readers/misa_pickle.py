"""Reader of the folders of MISA, BBFN and MMIM: train.pkl, dev.pkl and test.pkl, lists of samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import as_text
from mmsa.readers.restricted_pickle import load_pickle
from mmsa.readers.rows import FOLD_NAMES
from mmsa.readers.samples import Lexicon, is_samples, read_samples
from mmsa.readers.torch_file import load_torch

FAMILY = "MISA"
_VECTORS = "embedding_and_mapping.pt"


def find(folder: Path) -> dict[str, Path] | None:
    """The samples of every fold and, as "vectors", the file of word vectors where it is there; None without a fold."""
    found: dict[str, Path] = {}
    for fold, names in FOLD_NAMES.items():
        there = [folder / f"{name}.pkl" for name in names if (folder / f"{name}.pkl").is_file()]
        if not there:
            return None
        found[fold] = there[0]
    if (folder / _VECTORS).is_file():
        found["vectors"] = folder / _VECTORS
    return found


def read(files: Mapping[str, Path], options: ReadOptions, progress: Progress) -> Prepared:
    """Read the samples, and their text features where the file of word vectors is there."""
    folds: dict[str, Any] = {}
    for fold in FOLDS:
        samples = load_pickle(files[fold])
        if not is_samples(samples):
            raise DataError(
                f"{files[fold]}: MISA's layout, a list of ((words, visual, acoustic, words), label, segment), is "
                f"required; got {type(samples).__name__}."
            )
        folds[fold] = samples
    lexicon = _lexicon(files["vectors"]) if "vectors" in files else Lexicon()
    return read_samples(folds, lexicon, options, progress, FAMILY, _VECTORS)


def _lexicon(path: Path) -> Lexicon:
    """Vectors and words of embedding_and_mapping.pt, a pair (tensor (V, D), number by word)."""
    content = load_torch(path)
    table, mapping = content if isinstance(content, tuple | list) and len(content) == 2 else (None, None)
    if not isinstance(table, np.ndarray) or table.ndim != 2:
        raise DataError(f"{path}: a pair of a tensor (words, dimensions) and a table of words is required.")
    words = {int(number): as_text(word) for word, number in mapping.items()} if isinstance(mapping, dict) else None
    return Lexicon(table.astype(np.float32, copy=False), words)
