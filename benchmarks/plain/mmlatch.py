"""MMLatch (Paraskevopoulos et al., ICASSP 2022) and M3 (Georgiou et al., Interspeech 2021), written plainly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class PackedLSTM(nn.Module):
    """An LSTM over packed sequences: (B, T, D), lengths (B,) -> (B, T, H) per direction, side by side."""

    def __init__(self, input_dim: int, hidden_dim: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_dim, hidden_dim, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return states


class Attention(nn.Module):
    """Single-head attention: keys and values (B, T, D), queries (B, Q, D), key mask (B, T) -> (B, Q, D)."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim, bias=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.key, self.query, self.value):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor, queries: Tensor, mask: Tensor | None = None) -> Tensor:
        scores = torch.matmul(self.query(queries), self.key(x).transpose(1, 2)) / math.sqrt(x.shape[-1])
        if mask is not None:
            scores = scores + (1.0 - mask[:, None]) * -1e5
        return torch.matmul(self.dropout(torch.softmax(scores, dim=-1)), self.value(x))


class AttentiveLSTM(nn.Module):
    """A bidirectional LSTM whose directions are merged and attended to: (B, T, D), lengths (B,) -> (B, T, H or 2H)."""

    def __init__(self, input_dim: int, hidden_dim: int, merge: Literal["sum", "concat"], dropout: float) -> None:
        super().__init__()
        self.rnn = PackedLSTM(input_dim, hidden_dim, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.merge = merge
        self.attention = Attention(hidden_dim if merge == "sum" else 2 * hidden_dim, dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.dropout(self.rnn(x, lengths))
        if self.merge == "sum":
            forward, backward = states.chunk(2, dim=-1)
            states = forward + backward
        mask = (torch.arange(x.shape[1])[None, :] < lengths[:, None]).float()
        return self.attention(states, states, mask)


class SymmetricAttention(nn.Module):
    """Both ways of a pair, each with the query's own sequence as the residual, summed: two (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.over_first = Attention(dim, dropout)
        self.over_second = Attention(dim, dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        from_first = self.over_first(x, y) + y
        from_second = self.over_second(y, x) + x
        return from_first + from_second


class MaskGenerator(nn.Module):
    """The logits of a mask (B, T, target) from another modality (B, T, D): a one-way LSTM's states, or a linear map."""

    def __init__(self, source_dim: int, target_dim: int, recurrent: bool) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.layer = PackedLSTM(source_dim, target_dim, False) if recurrent else nn.Linear(source_dim, target_dim)
        self.dropout = nn.Dropout(0.1 if recurrent else 0.0)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.dropout(self.layer(x, lengths) if self.recurrent else self.layer(x))


class Feedback(nn.Module):
    """The inputs (B, T, D) of each modality under the mean of the masks that the others generate.

    Args:
        source_dims: width of what the masks are generated from, per modality.
        widths: features per modality.
        recurrent: generators are LSTMs; else linear maps.
        dropout: rate on the masks.
    """

    def __init__(
        self, source_dims: Mapping[str, int], widths: Mapping[str, int], recurrent: bool, dropout: float
    ) -> None:
        super().__init__()
        self.generators = nn.ModuleDict()
        for target, width in widths.items():
            self.generators[target] = nn.ModuleDict(
                {m: MaskGenerator(dim, width, recurrent) for m, dim in source_dims.items() if m != target}
            )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features: Mapping[str, Tensor], sources: Mapping[str, Tensor], lengths: Tensor
    ) -> dict[str, Tensor]:
        masked = {}
        for target in self.generators:
            generators: nn.ModuleDict = self.generators[target]  # type: ignore[assignment]
            masks = [torch.sigmoid(generator(sources[m], lengths)) for m, generator in generators.items()]
            masked[target] = features[target] * self.dropout(sum(masks) / len(masks))
        return masked


class M3(nn.Module):
    """Hard masks per step of one modality, drawn by weights, for a share `p` of the batches, in training."""

    def __init__(self, p: float, weights: Sequence[float] = (1, 1, 1)) -> None:
        super().__init__()
        self.p, self.weights = p, torch.tensor(weights, dtype=torch.float32)

    def forward(self, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.training or torch.rand(()) >= self.p:
            return encoded
        first = next(iter(encoded.values()))
        lost = torch.multinomial(self.weights, first.shape[0] * first.shape[1], replacement=True)
        lost = lost.view(first.shape[:2])
        return {m: x * (lost != i).float()[:, :, None] for i, (m, x) in enumerate(encoded.items())}


class UtteranceM3(nn.Module):
    """Whole utterances lose one modality, for a share `p` of the batches, and all is scaled up, in training (slp)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.training:
            return encoded
        kept = dict(encoded)
        if torch.rand(()) < self.p:
            names = list(kept)
            for row in range(len(kept[names[0]])):
                lost = names[int(torch.randint(len(names), ()))]
                mask = torch.ones_like(kept[lost])
                mask[row] = 0.0
                kept[lost] = kept[lost] * mask
        return {m: x / (1 - self.p / len(kept)) for m, x in kept.items()}


class MMLatch(nn.Module):
    """Three attentive encoders, feedback or none, attention fusion: features (B, T, D), lengths (B,) -> (B,).

    Args:
        widths: features of text, audio and visual.
        hidden_dim: per direction.
        feedback: "recurrent" or "linear" mask generators; None: one pass.
        m3: masks of the encodings; None: none.
        pooling: over time, of the fusion.
        head_dropout: rate before the head.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        hidden_dim: int,
        feedback: Literal["recurrent", "linear"] | None = None,
        m3: nn.Module | None = None,
        pooling: Literal["sum", "mean"] = "sum",
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: AttentiveLSTM(w, hidden_dim, "sum", 0.2) for m, w in widths.items()})
        self.feedback: nn.Module | None = None
        if feedback:
            self.feedback = Feedback(dict.fromkeys(widths, hidden_dim), widths, feedback == "recurrent", 0.2)
        self.m3 = m3 or nn.Identity()
        self.text_audio, self.visual_audio, self.text_visual = (SymmetricAttention(hidden_dim, 0.1) for _ in range(3))
        self.joint = Attention(hidden_dim, 0.1)
        self.fusion = AttentiveLSTM(7 * hidden_dim, hidden_dim, "concat", 0.1)
        self.pooling = pooling
        self.dropout = nn.Dropout(head_dropout)
        self.head = nn.Linear(2 * hidden_dim, 1)

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        encoded = {m: encoder(features[m], lengths) for m, encoder in self.encoders.items()}
        if self.feedback is not None:
            masked = self.feedback(features, encoded, lengths)
            encoded = {m: encoder(masked[m], lengths) for m, encoder in self.encoders.items()}
        t, a, v = self.m3(encoded).values()
        ta, va, tv = self.text_audio(t, a), self.visual_audio(v, a), self.text_visual(t, v)
        streams = torch.cat([t, a, v, ta, tv, va, self.joint(t, va)], dim=-1)
        states = self.fusion(streams, lengths)
        pooled = states.sum(dim=1) if self.pooling == "sum" else states.mean(dim=1)
        return self.head(self.dropout(pooled)).squeeze(-1)

    def loss(self, features: Mapping[str, Tensor], lengths: Tensor, labels: Tensor) -> Tensor:
        """The mean absolute error."""
        return l1_loss(self(features, lengths), labels)
