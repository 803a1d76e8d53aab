"""Top-down feedback by masks on the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.recurrence import Recurrence
from mmsa.ranges import Count, DropRate
from mmsa.types import Encoded


class RecurrentGenerator(nn.Module):
    """A one-way LSTM whose states are the mask's logits, so a mask lies in (sigmoid(-1), sigmoid(1))."""

    def __init__(self, source_dim: int, target_dim: int, dropout: float) -> None:
        super().__init__()
        self.rnn = Recurrence(source_dim, target_dim, bidirectional=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, source_dim), lengths (B,) -> logits (B, T, target_dim)."""
        return self.dropout(self.rnn(sequence, lengths)[0])


class LinearGenerator(nn.Module):
    """A linear map of every step to the mask's logits."""

    def __init__(self, source_dim: int, target_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(source_dim, target_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, source_dim), lengths (B,) -> logits (B, T, target_dim)."""
        return self.dropout(self.linear(sequence))


class MLPGenerator(nn.Module):
    """Two layers over every step, the inner one twice as wide as the source, to the mask's logits."""

    def __init__(self, source_dim: int, target_dim: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(source_dim, 2 * source_dim), nn.GELU(), nn.Linear(2 * source_dim, target_dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, source_dim), lengths (B,) -> logits (B, T, target_dim)."""
        return self.dropout(self.mlp(sequence))


GENERATORS: dict[str, Callable[[int, int, float], nn.Module]] = {
    "recurrent": RecurrentGenerator,
    "linear": LinearGenerator,
    "mlp": MLPGenerator,
}


def combined(masks: Tensor, present: Tensor, how: Literal["mean", "max", "min"]) -> Tensor:
    """One mask of several, over the sources that an utterance has; ones where it has none.

    Shapes: masks (S, B, T, D) in (0, 1), present (S, B, 1, 1) -> (B, T, D)
    """
    if how == "mean":
        mask = (masks * present).sum(dim=0) / present.sum(dim=0).clamp(min=1)
    elif how == "max":
        mask = masks.masked_fill(~present, 0.0).amax(dim=0)
    else:
        mask = masks.masked_fill(~present, 1.0).amin(dim=0)
    return torch.where(present.any(dim=0), mask, 1.0)


class MaskFeedback(nn.Module):
    """Masks each modality's inputs by what the other modalities encoded, before the encoders run again.

    Every other modality has its own mask generator; their sigmoids are combined over the modalities that the utterance
    has (an utterance without any of them is not masked).

    Reference: MMLatch (Paraskevopoulos et al., ICASSP 2022, arXiv 2201.09828), whose masks are means and act once;
    the perceptron and `use_self` are of the authors' later slp. Where we differ: the dropout on the mask acts in
    training only (the original also drops at evaluation, so its predictions are random).

    Args:
        input_dims: width of the embedded input per modality.
        source_dims: width of the encoded sequence per modality.
        generator: "recurrent" (the paper's), or without memory and per step "linear" or "mlp" (two layers).
        combine: "mean", element-wise "max" or "min" of the masks of the sources.
        use_self: a modality's own encoding is one more source of its mask.
        num_passes: top-down passes, >= 1; every mask acts on the original inputs, not on masked ones.
        mask_dropout: rate in [0, 1) on the mask, in training only.
        generator_dropout: rate in [0, 1) on the mask's logits, in training only.

    Shapes: embedded (B, T, D_m) and Encoded sequences (B, T, S_m) per modality -> the same inputs, masked, and the
    masks (B, T, D_m).

    Raises:
        ConfigError: a single modality without `use_self`: nothing could be fed back.
    """

    requires_alignment = True

    def __init__(
        self,
        input_dims: Mapping[str, int],
        source_dims: Mapping[str, int],
        generator: Literal["recurrent", "linear", "mlp"] = "recurrent",
        combine: Literal["mean", "max", "min"] = "mean",
        use_self: bool = False,
        num_passes: Count = 1,
        mask_dropout: DropRate = 0.2,
        generator_dropout: DropRate = 0.1,
    ) -> None:
        super().__init__()
        if len(input_dims) < 2 and not use_self:
            raise ConfigError(
                f"feedback masks a modality by the others and needs two or more, but there is only "
                f"{', '.join(input_dims)}.\n  type feedback=none, or feedback.use_self=true, "
                "or name more in dataset.modalities"
            )
        self.combine = combine
        self.num_passes = num_passes
        self.generators = nn.ModuleDict(
            {
                target: nn.ModuleDict(
                    {
                        source: GENERATORS[generator](source_dims[source], target_dim, generator_dropout)
                        for source in input_dims
                        if source != target or use_self
                    }
                )
                for target, target_dim in input_dims.items()
            }
        )
        self.dropout = nn.Dropout(mask_dropout)

    def forward(
        self, embedded: Mapping[str, Tensor], encoded: Mapping[str, Encoded]
    ) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
        masks = {target: self.mask(target, encoded) for target in embedded}
        return {target: low * self.dropout(masks[target]) for target, low in embedded.items()}, masks

    def mask(self, target: str, encoded: Mapping[str, Encoded]) -> Tensor:
        """The mask (B, T, D) of one modality, before dropout."""
        generators: nn.ModuleDict = self.generators[target]  # type: ignore[assignment]
        parts = [encoded[source] for source in generators]
        logits = [
            generator(part.sequence, part.lengths) for generator, part in zip(generators.values(), parts, strict=True)
        ]
        masks = torch.sigmoid(torch.stack(logits))  # (S, B, T, D)
        present = torch.stack([part.lengths > 0 for part in parts])[:, :, None, None]  # (S, B, 1, 1)
        return combined(masks, present, self.combine)
