"""Bilinear fusion of sequences, step by step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mmsa.layers.modality_weights import ModalityWeights
from mmsa.layers.pooling import Pooling
from mmsa.layers.recurrence import Cell
from mmsa.layers.streams import StreamReader, longest, side_by_side, weighted
from mmsa.layers.support import check_number, common_width
from mmsa.ranges import Count, DropRate
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream, padding_mask


class BilinearFusion(nn.Module):
    """Bilinear maps of the steps of each pair, then an attentive recurrent layer over all streams, pooled over time.

    Three modalities a, b, c give seven streams: a, b, c, the pairs ab, ac, cb, and the map of a and cb; two give
    three: a, b, ab. A map is zero at steps that one of its modalities lacks.

    Reference: the fuser "bilinear" of slp, by the authors of MMLatch and M3.

    Args:
        input_dims: sequence width per modality, all equal; the order of the modalities sets their roles.
        hidden_dim: width per direction of the recurrent layer, >= 1.
        modality_weights: weigh the modalities of each step by a learned softmax first.
        recurrent: read the streams by a recurrent layer; without it they are pooled as they are, and `hidden_dim`,
            `cell`, `bidirectional` and `dropout` are not used.
        cell: "lstm" or "gru" of the recurrent layer.
        bidirectional: read the streams both ways.
        dropout: rate in [0, 1) of the recurrent layer, in training only.
        pooling: "sum", "mean" or "max" over valid steps.

    Shapes: sequence (B, T, S) per modality -> streams (B, T, S) -> vector (B, output_dim).

    Raises:
        ConfigError: another number of modalities than two or three, or sequences of unequal width.
    """

    reads: Reads = "sequence"
    num_modalities = range(2, 4)
    requires_alignment = True
    requires_equal_widths = True

    def __init__(
        self,
        input_dims: Mapping[str, int],
        hidden_dim: Count,
        modality_weights: bool = False,
        recurrent: bool = True,
        cell: Cell = "lstm",
        bidirectional: bool = True,
        dropout: DropRate = 0.1,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        check_number("fusion=bilinear", self.num_modalities, input_dims, "fusion=concat")
        width = common_width("fusion=bilinear", input_dims)
        num_maps, num_streams = (1, 3) if len(input_dims) == 2 else (4, 7)
        self.maps = nn.ModuleList(nn.Bilinear(width, width, width) for _ in range(num_maps))
        self.weights = ModalityWeights(width) if modality_weights else None
        self.reader = StreamReader(
            num_streams * width,
            hidden_dim,
            recurrent=recurrent,
            cell=cell,
            bidirectional=bidirectional,
            dropout=dropout,
            pooling=pooling,
        )
        self.output_dim = self.reader.output_dim

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """The modalities' sequences and the maps of their pairs, each (B, T, S)."""
        streams = weighted(encoded, self.weights)

        def joined(index: int, x: str, y: str) -> None:
            lengths = torch.minimum(streams[x].lengths, streams[y].lengths)
            stream = self.maps[index](streams[x].values, streams[y].values)
            absent = padding_mask(lengths, stream.shape[1])[:, :, None]  # (B, T, 1)
            streams[f"{x}+{y}"] = Stream(stream.masked_fill(absent, 0.0), lengths)  # the bias alone says nothing

        first, second, *rest = encoded
        joined(0, first, second)
        for third in rest:
            joined(1, first, third)
            joined(2, third, second)
            joined(3, first, f"{third}+{second}")
        return Interaction(streams)

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, T, S) over the steps that any of them has -> vector (B, F)."""
        return Fused(self.reader(side_by_side(streams), longest(streams)))
