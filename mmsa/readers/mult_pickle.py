"""Reader of MulT's pickles (mosi_data.pkl, mosei_senti_data_noalign.pkl): arrays padded on the left."""

from __future__ import annotations

from typing import Any

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.readers.family import ReadOptions
from mmsa.readers.padded_folds import fields_of_ids, holds_padded_folds, read_padded_folds
from mmsa.readers.rows import gather, labelled, sentiment_targets

FAMILY = "MulT"


def matches(content: Any) -> bool:
    """Whether this is MulT's layout: padded folds whose ids have three fields, or none."""
    return holds_padded_folds(content) and fields_of_ids(content) in (3, None)


def read(content: Any, options: ReadOptions, progress: Progress) -> Prepared:
    """Read all of the pickle without its padding, aligned or not; IEMOCAP's is refused."""
    rows, labels, report = read_padded_folds(content, options, progress, FAMILY)
    return gather(labelled(rows, sentiment_targets(labels, f"{FAMILY}'s pickle")), report, folder=options.folder)
