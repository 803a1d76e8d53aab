"""Parts such as users write them: with steps, axes and positions of their own, and options that they pass on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.fusion.concat import ConcatFusion
from mmsa.layers.pooling import pool
from mmsa.stages import Objective
from mmsa.types import Embedded, Encoded, Fused, Interaction, Reads, Stream, padding_mask


class Shortening(nn.Module):
    """A convolution that makes one step of two, and of a last single step one."""

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_dim, hidden_dim, kernel_size=2, stride=2)
        self.input_dim = input_dim
        self.sequence_dim = self.utterance_dim = hidden_dim

    def embed(self, features: Tensor) -> Tensor:
        return features

    def forward(self, embedded: Embedded) -> Encoded:
        lengths = (embedded.lengths + 1) // 2
        padding = padding_mask(embedded.lengths, embedded.values.shape[1])[:, :, None]
        clean = functional.pad(embedded.values.masked_fill(padding, 0.0), (0, 0, 0, embedded.values.shape[1] % 2))
        made = self.convolution(clean.transpose(1, 2)).transpose(1, 2)  # (B, T // 2, H)
        sequence = made.masked_fill(padding_mask(lengths, made.shape[1])[:, :, None], 0.0)
        return Encoded(sequence, pool(sequence, lengths, "mean"), lengths)


class Placed(Shortening):
    """Learned positions, one for each step that an utterance may have."""

    def __init__(self, input_dim: int, hidden_dim: int, max_steps: int) -> None:
        super().__init__(input_dim, hidden_dim)
        self.positions = nn.Parameter(torch.randn(max_steps, input_dim))

    without_gradient: Mapping[str, str] = {"positions": "places that no utterance has"}

    def embed(self, features: Tensor) -> Tensor:
        return features + self.positions[: features.shape[1]]


class OwnAxes(nn.Module):
    """Reads the sequences of modalities that have axes of their own, each to its own end."""

    reads: Reads = "sequence"
    requires_alignment = False

    def __init__(self, input_dims: Mapping[str, int]) -> None:
        super().__init__()
        self.output_dim = sum(input_dims.values())

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        return Interaction({m: part.part("sequence") for m, part in encoded.items()})

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        means = [pool(stream.values, stream.lengths, "mean") for stream in streams.values()]
        return Fused(torch.cat(means, dim=1))


class Pooled(OwnAxes):
    """Reads sequences and publishes pooled streams."""

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction:
        return Interaction(
            {m: Stream(pool(part.sequence, part.lengths, "mean"), part.lengths) for m, part in encoded.items()}
        )

    def combine(self, streams: Mapping[str, Stream]) -> Fused:
        return Fused(torch.cat([stream.values for stream in streams.values()], dim=1))


class Wider(RecurrentEncoder):
    """Passes its options on to the class that it extends."""

    def __init__(self, factor: int = 2, **options: Any) -> None:
        options["hidden_dim"] *= factor
        super().__init__(**options)


class Wrapped(nn.Module):
    """Passes its options on to a part of its own, which nobody can see."""

    reads: Reads = "utterance"
    requires_alignment = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner = ConcatFusion(**options)


class Demanding(nn.Module, Objective):
    """Needs a target that few data sets have."""

    needs = ("arousal",)
