"""MISA (Hazarika, Zimmermann, Poria, ACM MM 2020), of word vectors and with CMD, also with MMLatch, written plainly."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.plain.mmlatch import Feedback


class Extractor(nn.Module):
    """Two bidirectional LSTMs over packed sequences, normalised in between.

    Shapes: (B, T, D), lengths (B,) -> normalised states of the first (B, T, 2D), final states of the second (B, 2D)
    and of both (B, 4D).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * width)
        self.second = nn.LSTM(2 * width, width, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        states, (first, _) = self.first(packed)
        normed = self.norm(pad_packed_sequence(states, batch_first=True)[0])
        _, (second, _) = self.second(pack_padded_sequence(normed, lengths, batch_first=True))
        both = torch.cat([first[0], second[0], first[1], second[1]], dim=-1)
        return normed, torch.cat([second[0], second[1]], dim=-1), both


def layer(dim: int) -> nn.Module:
    """A linear map, GELU and normalisation of one width."""
    return nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))


def cmd(x: Tensor, y: Tensor) -> Tensor:
    """Central moment discrepancy of two codes (B, H)."""
    x_centred, y_centred = x - x.mean(0), y - y.mean(0)
    distances = [torch.norm(x.mean(0) - y.mean(0))]
    distances += [torch.norm((x_centred**k).mean(0) - (y_centred**k).mean(0)) for k in range(2, 6)]
    return sum(distances)


def difference(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared product of two codes (B, H), centred and of unit norm."""
    x, y = (code - code.mean(0) for code in (x, y))
    x, y = (code / (torch.norm(code, dim=1, keepdim=True).detach() + 1e-6) for code in (x, y))
    return (x.t() @ y).pow(2).mean()


class MISA(nn.Module):
    """Shared and private codes of three modalities, fused by a transformer layer: features, lengths (B,) -> (B,).

    Args:
        widths: features of text, audio and visual.
        hidden_dim: of the codes.
        source: what MMLatch's masks are generated from: the states of the first LSTMs, which recurrent generators read,
            or per utterance the final states of the second, the projected or the private codes, repeated over time;
            None: one pass.
        mlp: a layer per modality between source and generators.
    """

    true_lengths = True

    def __init__(
        self,
        widths: Mapping[str, int],
        hidden_dim: int,
        source: Literal["sequence", "utterance", "projected", "private"] | None = None,
        mlp: bool = False,
    ) -> None:
        super().__init__()
        self.extractors = nn.ModuleDict({m: Extractor(width) for m, width in widths.items()})
        self.source = source
        if source:
            dims = {m: 2 * width if source in ("sequence", "utterance") else hidden_dim for m, width in widths.items()}
            self.transforms = nn.ModuleDict({m: layer(n) if mlp else nn.Identity() for m, n in dims.items()})
            self.feedback = Feedback(dims, widths, recurrent=source == "sequence", dropout=0.1)
        self.project = nn.ModuleDict({m: nn.Linear(4 * width, hidden_dim) for m, width in widths.items()})
        self.norm = nn.ModuleDict({m: nn.LayerNorm(hidden_dim) for m in widths})
        self.private = nn.ModuleDict({m: nn.Linear(hidden_dim, hidden_dim) for m in widths})
        self.shared = nn.Linear(hidden_dim, hidden_dim)
        self.transformer = nn.TransformerEncoderLayer(hidden_dim, 2, batch_first=True)
        self.fuse = nn.Linear(6 * hidden_dim, 3 * hidden_dim)
        self.reconstruct = nn.ModuleDict({m: nn.Linear(hidden_dim, hidden_dim) for m in widths})
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(3 * hidden_dim, 1)

    def codes(self, features: Mapping[str, Tensor], lengths: Tensor) -> tuple[dict[str, Tensor], ...]:
        """The projected, private and shared codes (B, H) of each modality, of masked inputs where there is feedback."""
        if self.source:
            features = self.feedback(features, self.sources(features, lengths), lengths)
        return self.codes_of({m: extractor(features[m], lengths)[2] for m, extractor in self.extractors.items()})

    def codes_of(self, vectors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
        """The same of the final states (B, 4D) of both LSTMs."""
        projected = {m: self.norm[m](torch.relu(self.project[m](x))) for m, x in vectors.items()}
        private = {m: torch.sigmoid(self.private[m](x)) for m, x in projected.items()}
        shared = {m: torch.sigmoid(self.shared(x)) for m, x in projected.items()}
        return projected, private, shared

    def sources(self, features: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """What the masks are generated from, (B, T, S), of a first pass."""
        extracted = {m: extractor(features[m], lengths) for m, extractor in self.extractors.items()}
        if self.source == "sequence":
            found = {m: normed for m, (normed, _, _) in extracted.items()}
        else:
            if self.source == "utterance":
                vectors = {m: final for m, (_, final, _) in extracted.items()}
            else:
                projected, private, _ = self.codes_of({m: both for m, (_, _, both) in extracted.items()})
                vectors = projected if self.source == "projected" else private
            num_steps = int(lengths.max())
            found = {m: vector[:, None].repeat(1, num_steps, 1) for m, vector in vectors.items()}
        return {m: self.transforms[m](source) for m, source in found.items()}

    def fused(self, private: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> Tensor:
        """The predictions (B,) of the codes."""
        attended = self.transformer(torch.stack([*private.values(), *shared.values()], dim=1))
        return self.head(torch.relu(self.dropout(self.fuse(attended.flatten(1))))).squeeze(-1)

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        _, private, shared = self.codes(features, lengths)
        return self.fused(private, shared)

    def loss(self, features: Mapping[str, Tensor], lengths: Tensor, labels: Tensor) -> Tensor:
        """The squared error, and the similarity, difference and reconstruction of the codes."""
        projected, private, shared = self.codes(features, lengths)
        similarity = sum(cmd(shared[a], shared[b]) for a, b in combinations(shared, 2)) / 3
        apart = [difference(private[m], shared[m]) for m in shared]
        apart += [difference(private[a], private[b]) for a, b in combinations(private, 2)]
        rebuilt = sum(mse_loss(self.reconstruct[m](private[m] + shared[m]), x) for m, x in projected.items()) / 3
        return mse_loss(self.fused(private, shared), labels) + similarity + 0.3 * sum(apart) + rebuilt
