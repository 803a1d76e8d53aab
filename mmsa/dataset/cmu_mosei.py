"""CMU-MOSEI: 3,228 videos, about 22,860 utterances with a sentiment in [-3, 3] and six emotions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mmsa.dataset.dataset import Dataset
from mmsa.dataset.sequences import SDK_ORIGIN, Sequences


class CmuMosei(Dataset):
    """CMU-MOSEI with the standard folds of 2,249, 300 and 678 videos.

    Genuine files hold sentiments such as 10/3 and 15/3, beyond the nominal range; they are kept and reported.

    Reference: Zadeh et al., Multimodal language analysis in the wild, ACL 2018.
    """

    name = "cmu_mosei"
    title = "CMU-MOSEI"
    nominal_range = (-3.0, 3.0)
    stated_bound = (-6.0, 6.0)
    kinds: ClassVar[Mapping[str, str]] = {"sentiment": "sentiment", "emotions": "emotions"}
    canonical_sizes: ClassVar[Mapping[str, int]] = {"train": 16326, "valid": 1871, "test": 4659}
    format = Sequences()
    sdk_name = "CMU_MOSEI"
    sdk_folds: ClassVar[Mapping[str, int]] = {"train": 2249, "valid": 300, "test": 678}
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "words": ("CMU_MOSEI_TimestampedWords",),
        "text": (
            "CMU_MOSEI_TimestampedWordVectors",
            "CMU_MOSEI_TimestampedGloveVectors",
            "CMU_MOSEI_TimestampedGloveVectors_with_SP",
        ),
        "audio": ("CMU_MOSEI_COVAREP", "CMU_MOSEI_openSMILE_IS09"),
        "visual": (
            "CMU_MOSEI_VisualFacet42",
            "CMU_MOSEI_Visual_Facet_42",  # the name in M3's download script
            "CMU_MOSEI_VisualOpenFace2",
        ),
        "labels": (
            "CMU_MOSEI_Labels",
            "CMU_MOSEI_LabelsSentiment",  # MISA's name
            "CMU_MOSEI_Opinion_Labels",  # the name in M3's download script
        ),
    }
    origin = f"{SDK_ORIGIN}, the pickle with MMSA (github.com/thuiar/MMSA)."
