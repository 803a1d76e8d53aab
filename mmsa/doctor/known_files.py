"""Published facts on the field's files: the beginnings of their hashes, and the meaning of their dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmsa.data.store import Store


@dataclass(frozen=True)
class KnownFile:
    """A file whose hash is published.

    Args:
        prefix: first hex digits of its SHA-256; no more of it is listed here.
        dataset: the data set that it holds, by its name here.
        name: its publisher's name for it.
    """

    prefix: str
    dataset: str
    name: str


PUBLISHER = "MMSA's README"
KNOWN_FILES = (
    KnownFile("78e0f8b5", "cmu_mosi", "MMSA's unaligned MOSI file"),
    KnownFile("d3994fd2", "cmu_mosi", "MMSA's aligned MOSI file"),
    KnownFile("ad8b23d5", "cmu_mosei", "MMSA's unaligned MOSEI file"),
    KnownFile("45eccfb7", "cmu_mosei", "MMSA's aligned MOSEI file"),
    KnownFile("c9e20c13", "ch_sims", "MMSA's SIMS file"),
)

_OF_A_WIDTH: Mapping[tuple[str, int], str] = {
    ("text", 300): "GloVe word vectors",
    ("text", 768): "BERT's hidden states",
    ("audio", 74): "COVAREP",
    ("visual", 35): "FACET 4.2",
    ("visual", 47): "FACET 4.1",
    ("visual", 713): "OpenFace 2",
}
_OF_A_DATASET: Mapping[tuple[str, str, int], str] = {
    ("cmu_mosi", "audio", 5): "columns 1, 3, 6, 25, 60 of COVAREP, as in MulT's MOSI files",
    ("cmu_mosi", "visual", 20): (
        "columns 0, 2, 5, 10, 11, 12, 14, 17, 20, 21, 22, 24, 25, 29, 30, 31, 32, 36, 37, 40 of FACET 4.1, as in "
        "MulT's MOSI files"
    ),
    ("ur_funny", "audio", 81): "the COVAREP features of UR-FUNNY",
    ("ur_funny", "visual", 75): "the OpenFace features of UR-FUNNY version 1",
    ("ur_funny", "visual", 371): "the OpenFace features of UR-FUNNY version 2",
    ("ch_sims", "audio", 33): "the audio features of MMSA's SIMS file",
    ("ch_sims", "visual", 709): "the visual features of MMSA's SIMS file",
}
REMARKS: Mapping[str, str] = {
    "cmu_mosi": "52, 10 and 31 videos are in the standard folds. Its 5 audio and 20 visual columns in the pickles of "
    "MulT and MMSA are a selection by index from COVAREP and FACET 4.1.",
    "cmu_mosei": "2,249, 300 and 678 videos are in the standard folds. The files in use do not hold the same "
    "utterances: MMSA's hold 22,856 and, by others' counts, MulT's 22,777 and MultiBench's mosei_raw 22,860, so their "
    "test sets differ.",
    "ur_funny": "16,514 punchlines in version 1, half of them followed by laughter. Most published code reads the "
    "punchline only.",
    "ch_sims": "One label of the whole and one per modality. MMSA publishes no aligned file of it.",
}
"""A fact on a data set in general use."""


def known_file(sha256: str) -> KnownFile | None:
    """The published file whose hash begins as this one does."""
    return next((known for known in KNOWN_FILES if sha256.startswith(known.prefix)), None)


def meaning(store: Store, modality: str) -> str:
    """The feature set of a modality, inferred from its number of columns; empty where no such set is in general use."""
    width = store.features[modality].width
    if modality == "text" and "glove" in store.sources:
        return "vectors of the GloVe file"
    if store.report.get("planted"):
        return "drawn with the built-in corpus"
    return _OF_A_DATASET.get((store.dataset, modality, width), _OF_A_WIDTH.get((modality, width), ""))
