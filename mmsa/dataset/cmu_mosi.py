"""CMU-MOSI: 93 videos of film reviews, 2,199 utterances with a sentiment in [-3, 3]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mmsa.dataset.dataset import Dataset
from mmsa.dataset.sequences import SDK_ORIGIN, Sequences


class CmuMosi(Dataset):
    """CMU-MOSI with the standard folds of 52, 10 and 31 videos.

    Reference: Zadeh et al., Multimodal sentiment intensity analysis in videos, IEEE Intelligent Systems 31(6), 2016.
    """

    name = "cmu_mosi"
    title = "CMU-MOSI"
    nominal_range = (-3.0, 3.0)
    stated_bound = (-3.0, 3.0)
    canonical_sizes: ClassVar[Mapping[str, int]] = {"train": 1284, "valid": 229, "test": 686}
    format = Sequences()
    sdk_name = "CMU_MOSI"
    sdk_folds: ClassVar[Mapping[str, int]] = {"train": 52, "valid": 10, "test": 31}
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "words": ("CMU_MOSI_TimestampedWords", "CMU_MOSI_ModifiedTimestampedWords"),
        "text": ("CMU_MOSI_TimestampedWordVectors", "CMU_MOSI_TimestampedWordVectors_1.1"),
        "audio": ("CMU_MOSI_COVAREP", "CMU_MOSI_openSMILE_IS09", "CMU_MOSI_OpenSmile_EB10"),
        "visual": (
            "CMU_MOSI_Visual_Facet_42",
            "CMU_MOSI_Visual_Facet_41",
            "CMU_MOSI_VisualFacet_4.1",  # MISA's name
            "CMU_MOSI_Visual_OpenFace_2",
            "CMU_MOSI_Visual_OpenFace_1",
            "CMU_MOSI_OpenFace2",
        ),
        "labels": ("CMU_MOSI_Opinion_Labels",),
    }
    origin = f"{SDK_ORIGIN}, the pickle with MMSA (github.com/thuiar/MMSA)."
