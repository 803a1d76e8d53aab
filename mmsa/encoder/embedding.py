"""Word vectors that learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mmsa.types import Embedded, Encoded


class WordEmbedding(nn.Module):
    """A table of word vectors that learns, before an encoder that reads vectors.

    Reference: the word vectors of MISA (ACM MM 2020), whose code means to freeze the table and trains it.

    Args:
        encoder: encoder of vectors as wide as the table.
        table: (V, D) first vectors, row 0 zeros: the padding, which stays zeros.

    Shapes: ids (B, T) int64 -> embedded (B, T, D) -> the encoder's output.
    """

    without_gradient: ClassVar[Mapping[str, str]] = {"table.weight": "words that do not come"}

    def __init__(self, encoder: nn.Module, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table.detach().clone(), freeze=False, padding_idx=0)
        self.table.weight_decay = 0.0  # where the parameter groups look: decay would wear off words that never come
        self.encoder: Any = encoder
        self.input_dim = int(encoder.input_dim)  # type: ignore[arg-type]
        self.sequence_dim = int(encoder.sequence_dim)  # type: ignore[arg-type]
        self.utterance_dim = int(encoder.utterance_dim)  # type: ignore[arg-type]
        if hasattr(encoder, "pooled_dim"):
            self.pooled_dim = int(encoder.pooled_dim)  # type: ignore[arg-type]

    def embed(self, features: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D) their vectors, zeros at padding."""
        vectors: Tensor = self.table(features)
        embedded: Tensor = self.encoder.embed(vectors)
        return embedded

    def forward(self, embedded: Embedded) -> Encoded:
        encoded: Encoded = self.encoder(embedded)
        return encoded
