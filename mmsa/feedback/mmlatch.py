"""Top-down feedback by masks on the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.dropout import Dropout
from mmsa.layers.recurrence import Recurrence
from mmsa.layers.support import ANY_NUMBER, SEVERAL, check_number
from mmsa.ranges import Count, DropRate
from mmsa.stages import Fusion
from mmsa.types import Embedded, Encoded


class RecurrentGenerator(nn.Module):
    """A one-way LSTM whose states are the mask's logits, so a mask lies in (sigmoid(-1), sigmoid(1))."""

    def __init__(self, source_dim: int, target_dim: int, dropout: float) -> None:
        super().__init__()
        self.rnn = Recurrence(source_dim, target_dim, bidirectional=False)
        self.dropout = Dropout(dropout, steps=(1,))

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, source_dim), lengths (B,) -> logits (B, T, target_dim)."""
        return self.dropout(self.rnn(sequence, lengths)[0])


class LinearGenerator(nn.Module):
    """A linear map of every step to the mask's logits."""

    def __init__(self, source_dim: int, target_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(source_dim, target_dim)
        self.dropout = Dropout(dropout, steps=(1,))

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
        self.dropout = Dropout(dropout, steps=(1,))

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, source_dim), lengths (B,) -> logits (B, T, target_dim)."""
        return self.dropout(self.mlp(sequence))


GENERATORS: dict[str, Callable[[int, int, float], nn.Module]] = {
    "recurrent": RecurrentGenerator,
    "linear": LinearGenerator,
    "mlp": MLPGenerator,
}


def combined(masks: Sequence[Tensor], present: Tensor, how: Literal["mean", "max", "min"]) -> Tensor:
    """One mask of several, over the sources that an utterance has; ones where it has none.

    Shapes: masks (B, T, D) of each of S sources, in (0, 1), present (S, B, 1, 1) -> (B, T, D)
    """
    alone = (~present.any(dim=0)).to(masks[0].dtype)  # (B, 1, 1)
    if how == "mean":
        shares = (present / present.sum(dim=0).clamp(min=1)).to(alone.dtype)  # (S, B, 1, 1)
        return sum([mask * share for mask, share in zip(masks, shares, strict=True)], alone)
    if how == "max":
        return torch.stack(list(masks)).masked_fill(~present, 0.0).amax(dim=0) + alone
    return torch.stack(list(masks)).masked_fill(~present, 1.0).amin(dim=0)


class MaskFeedback(nn.Module):
    """Masks each modality's inputs by the encodings of the others, before the encoders run again.

    Every other modality has its own mask generator; their sigmoids are combined over the modalities that the utterance
    has (an utterance without any of them is not masked).

    Reference: MMLatch (Paraskevopoulos et al., ICASSP 2022, arXiv 2201.09828), whose masks are means over the encoded
    sequences and act once; the perceptron and `use_self` are of the authors' later slp, the other sources and
    `source_mlp` of the branches of stavrakas13/MISA. Where we differ: the dropout on the mask acts in training only
    (MMLatch also drops at evaluation, so its predictions are random); source="private" reads MISA's private codes,
    which the branch of that name does not.

    Args:
        input_dims: width of the embedded input per modality.
        source_dims: per modality the width of each source: its sequence, its utterance vector, and the codes that the
            fusion publishes.
        source: input of the generators: "sequence" (a mask per step), "utterance" (one per utterance), or a code
            of the fusion (one per utterance), such as "projected", "private" or "shared" of fusion=misa.
        source_mlp: each modality's source first passes a linear layer, GELU and layer normalisation of its width.
        generator: "recurrent" (the paper's), or without memory and per step "linear" or "mlp" (two layers).
        combine: "mean", element-wise "max" or "min" of the masks of the sources.
        use_self: a modality's own encoding is one more source of its mask.
        num_passes: top-down passes, >= 1; every mask acts on the original inputs, not on masked ones.
        mask_dropout: rate in [0, 1) on the mask, in training only.
        generator_dropout: rate in [0, 1) on the mask's logits, in training only.

    Shapes: Embedded of (B, T, D_m) and Encoded per modality -> the same inputs, masked, and the masks (B, T, D_m).

    Raises:
        ConfigError: a single modality without `use_self`: nothing could be fed back; a source that this fusion does not
            publish; a recurrent generator of a source that has no steps.
    """

    without_alignment = "feedback.source=utterance feedback.generator=linear"

    def __init__(
        self,
        input_dims: Mapping[str, int],
        source_dims: Mapping[str, Mapping[str, int]],
        source: str = "sequence",
        source_mlp: bool = False,
        generator: Literal["recurrent", "linear", "mlp"] = "recurrent",
        combine: Literal["mean", "max", "min"] = "mean",
        use_self: bool = False,
        num_passes: Count = 1,
        mask_dropout: DropRate = 0.2,
        generator_dropout: DropRate = 0.1,
    ) -> None:
        super().__init__()
        self.num_modalities = ANY_NUMBER if use_self else SEVERAL
        self.requires_alignment = source == "sequence"
        needs = "feedback masks a modality by the others and"
        check_number(needs, self.num_modalities, input_dims, "feedback=none, or feedback.use_self=true")
        if source not in source_dims:
            raise ConfigError(
                f"feedback.source={source}: this fusion offers {', '.join(source_dims)}; projected, private and "
                "shared codes are of fusion=misa.\n  type feedback.source=sequence, or fusion=misa"
            )
        if generator == "recurrent" and source != "sequence":
            raise ConfigError(
                f"feedback.generator=recurrent reads steps, but feedback.source={source} is one vector per utterance.\n"
                "  type feedback.generator=linear, or feedback.source=sequence"
            )
        widths = source_dims[source]
        self.source, self.combine, self.num_passes = source, combine, num_passes
        self.transforms = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
                if source_mlp
                else nn.Identity()
                for m, width in widths.items()
            }
        )
        self.generators = nn.ModuleDict(
            {
                target: nn.ModuleDict(
                    {
                        name: GENERATORS[generator](widths[name], target_dim, generator_dropout)
                        for name in input_dims
                        if name != target or use_self
                    }
                )
                for target, target_dim in input_dims.items()
            }
        )
        self.dropout = Dropout(mask_dropout, steps=(1,))

    def forward(
        self, embedded: Mapping[str, Embedded], encoded: Mapping[str, Encoded], fusion: Fusion
    ) -> tuple[dict[str, Embedded], dict[str, Tensor]]:
        sources = {m: self.transforms[m](source) for m, source in self._sources(encoded, fusion).items()}
        for m, low in embedded.items():
            unequal = [name for name, source in sources.items() if source.shape[1] != low.num_steps]
            if unequal and self.source == "sequence":
                raise ConfigError(
                    f"feedback.source=sequence masks {m} step by step, and the encoder of {unequal[0]} gives another "
                    f"number of steps.\n  type {self.without_alignment}"
                )
        lengths = {m: part.lengths for m, part in encoded.items()}
        masks = {m: self.mask(m, sources, lengths).expand(-1, low.num_steps, -1) for m, low in embedded.items()}
        return {m: low.masked(self.dropout(masks[m])) for m, low in embedded.items()}, masks

    def mask(self, target: str, sources: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """The mask (B, T, D) of one modality, before dropout; (B, 1, D) from sources without steps.

        Args:
            target: modality to mask.
            sources: of each modality, (B, T, S) or (B, 1, S).
            lengths: (B,) steps of each modality.
        """
        generators: nn.ModuleDict = self.generators[target]  # type: ignore[assignment]
        logits = [generator(sources[name], lengths[name]) for name, generator in generators.items()]
        masks = [torch.sigmoid(each) for each in logits]  # (B, T, D) each
        present = torch.stack([lengths[name] > 0 for name in generators])[:, :, None, None]  # (S, B, 1, 1)
        return combined(masks, present, self.combine)

    def _sources(self, encoded: Mapping[str, Encoded], fusion: Any) -> dict[str, Tensor]:
        """The source of each modality: (B, T, S), or (B, 1, S) for one vector per utterance."""
        if self.source == "sequence":
            return {m: part.sequence for m, part in encoded.items()}
        if self.source == "utterance":
            return {m: (part.utterance if part.pooled is None else part.pooled)[:, None] for m, part in encoded.items()}
        return {m: code[:, None] for m, code in fusion.codes(encoded)[self.source].items()}
