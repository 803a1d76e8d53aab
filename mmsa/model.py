"""The order of the stages, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmsa.types import Batch, Embedded, Encoded, Fused, Interaction, Output, Reads


class Encoder(Protocol):
    """One modality's features -> Encoded; see `mmsa.encoder.bilstm` for an example.

    `input_dim` is the width of what `embed` returns. An encoder whose `Encoded.pooled` is not its utterance says its
    width as `pooled_dim`; one that reads word pieces has a static method `tokenizer`, see `mmsa.encoder.bert`.
    """

    input_dim: int
    sequence_dim: int
    utterance_dim: int

    def embed(self, features: Tensor) -> Tensor: ...
    def __call__(self, embedded: Embedded) -> Encoded: ...


class Fusion(Protocol):
    """Encoded modalities -> one vector; says which part of them it reads.

    A fusion may publish codes per modality, which a feedback may read: `code_dims` names them with their widths, and
    `codes(encoded)` returns {name: {modality: (B, width)}}.
    """

    reads: Reads
    requires_alignment: bool
    output_dim: int

    def interact(self, encoded: Mapping[str, Encoded]) -> Interaction: ...
    def combine(self, streams: Mapping[str, Tensor], lengths: Tensor) -> Fused: ...


class MultimodalModel(nn.Module):
    """Encoders, top-down feedback, regularizer, fusion and head, in this order.

    Args:
        encoders: one per modality.
        feedback: (Embedded, Encoded, the fusion) -> (new Embedded, its tensors), run `num_passes` times.
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
        inputs = self.embed(batch)
        encoded = self.encode(inputs)

        masks: Mapping[str, Tensor] = {}
        for _ in range(self.feedback.num_passes):
            masked, masks = self.feedback(inputs, encoded, self.fusion)
            encoded = self.encode(masked)

        parts = {m: getattr(part, self.fusion.reads) for m, part in encoded.items()}
        parts = self.regularizer("encoded", parts)
        encoded = {m: replace(part, **{self.fusion.reads: parts[m]}) for m, part in encoded.items()}

        interaction: Interaction = self.fusion.interact(encoded)
        streams = self.regularizer("streams", interaction.streams)
        lengths = torch.stack([batch.lengths[m] for m in self.encoders]).amax(dim=0)  # (B,) steps of any modality
        fused = self.fusion.combine(streams, lengths)
        losses = {**interaction.losses, **fused.losses}
        return Output({self.primary: self.head(fused.vector)}, self.primary, losses, masks)

    def embed(self, batch: Batch) -> dict[str, Embedded]:
        """What the encoders read of a batch, regularized, per modality."""
        inputs = {}
        for m, encoder in self._encoders():
            pieces = batch.pieces.get(m)
            values = encoder.embed(batch.features[m])  # (B, T, D), or (B, P, D) of word pieces
            inputs[m] = Embedded(values, batch.lengths[m], pieces, None if pieces is None else batch.features[m])
        before = {m: part.steps for m, part in inputs.items()}
        after = self.regularizer("inputs", before)
        return {m: part if after[m] is before[m] else part.replaced(after[m]) for m, part in inputs.items()}

    def encode(self, inputs: Mapping[str, Embedded]) -> dict[str, Encoded]:
        """Embedded -> Encoded, per modality."""
        return {m: encoder(inputs[m]) for m, encoder in self._encoders()}

    def _encoders(self) -> list[tuple[str, Any]]:
        return list(self.encoders.items())
