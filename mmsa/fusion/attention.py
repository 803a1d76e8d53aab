"""The attention fusion of MMLatch and M3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.attention import Attention, SymmetricAttention
from mmsa.layers.attentive import AttentiveRNN
from mmsa.layers.recurrence import Cell
from mmsa.ranges import Count, DropRate
from mmsa.types import Encoded, Fused, Interaction, padding_mask


class AttentionFusion(nn.Module):
    """Pairwise symmetric attention, then an attentive recurrent layer over all streams, summed over time.

    Three modalities a, b, c give seven streams: a, b, c, the pairs ab, ac, cb, and the attention of cb's steps to a;
    two give three: a, b, ab. With [text, audio, visual] this is the fusion of both papers.

    Reference: MMLatch (Paraskevopoulos et al., ICASSP 2022) and M3 (Georgiou et al., Interspeech 2021). Where we
    differ: attention and the sum over time leave padding out, so a prediction does not depend on its batch mates.

    Args:
        input_dims: sequence width per modality, all equal; the order of the modalities sets their roles.
        hidden_dim: width per direction of the recurrent layer, >= 1.
        cell: "lstm" or "gru" of the recurrent layer.
        bidirectional: read the fused sequence both ways.
        attention_dropout: rate in [0, 1) on the weights of the pairwise attention, in training only.
        dropout: rate in [0, 1) of the recurrent layer, in training only.

    Shapes: sequence (B, T, S) per modality -> streams (B, T, S) -> vector (B, output_dim).

    Raises:
        ConfigError: another number of modalities than two or three, or sequences of unequal width.
    """

    reads: Literal["sequence", "utterance"] = "sequence"
    requires_alignment = True

    def __init__(
        self,
        input_dims: Mapping[str, int],
        hidden_dim: Count,
        cell: Cell = "lstm",
        bidirectional: bool = True,
        attention_dropout: DropRate = 0.1,
        dropout: DropRate = 0.1,
    ) -> None:
        super().__init__()
        if len(input_dims) not in (2, 3):
            raise ConfigError(
                f"fusion=attention is defined for two or three modalities, not for {len(input_dims)} "
                f"({', '.join(input_dims)}).\n  type fusion=concat, or dataset.modalities=[text,audio,visual]"
            )
        if len(set(input_dims.values())) != 1:
            widths = ", ".join(f"{modality} {width}" for modality, width in input_dims.items())
            raise ConfigError(
                f"fusion=attention needs encoders of one width, but they give {widths}.\n"
                "  type the same hidden_dim and merge for every encoder, or fusion=concat"
            )
        width = next(iter(input_dims.values()))
        num_pairs = 1 if len(input_dims) == 2 else 3
        self.pairs = nn.ModuleList(SymmetricAttention(width, attention_dropout) for _ in range(num_pairs))
        self.joint = Attention(width, attention_dropout) if num_pairs == 3 else None
        num_streams = 3 if num_pairs == 1 else 7
        self.rnn = AttentiveRNN(
            num_streams * width,
            hidden_dim,
            cell=cell,
            bidirectional=bidirectional,
            merge="concat",
            attention=True,
            dropout=dropout,
        )
        self.output_dim = self.rnn.output_dim

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """The modalities' sequences and the streams of their pairs, each (B, T, S), in the order of the papers."""
        streams = {modality: part.sequence for modality, part in encoded.items()}
        padding = {m: padding_mask(part.lengths, part.sequence.shape[1]) for m, part in encoded.items()}

        def pair(attention: nn.Module, x: str, y: str) -> Tensor:
            stream: Tensor = attention(streams[x], streams[y], padding[x], padding[y])
            return stream

        first, second, *rest = encoded
        if self.joint is None:
            return Interaction({**streams, f"{first}+{second}": pair(self.pairs[0], first, second)})
        third = rest[0]
        first_second = pair(self.pairs[0], first, second)
        third_second = pair(self.pairs[1], third, second)
        first_third = pair(self.pairs[2], first, third)
        both = padding[second] & padding[third]
        joint = self.joint(streams[first], padding[first], queries=third_second, query_padding=both)
        interactions = {
            f"{first}+{second}": first_second,
            f"{first}+{third}": first_third,
            f"{third}+{second}": third_second,
            f"{first}+{third}+{second}": joint,
        }
        return Interaction({**streams, **interactions})

    def combine(self, streams: Mapping[str, Tensor], lengths: Tensor) -> Fused:
        """Streams (B, T, S) over the steps that any modality has, lengths (B,) -> vector (B, F)."""
        sequence, _ = self.rnn(torch.cat(list(streams.values()), dim=-1), lengths)
        return Fused(sequence.sum(dim=1))  # padded steps are zeros
