"""Reader of MultiBench's pickles (mosi_raw.pkl, mosei_raw.pkl, humor.pkl, sarcasm.pkl): arrays padded on the left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mmsa.data.prepare import Progress
from mmsa.data.store import Prepared
from mmsa.readers.family import ReadOptions
from mmsa.readers.padded_folds import fields_of_ids, holds_padded_folds, read_padded_folds
from mmsa.readers.rows import Utterance, gather, labelled, sentiment_targets

FAMILY = "MultiBench"
_MUSTARD = re.compile(r"\d+_\d+\D*")
"""Ids of MUStARD, such as 1_60; those of UR-FUNNY are numbers."""


def matches(content: Any) -> bool:
    """Whether this is MultiBench's layout: padded folds whose ids have one field."""
    return holds_padded_folds(content) and fields_of_ids(content) not in (3, None)


def read(content: Any, options: ReadOptions, progress: Progress) -> Prepared:
    """Read all of the pickle without its padding.

    Labels of two values (0 and 1, or -1 and 1) under ids that name no video are UR-FUNNY's, "humor", or MUStARD's,
    "sarcasm": 0 and 1 in the store. All others are sentiments, with the emotions where there are seven columns.

    MultiBench's own loader deletes the rows whose text is all zero. They are kept here, where another modality has
    steps, and named in the report, so that the counts are those of the file.

    """
    rows, labels, report = read_padded_folds(content, options, progress, FAMILY)
    name = _binary_target(rows, labels)
    if name is None:
        targets = sentiment_targets(labels, f"{FAMILY}'s pickle")
    else:
        targets = {name: (labels.reshape(-1) > 0).astype(np.float32)}
    if name == "sarcasm":  # neither number of an id names a video
        rows = [
            replace(row, video=f"{row.video}_{row.segment}", segment=0) if row.video.isdigit() else row for row in rows
        ]
        report["ids"] = {"own_video": len(rows)}
    return gather(labelled(rows, targets), report, folder=options.folder)


def _binary_target(rows: Sequence[Utterance], labels: np.ndarray) -> str | None:
    """The target of labels of two values; None for sentiments."""
    if labels.size != len(rows) or not set(np.unique(labels).tolist()) <= {-1, 0, 1} or len(np.unique(labels)) > 2:
        return None
    if not all(row.video.isdigit() or _MUSTARD.fullmatch(row.video) for row in rows):
        return None
    return "sarcasm" if any(row.segment or _MUSTARD.fullmatch(row.video) for row in rows) else "humor"
