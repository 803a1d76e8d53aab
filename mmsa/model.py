"""The order of the stages, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mmsa.types import Batch, Encoded, Fused, Interaction, Output


class Encoder(Protocol):
    """One modality's features -> Encoded; see `mmsa.encoder.recurrent` for an example."""

    input_dim: int
    sequence_dim: int
    utterance_dim: int

    def embed(self, features: Tensor) -> Tensor: ...
    def __call__(self, embedded: Tensor, lengths: Tensor) -> Encoded: ...


class Fusion(Protocol):
    """Encoded modalities -> one vector; says which part of them it reads."""

    reads: Literal["sequence", "utterance"]
    requires_alignment: bool
    output_dim: int

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction: ...
    def combine(self, streams: Mapping[str, Tensor], lengths: Tensor) -> Fused: ...


class MultimodalModel(nn.Module):
    """Encoders, top-down feedback, regularizer, fusion and head, in this order.

    Args:
        encoders: one per modality.
        feedback: (embedded inputs, Encoded) -> (new embedded inputs, its tensors), run `num_passes` times.
        regularizer: (site, streams) -> streams at the sites "inputs", "encoded" and "streams".
        fusion: interact(encoded) -> Interaction; combine(streams, lengths) -> Fused.
        head: (B, F) -> (B, C).
        primary: name of the prediction.

    Shapes: a Batch of B utterances -> Output with predictions[primary] (B, C).
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        feedback: nn.Module,
        regularizer: nn.Module,
        fusion: nn.Module,
        head: nn.Module,
        primary: str,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.feedback: Any = feedback
        self.regularizer = regularizer
        self.fusion: Any = fusion
        self.head = head
        self.primary = primary

    def forward(self, batch: Batch) -> Output:
        inputs = {m: encoder.embed(batch.features[m]) for m, encoder in self._encoders()}  # (B, T, D) each
        inputs = dict(self.regularizer("inputs", inputs))
        encoded = self.encode(inputs, batch.lengths)

        masks: Mapping[str, Tensor] = {}
        for _ in range(self.feedback.num_passes):
            masked, masks = self.feedback(inputs, encoded)
            encoded = self.encode(masked, batch.lengths)

        parts = {m: getattr(part, self.fusion.reads) for m, part in encoded.items()}
        parts = self.regularizer("encoded", parts)
        encoded = {m: replace(part, **{self.fusion.reads: parts[m]}) for m, part in encoded.items()}

        interaction: Interaction = self.fusion.interact(encoded)
        streams = self.regularizer("streams", interaction.streams)
        lengths = torch.stack([batch.lengths[m] for m in self.encoders]).amax(dim=0)  # (B,) steps of any modality
        fused = self.fusion.combine(streams, lengths)
        losses = {**interaction.losses, **fused.losses}
        return Output({self.primary: self.head(fused.vector)}, self.primary, losses, masks)

    def encode(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Encoded]:
        """Embedded inputs (B, T, D) -> Encoded, per modality."""
        return {m: encoder(inputs[m], lengths[m]) for m, encoder in self._encoders()}

    def _encoders(self) -> list[tuple[str, Any]]:
        return list(self.encoders.items())
