"""CH-SIMS: 2,281 clips of Chinese films and shows with a sentiment in [-1, 1], one more per modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mmsa.dataset.dataset import Dataset
from mmsa.dataset.pickles import Pickles


class ChSims(Dataset):
    """CH-SIMS, version 1 or 2, with the folds of MMSA's pickle; the modalities have steps of their own.

    Reference: Yu et al., CH-SIMS: a Chinese multimodal sentiment analysis dataset with fine-grained annotation of
    modality, ACL 2020.
    """

    name = "ch_sims"
    title = "CH-SIMS"
    nominal_range = (-1.0, 1.0)
    stated_bound = (-1.0, 1.0)
    kinds: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sentiment", "sentiment_text", "sentiment_audio", "sentiment_visual"), "sims"
    )
    canonical_sizes: ClassVar[Mapping[str, int]] = {"train": 1368}  # of version 1; of the other folds we have no source
    format = Pickles("MMSA's unaligned_39.pkl (version 2: sims_unaligned.pkl)")
    origin = "The pickle comes with MMSA (github.com/thuiar/MMSA)."
