"""The types that pass between the stages: axes are always batch first, B utterances, T steps, D features.

Batch and Output enter and leave the model, where Lightning Fabric rebuilds them; so they are not frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor


@dataclass
class Batch:
    """A padded batch of utterances.

    Args:
        features: per modality (B, T_m, D_m) floats, zeros after each length, or (B, P_m) int64 ids of word pieces.
        lengths: per modality (B,) int64 steps (words); 0 where the utterance lacks this modality.
        targets: named tensors whose first axis is B.
        rows: (B,) int64 positions of the utterances in the fold.
        ids: names of the utterances.
        pieces: where features are ids of word pieces, (B, T_m, P_m) bool: which pieces make up which word. Pieces of
            no word ([CLS], padding) are False everywhere.
    """

    features: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    rows: Tensor
    ids: tuple[str, ...]
    pieces: Mapping[str, Tensor] = field(default_factory=dict)

    def part(self, rows: Sequence[int]) -> Batch:
        """The utterances at these positions of the batch, at least one, with its padding."""
        index = torch.tensor(rows)

        def of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor[index] for name, tensor in tensors.items()}

        return Batch(
            features=of(self.features),
            lengths=of(self.lengths),
            targets=of(self.targets),
            rows=self.rows[index],
            ids=tuple(self.ids[row] for row in rows),
            pieces=of(self.pieces),
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""

        return self.mapped(lambda tensor: sent(tensor, device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""

        def each(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(tensor) for name, tensor in tensors.items()}

        return replace(
            self,
            features=each(self.features),
            lengths=each(self.lengths),
            targets=each(self.targets),
            rows=change(self.rows),
            pieces=each(self.pieces),
        )


class Pieces(NamedTuple):
    """One utterance as a tokenizer splits it.

    Args:
        ids: (P,) int64 of the word pieces.
        words: (P,) int64, the word of each piece, -1 for pieces of none ([CLS], [SEP]).
    """

    ids: np.ndarray
    words: np.ndarray


@dataclass(frozen=True)
class Stream:
    """The streams that a regularizer may change and a fusion combines: steps, or one vector per utterance.

    Args:
        values: (B, T, D) steps, zeros at padding, or (B, D) vectors.
        lengths: (B,) int64 valid steps, or those that a vector stands for; 0 where the utterance has nothing of it.
    """

    values: Tensor
    lengths: Tensor

    @property
    def has_steps(self) -> bool:
        """Whether there is one vector per step."""
        return self.values.dim() == 3


@dataclass(frozen=True)
class Embedded:
    """An encoder's input of one modality, which a feedback or a regularizer may mask.

    Args:
        values: (B, T, D) one vector per step, or (B, P, D) one per word piece.
        lengths: (B,) int64 valid steps (words).
        pieces: (B, T, P) bool, which pieces make up which word; None where values are steps.
        ids: (B, P) int64 of the pieces, as long as nothing has masked the values; None where values are steps.
    """

    values: Tensor
    lengths: Tensor
    pieces: Tensor | None = None
    ids: Tensor | None = None

    @property
    def num_steps(self) -> int:
        """Steps (words) of the time axis, padding included."""
        return self.values.shape[1] if self.pieces is None else self.pieces.shape[1]

    @property
    def steps(self) -> Stream:
        """The steps that a regularizer changes: the values, or for word pieces ones (B, T, D), the words' mask."""
        if self.pieces is None:
            return Stream(self.values, self.lengths)
        return Stream(self.values.new_ones(len(self.values), self.num_steps, self.values.shape[2]), self.lengths)

    def replaced(self, steps: Stream) -> Embedded:
        """The same after a regularizer has changed its `steps`."""
        if self.pieces is not None:
            return self.masked(steps.values)
        return replace(self, values=steps.values, lengths=steps.lengths)

    def masked(self, mask: Tensor) -> Embedded:
        """The values times a mask (B, T, D) of the steps; a word's mask acts on its pieces, and [CLS] and such stay."""
        if self.pieces is None:
            return replace(self, values=self.values * mask)
        spread = self.pieces.to(mask.dtype).transpose(1, 2) @ mask  # (B, P, D)
        of_word = self.pieces.any(dim=1)[:, :, None]  # (B, P, 1)
        return replace(self, values=torch.where(of_word, self.values * spread, self.values), ids=None)


Reads = Literal["sequence", "utterance"]
"""The part of `Encoded` that a fusion reads."""


@dataclass(frozen=True)
class Encoded:
    """The encoding of one modality; zeros at padding and where the modality is absent.

    Args:
        sequence: (B, T, S) one vector per step; an encoder may make fewer steps than it reads.
        utterance: (B, U) one vector per utterance, which a fusion may read.
        lengths: (B,) int64 valid steps of the sequence, 0 exactly where the utterance lacks the modality.
        pooled: (B, V) one vector per utterance of the top layer's steps alone, which a feedback may read; None where it
            is `utterance`.
    """

    sequence: Tensor
    utterance: Tensor
    lengths: Tensor
    pooled: Tensor | None = None

    def part(self, reads: Reads) -> Stream:
        """The part that a fusion reads."""
        return Stream(self.sequence if reads == "sequence" else self.utterance, self.lengths)

    def replaced(self, reads: Reads, stream: Stream) -> Encoded:
        """The same with another part; where utterances were mixed, the part that nobody reads is not."""
        if reads == "sequence":
            return replace(self, sequence=stream.values, lengths=stream.lengths)
        return replace(self, utterance=stream.values, lengths=stream.lengths)


@dataclass(frozen=True)
class Interaction:
    """A fusion's streams, before it combines them.

    Args:
        streams: combined next; a regularizer may act on them.
        losses: named, unweighted auxiliary losses.
    """

    streams: Mapping[str, Stream]
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Fused:
    """A fusion's result.

    Args:
        vector: (B, F) the joint representation that the head reads.
        losses: named, unweighted auxiliary losses.
        published: what an objective may read besides, by name: hidden layers, codes, distributions.
    """

    vector: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    published: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Mix:
    """Of which utterances of the batch each of N mixed ones is made, and in which shares.

    Args:
        rows: (N, K) int64 positions in the batch; N may exceed B.
        weights: per stream (N, K) shares of its values.
        targets: (N, K) shares of the targets, which may be others and may carry a gradient.
    """

    rows: Tensor
    weights: Mapping[str, Tensor]
    targets: Tensor


@dataclass(frozen=True)
class Regularized:
    """The streams of a site after a regularizer, and a record of its changes.

    Args:
        streams: by the same names; of mixed utterances their lengths too are those of the mixed ones.
        kept: per stream, True where it was kept: (B, T) steps, (B,) vectors, or of the values' shape where single
            elements were dropped; a stream that is not named was kept whole.
        rate: (B,) share of the utterance that was to be dropped, as drawn; None where none was drawn.
        mix: how utterances were mixed; None: row b is utterance b.
    """

    streams: Mapping[str, Stream]
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    rate: Tensor | None = None
    mix: Mix | None = None


@dataclass
class Output:
    """The model's result for N = B utterances, or of N mixed ones in training.

    Args:
        predictions: named like the targets, each (N, C).
        primary: name of the prediction that is selected on.
        losses: named, unweighted auxiliary losses of any stage.
        feedback: the feedback's tensors (its masks), for figures.
        mix: of which utterances of the batch each prediction is; None: of one each, in order.
    """

    predictions: Mapping[str, Tensor]
    primary: str
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    feedback: Mapping[str, Tensor] = field(default_factory=dict)
    mix: Mix | None = None


@dataclass(frozen=True)
class Internals:
    """The intermediate values between a batch and its output.

    Args:
        encoded: per modality the encoding, before the regularizer.
        streams: those that the fusion combined.
        fused: its result.
        regularized: per site the regularizer's record.
        complete: per modality the encoding of the inputs as they are, with its gradient; empty where the objective does
            not ask for it.
    """

    encoded: Mapping[str, Encoded]
    streams: Mapping[str, Stream]
    fused: Fused
    regularized: Mapping[str, Regularized]
    complete: Mapping[str, Encoded] = field(default_factory=dict)


class Moment(NamedTuple):
    """The position of a batch in the training.

    Args:
        epoch: from 1.
        step: batches of this phase and epoch so far, this one included.
        num_epochs: most epochs of the training.
        num_steps: batches of this phase in an epoch.
        phase: its name.
    """

    epoch: int
    step: int
    num_epochs: int
    num_steps: int
    phase: str = "main"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`; the program does not wait until a GPU has it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def over(mask: Tensor, values: Tensor) -> Tensor:
    """A mask (B,) or (B, T) as it broadcasts over values (B, D) or (B, T, D)."""
    return mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim()))


def padding_mask(lengths: Tensor, num_steps: int) -> Tensor:
    """(B,) lengths -> (B, T) mask that is True at padding, as in torch."""
    return torch.arange(num_steps, device=lengths.device)[None, :] >= lengths[:, None]  # (B, T)
