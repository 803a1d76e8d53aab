"""Single-head attention that never looks at padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmsa.layers.dropout import Dropout


class Attention(nn.Module):
    """Single-head attention with bias-free maps of one width, no residual and no output map.

    Reference: the attention of MMLatch (Paraskevopoulos et al., ICASSP 2022) and M3 (Georgiou et al., Interspeech
    2021). Where we differ: padded queries give zeros, and so do queries to a sequence without any valid step.

    Args:
        dim: width of queries, keys and values, >= 1.
        dropout: rate in [0, 1) on the attention weights, in training only.

    Shapes: x (B, T, D), padding (B, T) True at padding -> (B, T, D); with queries (B, Q, D) -> (B, Q, D).
    """

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.dropout = Dropout(dropout, steps=(1, 2))
        for linear in (self.key, self.query, self.value):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, x: Tensor, padding: Tensor, queries: Tensor | None = None, query_padding: Tensor | None = None
    ) -> Tensor:
        # Without a valid key the softmax is uniform over padding: such a sequence says nothing.
        silent = padding if query_padding is None else query_padding | padding.all(dim=1, keepdim=True)  # (B, Q)
        query = self.query(x if queries is None else queries)  # (B, Q, D)
        scores = torch.bmm(query, self.key(x).transpose(1, 2)) / math.sqrt(x.shape[-1])  # (B, Q, T)
        # Sums and products take an eighth of the time of filling, and every score is lost in the least number.
        scores = scores + padding[:, None, :].to(scores.dtype) * torch.finfo(scores.dtype).min
        attended = torch.bmm(self.dropout(torch.softmax(scores, dim=-1)), self.value(x))  # (B, Q, D)
        return attended * (~silent)[:, :, None].to(attended.dtype)


class SymmetricAttention(nn.Module):
    """Two-way attention of a pair: queries of each attend to the other, the query's own sequence is the residual.

    Reference: MMLatch (ICASSP 2022), "symmetric attention"; both ways are summed, so swapping the pair together with
    the weights changes nothing.

    Args:
        dim: width of both sequences, >= 1.
        dropout: rate in [0, 1) on the attention weights, in training only.

    Shapes: x (B, T, D), y (B, T, D), their paddings (B, T) -> (B, T, D)
    """

    def __init__(self, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        # Attention maps its own argument to keys and values; the queries come from the other sequence.
        self.over_first = Attention(dim, dropout)
        self.over_second = Attention(dim, dropout)

    def forward(self, x: Tensor, y: Tensor, x_padding: Tensor, y_padding: Tensor) -> Tensor:
        from_first = self.over_first(x, x_padding, queries=y, query_padding=y_padding) + y
        from_second = self.over_second(y, y_padding, queries=x, query_padding=x_padding) + x
        return from_first + from_second
