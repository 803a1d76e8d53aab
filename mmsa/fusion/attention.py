"""The attention fusion of MMLatch and M3."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mmsa.layers.attention import Attention, SymmetricAttention
from mmsa.layers.modality_weights import ModalityWeights
from mmsa.layers.pooling import Pooling
from mmsa.layers.recurrence import Cell
from mmsa.layers.streams import StreamReader, longest, side_by_side, weighted
from mmsa.layers.support import check_number, common_width
from mmsa.ranges import Count, DropRate
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream, padding_mask


class AttentionFusion(nn.Module):
    """Pairwise symmetric attention, then an attentive recurrent layer over all streams, pooled over time.

    Three modalities a, b, c give seven streams: a, b, c, the pairs ab, ac, cb, and the attention of cb's steps to a;
    two give three: a, b, ab. With [text, audio, visual] this is the fusion of both papers.

    Reference: MMLatch (Paraskevopoulos et al., ICASSP 2022) and M3 (Georgiou et al., Interspeech 2021), which sum over
    time; the mean, the weights and `all_joint` are of the authors' later slp. Where we differ: attention and pooling
    leave padding out, so a prediction does not depend on its batch mates.

    Args:
        input_dims: sequence width per modality, all equal; the order of the modalities sets their roles.
        hidden_dim: width per direction of the recurrent layer, >= 1.
        all_joint: two more streams of three modalities: the attention of ab's steps to c, and of ac's steps to b.
        modality_weights: weigh the modalities of each step by a learned softmax first.
        recurrent: read the streams by a recurrent layer; without it they are pooled as they are, and `hidden_dim`,
            `cell`, `bidirectional` and `dropout` are not used.
        cell: "lstm" or "gru" of the recurrent layer.
        bidirectional: read the streams both ways.
        pooling: "sum", "mean" or "max" over valid steps.
        attention_dropout: rate in [0, 1) on the weights of the pairwise attention, in training only.
        dropout: rate in [0, 1) of the recurrent layer, in training only.

    Shapes: sequence (B, T, S) per modality -> streams (B, T, S) -> vector (B, output_dim).

    Raises:
        ConfigError: another number of modalities than two or three, `all_joint` of two, or sequences of unequal width.
    """

    reads: Reads = "sequence"
    num_modalities = range(2, 4)
    requires_alignment = True
    requires_equal_widths = True

    def __init__(
        self,
        input_dims: Mapping[str, int],
        hidden_dim: Count,
        all_joint: bool = False,
        modality_weights: bool = False,
        recurrent: bool = True,
        cell: Cell = "lstm",
        bidirectional: bool = True,
        attention_dropout: DropRate = 0.1,
        dropout: DropRate = 0.1,
        pooling: Pooling = "sum",
    ) -> None:
        super().__init__()
        check_number("fusion=attention", self.num_modalities, input_dims, "fusion=concat")
        if all_joint:
            check_number("fusion.all_joint=true", range(3, 4), input_dims, "fusion.all_joint=false")
        width = common_width("fusion=attention", input_dims)
        num_pairs = 1 if len(input_dims) == 2 else 3
        self.pairs = nn.ModuleList(SymmetricAttention(width, attention_dropout) for _ in range(num_pairs))
        self.joint = Attention(width, attention_dropout) if num_pairs == 3 else None
        self.more_joint = nn.ModuleList(Attention(width, attention_dropout) for _ in range(2)) if all_joint else None
        self.weights = ModalityWeights(width) if modality_weights else None
        num_streams = 3 if num_pairs == 1 else 7 + 2 * all_joint
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
        """The modalities' sequences and the streams of their pairs, each (B, T, S), in the order of the papers."""
        streams = weighted(encoded, self.weights)
        padding = {m: padding_mask(stream.lengths, stream.values.shape[1]) for m, stream in streams.items()}

        def pair(attention: nn.Module, x: str, y: str) -> Stream:
            values = attention(streams[x].values, streams[y].values, padding[x], padding[y])
            return Stream(values, torch.maximum(streams[x].lengths, streams[y].lengths))

        first, second, *rest = encoded
        if self.joint is None:
            return Interaction({**streams, f"{first}+{second}": pair(self.pairs[0], first, second)})
        third = rest[0]
        first_second = pair(self.pairs[0], first, second)
        third_second = pair(self.pairs[1], third, second)
        first_third = pair(self.pairs[2], first, third)

        def joint(attention: nn.Module, x: str, pair: Stream, of: tuple[str, str]) -> Stream:
            values = attention(streams[x].values, padding[x], pair.values, padding[of[0]] & padding[of[1]])
            return Stream(values, pair.lengths * (streams[x].lengths > 0))  # nothing to attend to

        interactions = {
            f"{first}+{second}": first_second,
            f"{first}+{third}": first_third,
            f"{third}+{second}": third_second,
            f"{first}+{third}+{second}": joint(self.joint, first, third_second, (third, second)),
        }
        if self.more_joint is not None:
            over_third, over_second = self.more_joint
            interactions[f"{third}+{first}+{second}"] = joint(over_third, third, first_second, (first, second))
            interactions[f"{second}+{first}+{third}"] = joint(over_second, second, first_third, (first, third))
        return Interaction({**streams, **interactions})

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, T, S) over the steps that any of them has -> vector (B, F)."""
        return Fused(self.reader(side_by_side(streams), longest(streams)))
