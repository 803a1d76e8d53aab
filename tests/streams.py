"""Streams made of tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmsa.types import Stream


def streams_of(values: Mapping[str, Tensor]) -> dict[str, Stream]:
    """(B, T, D) or (B, D) each -> streams that are there from the first step to the last."""
    return {name: Stream(x, torch.full((len(x),), x.shape[1] if x.dim() == 3 else 1)) for name, x in values.items()}


def values_of(streams: Mapping[str, Stream]) -> dict[str, Tensor]:
    """Streams -> what they hold, (B, T, D) or (B, D) each."""
    return {name: stream.values for name, stream in streams.items()}
