"""Reader of MAG's pickle: {train, dev, test} -> samples ((words, visual, acoustic), label, segment)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.errors import DataError
from mmsa.readers.family import ReadOptions
from mmsa.readers.ids import as_text
from mmsa.readers.restricted_pickle import load_pickle
from mmsa.readers.rows import by_fold
from mmsa.readers.samples import Lexicon, is_samples, read_samples

FAMILY = "MAG"
_WORDS = ("word2id.pickle", "word2id.pkl")


def matches(content: Any) -> bool:
    """Whether this is MAG's layout: lists of samples under train, dev (or valid) and test."""
    return _folds(content) is not None


def find(folder: Path) -> dict[str, Path] | None:
    """MAG's pickle and, as "words", the table of words beside it; None unless the folder holds these two alone."""
    words = [folder / name for name in _WORDS if (folder / name).is_file()]
    others = [p for p in sorted(folder.iterdir()) if p.suffix in (".pkl", ".pickle") and p.name not in _WORDS]
    return {"samples": others[0], "words": words[0]} if words and len(others) == 1 else None


def read(content_or_files: Any, options: ReadOptions, progress: Progress) -> Prepared:
    """Read the samples; the words need the table beside the pickle where the samples number them.

    Text has no features here, since MAG takes them from a pretrained model, which reads the words.
    """
    content, lexicon = content_or_files, Lexicon()
    if isinstance(content.get("samples"), Path):
        lexicon = _lexicon(content["words"])
        content = load_pickle(content_or_files["samples"])
    folds = _folds(content)
    if folds is None:
        raise DataError(
            "MAG's layout, a dictionary with train, dev and test, each a list of ((words, visual, acoustic), label, "
            f"segment), is required; got {type(content).__name__}."
        )
    return read_samples(folds, lexicon, options, progress, FAMILY)


def _folds(content: Any) -> dict[str, Any] | None:
    folds = by_fold(content)
    return folds if folds is not None and all(is_samples(samples) for samples in folds.values()) else None


def _lexicon(path: Path) -> Lexicon:
    mapping = load_pickle(path)
    if not isinstance(mapping, dict) or not all(type(number) is int for number in mapping.values()):
        raise DataError(f"{path}: a table of numbers by word is required, got {type(mapping).__name__}.")
    return Lexicon(words={number: as_text(word) for word, number in mapping.items()})
