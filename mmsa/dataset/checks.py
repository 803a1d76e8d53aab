"""What the rows of a source have to be before they become a store of a data set."""

from __future__ import annotations

from pathlib import Path

from mmsa.data.store import FOLDS, Prepared
from mmsa.errors import DataError


def check_folds(prepared: Prepared, source: Path, title: str, wanted: str) -> None:
    """Refuse rows that leave a fold empty; `wanted` says what to type then."""
    for fold in FOLDS:
        if not prepared.report["utterances"][fold]:
            raise DataError(
                f"dataset.source={source}: the {fold} fold of {title} is empty; each of {', '.join(FOLDS)} needs an "
                f"utterance.\n{wanted}"
            )


def check_labels(prepared: Prepared, target: str, bound: tuple[float, float], source: Path, title: str) -> None:
    """Refuse labels beyond the smallest and the largest that there may be."""
    labels, (low, high) = prepared.targets[target], bound
    refused = (labels < low - 1e-6) | (labels > high + 1e-6)
    if refused.any():
        first = int(refused.argmax())
        raise DataError(
            f"dataset.source={source}: {int(refused.sum())} labels lie outside [{low:g}, {high:g}], the bound of "
            f"{title}; the first is {labels[first]:g} of {prepared.ids[first]}. Is it another data set's file?"
        )
