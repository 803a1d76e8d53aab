"""Single-head attention that never looks at padding."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsa.layers.draws import current
from mmsa.layers.dropout import Dropout
from mmsa.layers.products import linears, of_columns, product


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
        for each in (self.key, self.query, self.value):
            nn.init.xavier_uniform_(each.weight)

    def forward(
        self, x: Tensor, padding: Tensor, queries: Tensor | None = None, query_padding: Tensor | None = None
    ) -> Tensor:
        if queries is None:
            query, key, value = linears(x, self.query.weight, self.key.weight, self.value.weight)
        else:
            (query,), (key, value) = linears(queries, self.query.weight), linears(x, self.key.weight, self.value.weight)
        return self.attended(query, key, value, padding, query_padding)

    def attended(
        self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor, query_padding: Tensor | None = None
    ) -> Tensor:
        """Values (B, T, D) by the softmax of queries (B, Q, D) over keys (B, T, D) -> (B, Q, D)."""
        # Without a valid key the softmax is uniform over padding: such a sequence says nothing.
        silent = padding if query_padding is None else query_padding | padding.all(dim=1, keepdim=True)  # (B, Q)
        hidden = torch.zeros_like(padding, dtype=query.dtype).masked_fill(padding, torch.finfo(query.dtype).min)
        hidden, heard = hidden[:, None], (~silent).to(query.dtype)[:, :, None]  # (B, 1, T), (B, Q, 1)
        scale = 1 / math.sqrt(query.shape[-1])
        if query.device.type != "cpu" or current() is not None:
            scores = torch.baddbmm(hidden, query, key.mT, alpha=scale)  # (B, Q, T)
            return self.dropout(torch.softmax(scores, dim=-1)) @ value * heard
        drops, shape = self.training and self.dropout.p > 0, (*silent.shape, key.shape[1])
        if max(shape[1:]) > LONG:
            kept, factor = self.dropout.kept(shape, query.device) if drops else (None, 1.0)
            kept = None if kept is None else kept.to(torch.int8)  # it stays until the gradient
            return _ByUtterance.apply(query * scale, key, value, hidden[:, 0], kept, factor) * heard
        heard = heard.to(torch.promote_types(heard.dtype, torch.float32))
        factors = self.dropout.mask(shape, heard.dtype, query.device, heard) if drops else heard
        return _AtOnce.apply(query, key, value, hidden, factors, scale)


LONG = 128
"""Steps of sequences on a CPU, at most, whose utterances are attended to at once."""


class _AtOnce(torch.autograd.Function):
    """All utterances at once, in fewer operations than PyTorch's own gradient takes.

    As `Attention.attended`; `hidden` (B, 1, T) is added to the scores, and the weights, in float32 as short rows of
    bfloat16 are slow, are multiplied by `factors` (B, Q, T) or (B, Q, 1).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, factors: Tensor, scale: float
    ) -> Tensor:
        scores = torch.baddbmm(hidden, query, key.mT, alpha=scale).to(factors.dtype)  # (B, Q, T)
        weights = torch.softmax(_widened(scores, -math.inf), dim=-1)
        dropped = (weights[..., : key.shape[1]] * factors).to(value.dtype)
        ctx.save_for_backward(query, key, value, weights, dropped, factors)
        ctx.scale = scale
        return torch.bmm(dropped, value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, weights, dropped, factors = ctx.saved_tensors
        of_weights = _widened(torch.bmm(gradient, value.mT).to(factors.dtype).mul_(factors), 0.0)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_scores = (of_scores[..., : key.shape[1]] * ctx.scale).to(query.dtype)
        found = torch.bmm(of_scores, key), torch.bmm(of_scores.mT, query), torch.bmm(dropped.mT, gradient)
        return *found, None, None, None


ROW = 16
"""Numbers of a vector unit: softmax takes those of shorter rows one by one."""


def _widened(rows: Tensor, value: float) -> Tensor:
    """Rows of at least `ROW` numbers."""
    missing = ROW - rows.shape[-1]
    return functional.pad(rows, (0, missing), value=value) if missing > 0 else rows


class _ByUtterance(torch.autograd.Function):
    """One utterance at a time, whose weights stay in the cache and are computed again for the gradient.

    As `Attention.attended`; `hidden` (B, T) is added to the scores, and weights that are not `kept` (B, Q, T) are
    zeros, the others multiplied by `scale`.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, kept: Tensor | None, scale: float
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, hidden, kept)
        ctx.scale = scale
        attended = torch.empty_like(query)
        for b in range(len(query)):
            weights = torch.softmax(product(query[b], key[b], hidden[b]), dim=-1)
            attended[b] = product(weights if kept is None else weights.mul_(kept[b]), value[b].mT)
        return attended.mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, hidden, kept = ctx.saved_tensors
        gradient = gradient * ctx.scale
        found = [torch.empty_like(each) for each in (query, key, value)]
        for b in range(len(query)):
            weights = torch.softmax(product(query[b], key[b], hidden[b]), dim=-1)
            of_weights = product(gradient[b], value[b])
            dropped = weights
            if kept is not None:
                keeps = kept[b].to(weights.dtype)
                dropped, of_weights = weights * keeps, of_weights.mul_(keeps)
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_query, of_key, of_value = found
            of_query[b] = product(of_scores, key[b].mT)
            of_key[b] = of_columns(of_scores, query[b])
            of_value[b] = of_columns(dropped, gradient[b])
        return *found, None, None, None


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
        first, second = self.over_first, self.over_second
        query_x, key_x, value_x = linears(x, second.query.weight, first.key.weight, first.value.weight)
        query_y, key_y, value_y = linears(y, first.query.weight, second.key.weight, second.value.weight)
        from_first = first.attended(query_y, key_x, value_x, x_padding, y_padding) + y
        from_second = second.attended(query_x, key_y, value_y, y_padding, x_padding) + x
        return from_first + from_second
