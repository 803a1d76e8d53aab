"""Reader of MulT's pickles (mosi_data.pkl, mosei_senti_data_noalign.pkl): arrays padded on the left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmsa.data.prepare import Progress
from mmsa.data.readers.padded_folds import holds_padded_folds, ids_of, read_padded_folds
from mmsa.data.readers.rows import gather, sentiment_targets
from mmsa.data.store import Prepared
from mmsa.errors import DataError

if TYPE_CHECKING:
    from mmsa.data.readers.families import ReadOptions

FAMILY = "MulT"
_IEMOCAP = (4, 2)


def matches(content: Any) -> bool:
    """Whether this is MulT's layout: padded folds whose ids have three fields, or none."""
    if not holds_padded_folds(content):
        return False
    ids = ids_of(content)
    return ids is None or (ids.ndim == 2 and ids.shape[1] == 3)


def read(content: Any, options: ReadOptions, progress: Progress) -> Prepared:
    """Read all of the pickle without its padding, aligned or not.

    Args:
        content: of which `matches`.
        options: which modalities have to be there.
        progress: shown per fold.

    Raises:
        DataError: it is IEMOCAP's file, a required modality is missing, or the arrays do not fit together.
    """
    found = read_padded_folds(content, options, progress, FAMILY)
    if found.labels.shape[1:] == _IEMOCAP:
        raise DataError(
            "this is MulT's IEMOCAP file: its labels are four emotions, each present or not, and no task predicts "
            "them. Give the file of CMU-MOSI or CMU-MOSEI."
        )
    targets = sentiment_targets(found.labels, f"{FAMILY}'s pickle")
    rows = [replace(row, targets={name: t[i] for name, t in targets.items()}) for i, row in enumerate(found.rows)]
    return gather(rows, found.modalities, found.report)
