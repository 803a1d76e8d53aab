"""MUStARD: lines of television shows, sarcastic or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mmsa.dataset.dataset import Dataset
from mmsa.dataset.pickles import Pickles


class Mustard(Dataset):
    """MUStARD with the folds of MultiBench's pickle; the target is "sarcasm", 0 or 1.

    Reference: Castro et al., Towards multimodal sarcasm detection (an _Obviously_ perfect paper), ACL 2019.
    """

    name = "mustard"
    title = "MUStARD"
    kinds: ClassVar[Mapping[str, str]] = {"sarcasm": "binary"}
    nominal_range = (0.0, 1.0)
    stated_bound = (0.0, 1.0)
    canonical_sizes: ClassVar[Mapping[str, int]] = {"test": 138}  # as MultiBench's code asserts
    format = Pickles("MultiBench's sarcasm.pkl")
    origin = "The pickle comes with MultiBench (github.com/pliang279/MultiBench)."
