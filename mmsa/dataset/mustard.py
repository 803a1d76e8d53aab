"""MUStARD: lines of television shows, sarcastic or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mmsa.dataset.pickled import PickledDataset


class Mustard(PickledDataset):
    """MUStARD with the folds of MultiBench's pickle; the target is "sarcasm", 0 or 1.

    Reference: Castro et al., Towards multimodal sarcasm detection (an _Obviously_ perfect paper), ACL 2019.
    """

    name = "mustard"
    title = "MUStARD"
    kinds: ClassVar[Mapping[str, str]] = {"sarcasm": "binary"}
    nominal_range = (0.0, 1.0)
    stated_bound = (0.0, 1.0)
    canonical_sizes: ClassVar[dict[str, int]] = {"test": 138}  # as MultiBench's code asserts
    files = "MultiBench's sarcasm.pkl"
    origin = "The pickle comes with MultiBench (github.com/pliang279/MultiBench)."
