"""What the rows of a source have to be before they become a store of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError

_DATASET_OF = {"sentiment": "cmu_mosi, or cmu_mosei", "humor": "ur_funny", "sarcasm": "mustard"}
"""Where files go, by their target."""


def check_target(prepared: Prepared, target: str, source: Path, title: str) -> None:
    """Refuse a file of another data set.

    Args:
        prepared: what was read of it.
        target: the main one of the data set.
        source: named in the message.
        title: of the data set.

    Raises:
        DataError: the target is not there.
    """
    if target in prepared.targets:
        return
    held = next(iter(prepared.targets))
    other = _DATASET_OF.get(held, "custom, with a file of named arrays: docs/custom_data.md")
    raise DataError(
        f"dataset.source={source} is {prepared.report['family']}'s layout with labels of {held}, and those of {title} "
        f"are of {target}.\n  type dataset={other}"
    )


def check_words(prepared: Prepared, source: Path) -> None:
    """Refuse rows whose steps are not one per word, where GloVe's vectors are to be their text.

    Raises:
        DataError: they are not.
    """
    said = None if prepared.words is None else [len(words) for words in prepared.words]
    if any(ragged.lengths.tolist() != said for ragged in prepared.features.values()):
        raise DataError(
            f"dataset.glove needs the word of every step, and {source} is a pickle, which does not say it.\n"
            "  type dataset.glove=null, or dataset.source=FOLDER of computational sequences (.csd)"
        )


def check_folds(utterances: Mapping[str, int], source: Path, title: str, wanted: str) -> None:
    """Refuse rows that leave a fold empty.

    Args:
        utterances: number per fold.
        source: named in the message.
        title: of the data set.
        wanted: what it is read from, and what to type.

    Raises:
        DataError: one is.
    """
    for fold in FOLDS:
        if not utterances[fold]:
            raise DataError(
                f"dataset.source={source}: the {fold} fold of {title} is empty; each of {', '.join(FOLDS)} needs an "
                f"utterance.\n{wanted}"
            )


def check_labels(prepared: Prepared, target: str, bound: tuple[float, float], source: Path, title: str) -> None:
    """Refuse labels of another scale.

    Args:
        prepared: what was read.
        target: the main one of the data set.
        bound: the smallest and the largest label that there may be.
        source: named in the message.
        title: of the data set.

    Raises:
        DataError: some lie beyond.
    """
    labels, (low, high) = prepared.targets[target], bound
    refused = (labels < low - 1e-6) | (labels > high + 1e-6)
    if refused.any():
        first = int(refused.argmax())
        raise DataError(
            f"dataset.source={source}: {int(refused.sum())} labels lie outside [{low:g}, {high:g}], the bound of "
            f"{title}; the first is {labels[first]:g} of {prepared.ids[first]}. Is it another data set's file?"
        )
