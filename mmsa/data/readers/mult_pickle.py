"""Reader of MulT's pickles (mosi_data.pkl, mosei_senti_data_noalign.pkl): arrays padded on the left."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmsa.data.prepare import Progress
from mmsa.data.readers.padded_folds import fields_of_ids, holds_padded_folds, read_padded_folds
from mmsa.data.readers.rows import gather, sentiment_targets
from mmsa.data.store import Prepared

if TYPE_CHECKING:
    from mmsa.data.readers.families import ReadOptions

FAMILY = "MulT"


def matches(content: Any) -> bool:
    """Whether this is MulT's layout: padded folds whose ids have three fields, or none."""
    return holds_padded_folds(content) and fields_of_ids(content) in (3, None)


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
    targets = sentiment_targets(found.labels, f"{FAMILY}'s pickle")
    rows = [replace(row, targets={name: t[i] for name, t in targets.items()}) for i, row in enumerate(found.rows)]
    return gather(rows, found.modalities, found.report)
