"""Fusion of the modalities' sequences, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from mmsa.layers.modality_weights import ModalityWeights
from mmsa.layers.pooling import Pooling
from mmsa.layers.recurrence import Cell
from mmsa.layers.streams import StreamReader, longest, side_by_side, weighted
from mmsa.layers.support import SEVERAL, check_number, common_width
from mmsa.ranges import Count, DropRate
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream


class SequenceFusion(nn.Module):
    """The steps of the modalities concatenated or added, an attentive recurrent layer over them, pooled over time.

    Defined for any number of modalities. Reference: the fusers "cat" and "sum" of slp with its pooling over time.

    Args:
        input_dims: sequence width per modality.
        hidden_dim: width per direction of the recurrent layer, >= 1.
        join: "concat" concatenates the modalities; "sum" adds them, which needs equal widths.
        modality_weights: weigh the modalities of each step by a learned softmax first, which needs equal widths.
        recurrent: read the joined steps by a recurrent layer; without it they are pooled as they are, and
            `hidden_dim`, `cell`, `bidirectional` and `dropout` are not used.
        cell: "lstm" or "gru" of the recurrent layer.
        bidirectional: read the joined steps both ways.
        dropout: rate in [0, 1) of the recurrent layer, in training only.
        pooling: "sum", "mean" or "max" over valid steps.

    Shapes: sequence (B, T, S_m) per modality -> streams (B, T, S_m) -> vector (B, output_dim).

    Raises:
        ConfigError: unequal widths where equal ones are needed, or weights of a single modality.
    """

    reads: Reads = "sequence"
    requires_alignment = True

    def __init__(
        self,
        input_dims: Mapping[str, int],
        hidden_dim: Count,
        join: Literal["concat", "sum"] = "concat",
        modality_weights: bool = False,
        recurrent: bool = True,
        cell: Cell = "lstm",
        bidirectional: bool = True,
        dropout: DropRate = 0.1,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.requires_equal_widths = modality_weights or join == "sum"
        self.weights = None
        if modality_weights:
            option = "fusion.modality_weights=true"
            check_number(option, SEVERAL, input_dims, "fusion.modality_weights=false")
            self.weights = ModalityWeights(common_width(option, input_dims))
        joined_dim = common_width("fusion.join=sum", input_dims) if join == "sum" else sum(input_dims.values())
        self.join = join
        self.reader = StreamReader(
            joined_dim,
            hidden_dim,
            recurrent=recurrent,
            cell=cell,
            bidirectional=bidirectional,
            dropout=dropout,
            pooling=pooling,
        )
        self.output_dim = self.reader.output_dim

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """One stream per modality: its sequence."""
        return Interaction(weighted(encoded, self.weights))

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, T, S_m) over the steps that any of them has -> vector (B, F)."""
        if self.join == "sum":
            joined = torch.stack([stream.values for stream in streams.values()]).sum(dim=0)
        else:
            joined = side_by_side(streams)
        return Fused(self.reader(joined, longest(streams)))
