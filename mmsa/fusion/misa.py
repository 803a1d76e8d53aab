"""The fusion of MISA: codes that modalities share, and private ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.fusion.misa_losses import (
    central_moment_discrepancy,
    difference,
    discrimination,
    reconstruction,
    reversed_gradient,
)
from mmsa.layers.dropout import Dropout
from mmsa.layers.support import SEVERAL, check_number
from mmsa.ranges import Count, DropRate, NonNegative
from mmsa.types import Encoded, Fused, Interaction, Reads, Stream

NUM_HEADS = 2
Activation = Literal["elu", "hardshrink", "hardtanh", "leakyrelu", "prelu", "relu", "rrelu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "hardshrink": nn.Hardshrink,
    "hardtanh": nn.Hardtanh,
    "leakyrelu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "rrelu": nn.RReLU,
    "tanh": nn.Tanh,
}


class MisaFusion(nn.Module):
    """Projects each modality to a private and a shared code, and fuses all codes by a transformer layer.

    Its losses pull the shared codes together (similarity), keep private codes apart from the shared and from each
    other (difference), and let both together reconstruct the projection (reconstruction). Their weights are in
    `task.auxiliary`; the paper's are 1, 0.3 and 1.

    Reference: MISA (Hazarika, Zimmermann, Poria, ACM MM 2020, arXiv 2005.03545). Where we differ: a code of zeros, of
    a modality that the utterance lacks or that a regularizer masks, is not attended to; the discriminator of shared
    and private codes, whose loss the original never uses, is not built.

    Args:
        input_dims: utterance width per modality.
        hidden_dim: width of the codes, even, >= 2.
        similarity: "cmd" (central moment discrepancy) or "adversarial" (a discriminator of the modalities, whose
            gradient is reversed).
        reversal: weight >= 0 of the reversed gradient of similarity="adversarial".
        activation: of the projections, the discriminator and the fused vector; one module, so PReLU has one slope.
        dropout: rate in [0, 1) on the fused vector and in the discriminator, in training only.
        transformer_dropout: rate in [0, 1) of the transformer layer, in training only.

    Shapes: utterance (B, U_m) for each of M modalities -> 2M streams (B, H) -> vector (B, M * H).

    Raises:
        ConfigError: fewer than two modalities, or an odd hidden_dim.
    """

    reads: Reads = "utterance"
    num_modalities = SEVERAL
    requires_alignment = False

    def __init__(
        self,
        input_dims: Mapping[str, int],
        hidden_dim: Count,
        similarity: Literal["cmd", "adversarial"] = "cmd",
        reversal: NonNegative = 1.0,
        activation: Activation = "relu",
        dropout: DropRate = 0.5,
        transformer_dropout: DropRate = 0.1,
    ) -> None:
        super().__init__()
        check_number(
            "fusion=misa separates shared from private codes and", self.num_modalities, input_dims, "fusion=concat"
        )
        if hidden_dim % NUM_HEADS:
            raise ConfigError(
                f"fusion.hidden_dim={hidden_dim}: fusion=misa has two attention heads and needs an even width.\n"
                f"  type hidden_dim={hidden_dim + 1}"
            )
        width, num_modalities = hidden_dim, len(input_dims)
        self.reversal = reversal
        self.activation = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout)
        self.output_dim = num_modalities * width
        self.code_dims = dict.fromkeys(("projected", "private", "shared"), width)
        self.project = nn.ModuleDict({m: nn.Linear(input_dim, width) for m, input_dim in input_dims.items()})
        self.norm = nn.ModuleDict({m: nn.LayerNorm(width) for m in input_dims})
        self.private = nn.ModuleDict({m: nn.Linear(width, width) for m in input_dims})
        self.shared = nn.Linear(width, width)
        self.transformer = nn.TransformerEncoderLayer(width, NUM_HEADS, dropout=transformer_dropout, batch_first=True)
        self.fuse = nn.Linear(2 * self.output_dim, self.output_dim)
        self.reconstruct = nn.ModuleDict({m: nn.Linear(width, width) for m in input_dims})
        self.discriminator: nn.Module | None = None
        if similarity == "adversarial":
            last = nn.Linear(width, num_modalities)
            self.discriminator = nn.Sequential(nn.Linear(width, width), self.activation, self.dropout, last)

    def codes(self, encoded: Mapping[str, Encoded]) -> dict[str, dict[str, Tensor]]:
        """Per modality (B, H): "projected", and in (0, 1) "private" and "shared", which are zeros where absent."""
        projected = {m: self.norm[m](self.activation(self.project[m](part.utterance))) for m, part in encoded.items()}
        present = {m: (part.lengths > 0)[:, None] for m, part in encoded.items()}  # (B, 1) each
        private = {m: torch.sigmoid(self.private[m](x)) * present[m] for m, x in projected.items()}
        shared = {m: torch.sigmoid(self.shared(x)) * present[m] for m, x in projected.items()}
        return {"projected": projected, "private": private, "shared": shared}

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        """The private codes, then the shared ones, each (B, H) in (0, 1), zeros where absent; and the three losses."""
        codes = self.codes(encoded)
        projected, private, shared = codes["projected"], codes["private"], codes["shared"]
        present = {m: part.lengths > 0 for m, part in encoded.items()}  # (B,) each
        losses = {
            "similarity": self._similarity(shared, present),
            "difference": self._difference(private, shared, present),
            "reconstruction": self._reconstruction(private, shared, projected, present),
        }
        streams = {f"private {m}": Stream(x, encoded[m].lengths) for m, x in private.items()}
        streams |= {f"shared {m}": Stream(x, encoded[m].lengths) for m, x in shared.items()}
        return Interaction(streams, losses)

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        """Streams (B, H) -> vector (B, F)."""
        codes = torch.stack([stream.values for stream in streams.values()], dim=1)  # (B, 2M, H)
        silent = (codes == 0).all(dim=-1)  # (B, 2M): a sigmoid is never 0
        ignored = silent & ~silent.all(dim=1, keepdim=True)  # attention needs at least one
        attended = self.transformer(codes, src_key_padding_mask=ignored).masked_fill(silent[:, :, None], 0.0)
        return Fused(self.activation(self.dropout(self.fuse(attended.flatten(1)))))

    def _similarity(self, shared: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
        if self.discriminator is not None:
            codes = reversed_gradient(torch.stack(list(shared.values())), self.reversal)  # (M, B, H)
            return discrimination(self.discriminator(codes), torch.stack(list(present.values())))
        pairs = [
            central_moment_discrepancy(shared[a], shared[b], present[a], present[b]) for a, b in combinations(shared, 2)
        ]
        return torch.stack(pairs).mean()

    def _difference(
        self, private: Mapping[str, Tensor], shared: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        own = [difference(private[m], shared[m], present[m]) for m in private]
        others = [difference(private[a], private[b], present[a] & present[b]) for a, b in combinations(private, 2)]
        return torch.stack(own + others).sum()

    def _reconstruction(
        self,
        private: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        projected: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
    ) -> Tensor:
        parts = [
            reconstruction(self.reconstruct[m](private[m] + shared[m]), target, present[m])
            for m, target in projected.items()
        ]
        return torch.stack(parts).mean()
