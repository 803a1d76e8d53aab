"""What travels between the stages: axes are always batch first, B utterances, T steps, D features.

Batch and Output enter and leave the model, where Lightning Fabric rebuilds them; so they are not frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """A padded batch of utterances.

    Args:
        features: per modality (B, T_m, D_m) floats, zeros after each length, or (B, T_m) token ids.
        lengths: per modality (B,) int64 steps; 0 says that the utterance lacks this modality.
        targets: named tensors whose first axis is B.
        rows: (B,) int64 positions of the utterances in the fold.
        ids: names of the utterances.
        word_index: per modality (B, T_m) int64 word of every piece, where pieces map to words.
    """

    features: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    rows: Tensor
    ids: tuple[str, ...]
    word_index: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""

        def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

        return replace(
            self,
            features=moved(self.features),
            lengths=moved(self.lengths),
            targets=moved(self.targets),
            rows=self.rows.to(device),
            word_index=moved(self.word_index),
        )


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of one modality; zeros at padding and where the modality is absent.

    Args:
        sequence: (B, T, S) one vector per step.
        utterance: (B, U) one vector per utterance.
        lengths: (B,) int64 valid steps.
    """

    sequence: Tensor
    utterance: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Interaction:
    """What a fusion makes of the modalities before it combines them.

    Args:
        streams: what is combined, each (B, T, S) or (B, S); a regularizer may act on them.
        losses: named, unweighted auxiliary losses.
    """

    streams: Mapping[str, Tensor]
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Fused:
    """What a fusion makes of all modalities.

    Args:
        vector: (B, F) the joint representation that the head reads.
        losses: named, unweighted auxiliary losses.
    """

    vector: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Output:
    """What the model returns.

    Args:
        predictions: named like the targets, each (B, C).
        primary: name of the prediction that is selected on.
        losses: named, unweighted auxiliary losses of any stage.
        feedback: the feedback's tensors (its masks), for figures.
    """

    predictions: Mapping[str, Tensor]
    primary: str
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    feedback: Mapping[str, Tensor] = field(default_factory=dict)


def padding_mask(lengths: Tensor, num_steps: int) -> Tensor:
    """(B,) lengths -> (B, T) mask that is True at padding, as in torch."""
    return torch.arange(num_steps, device=lengths.device)[None, :] >= lengths[:, None]  # (B, T)
