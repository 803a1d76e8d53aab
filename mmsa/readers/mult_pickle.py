"""Reader of MulT's pickles (mosi_data.pkl, mosei_senti_data_noalign.pkl): arrays padded on the left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.readers.family import ReadOptions
from mmsa.readers.padded_folds import fields_of_ids, holds_padded_folds, read_padded_folds
from mmsa.readers.rows import gather, sentiment_targets

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
