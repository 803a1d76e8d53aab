"""M3: modality masking as a regularizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from mmsa.errors import ConfigError
from mmsa.layers.draws import drawn
from mmsa.layers.support import SEVERAL, check_equal, check_number
from mmsa.ranges import NonNegative, Probability
from mmsa.types import Regularized, Stream, over, sent

Site = Literal["inputs", "encoded", "streams"]


class M3(nn.Module):
    """Masks at random one of the modalities, in training only.

    hard: with probability `p` a batch is masked (`gate` makes it a sample or a step); then each of its steps (or,
    without `per_step`, each of its utterances) loses exactly one stream, drawn by `probabilities`.
    soft: one stream per batch (or, with `per_step`, per step) loses each element with probability `p`.
    The expected masked share of stream m is p * probabilities[m] in both, whatever the gate.

    Reference: M3 (Georgiou, Paraskevopoulos, Potamianos, Interspeech 2021), whose runs are hard, per step, on the
    encoded modalities, with one coin per batch and without rescaling. Where we differ: all draws come from one seeded
    generator; soft masks per step, which the released code cannot run, are the intended ones; "uniform" rescaling acts
    in training only.

    Args:
        modalities: names of the modalities, in order.
        generator: source of all draws.
        p: probability in [0, 1], see above.
        mode: "hard" or "soft".
        gate: the unit of the coin of hard masks: the "batch", each "sample" (utterance) or each "step".
        per_step: draw for every step instead of once (soft: per batch, hard: per utterance); once where one of the
            streams is a vector per utterance.
        probabilities: how often each modality is drawn, in the order of the modalities, non-negative, normalised here;
            None is uniform. The site "streams" is uniform over its streams.
        rescale: "none"; "uniform" multiplies by 1 / (1 - p / M); "per_modality" by 1 / (1 - p * probabilities[m]);
            "legacy" as "uniform" but at evaluation too, as the original did.
        sites: where it acts: "inputs" of the encoders, "encoded" modalities, "streams" of the fusion.

    Shapes: streams (B, T, D_m) or (B, D_m), sharing B and, per step, T -> the same.

    Raises:
        ConfigError: fewer than two modalities, probabilities of another number or without a positive one, a
            rescaling that divides by zero, no site, a gate that would do nothing, or masks per step of streams whose
            steps differ in number.
    """

    num_modalities = SEVERAL
    without_alignment = "regularizer.per_step=false"

    def __init__(
        self,
        modalities: Sequence[str],
        generator: torch.Generator,
        p: Probability = 0.2,
        mode: Literal["hard", "soft"] = "hard",
        gate: Literal["batch", "sample", "step"] = "batch",
        per_step: bool = True,
        probabilities: list[NonNegative] | None = None,
        rescale: Literal["none", "uniform", "per_modality", "legacy"] = "none",
        sites: Sequence[Site] = ("encoded",),
    ) -> None:
        super().__init__()
        num_modalities = len(modalities)
        needs = "regularizer=m3 masks one of several modalities and"
        check_number(needs, self.num_modalities, modalities, "regularizer=none")
        if probabilities is not None and (len(probabilities) != num_modalities or sum(probabilities) <= 0):
            raise ConfigError(
                f"regularizer.probabilities={list(probabilities)}: needs {num_modalities} numbers, one per modality "
                f"({', '.join(modalities)}), not all 0.\n  type regularizer.probabilities=null for uniform"
            )
        if rescale != "none" and p == 1 and (probabilities and max(probabilities) == sum(probabilities)):
            raise ConfigError(
                "regularizer.p=1 with one modality always drawn masks it for good, and rescaling divides by 0.\n"
                "  type regularizer.rescale=none, or a smaller regularizer.p"
            )
        if not sites:
            raise ConfigError("regularizer.sites=[]: M3 would have no effect.\n  type regularizer.sites=[encoded]")
        if gate != "batch" and mode == "soft":
            raise ConfigError(
                f"regularizer.gate={gate}: soft masks always act and have no gate.\n"
                "  type regularizer.gate=batch, or regularizer.mode=hard"
            )
        if gate == "step" and not per_step:
            raise ConfigError(
                "regularizer.gate=step decides for every step, but regularizer.per_step=false masks whole utterances.\n"
                "  type regularizer.gate=sample, or regularizer.per_step=true"
            )
        self.requires_alignment = per_step
        self.p, self.mode, self.gate, self.per_step, self.rescale = p, mode, gate, per_step, rescale
        self.sites = frozenset(sites)
        self.probabilities = probabilities
        self.generator = generator

    def forward(self, site: str, streams: Mapping[str, Stream]) -> Regularized:
        """The streams of a site, masked in training if this site is one of ours."""
        if site not in self.sites:
            return Regularized(streams)
        probabilities = self._shares(site, len(streams))
        values = {name: stream.values for name, stream in streams.items()}
        kept: dict[str, Tensor] = {}
        if self.training and self.p > 0:
            kept = self._kept(streams, probabilities)
            values = {name: values[name].masked_fill(~over(kept[name], values[name]), 0.0) for name in kept}
        if self.rescale == "legacy" or (self.training and self.rescale != "none"):
            shares = dict(zip(values, self._rescaled(probabilities), strict=True))
            values = {name: value / (1 - self.p * shares[name]) for name, value in values.items()}
        changed = {
            name: replace(streams[name], values=v) for name, v in values.items() if v is not streams[name].values
        }
        return Regularized({**streams, **changed}, kept)

    def _shares(self, site: str, num_streams: int) -> Tensor:
        weights = [1.0] * num_streams if site == "streams" or self.probabilities is None else self.probabilities
        shares = torch.tensor(weights, dtype=torch.float64)
        return shares / shares.sum()

    def _rescaled(self, probabilities: Tensor) -> list[float]:
        num_streams = len(probabilities)
        return probabilities.tolist() if self.rescale == "per_modality" else [1 / num_streams] * num_streams

    def _kept(self, streams: Mapping[str, Stream], probabilities: Tensor) -> dict[str, Tensor]:
        """The kept part of each stream, (B, T) or (B,), soft masks in the values' shape."""
        first = next(iter(streams.values())).values
        per_step = self.per_step and all(stream.has_steps for stream in streams.values())
        if per_step:
            needs = "regularizer.per_step=true masks one stream at each step, but their steps differ:"
            num_steps = {name: stream.values.shape[1] for name, stream in streams.items()}
            check_equal(num_steps, needs, "regularizer.per_step=false")
        steps = (1,) if per_step else ()
        shape = first.shape[: 1 + len(steps)]  # (B, T) or (B,)
        if self.mode == "soft":
            shape = torch.Size((1, *shape[1:]))
        chosen = sent(drawn(partial(self._chosen, probabilities), shape, steps, self.generator), first.device)
        kept = {}
        for index, (name, stream) in enumerate(streams.items()):
            kept[name] = chosen != index
            if self.mode == "soft":
                axes = (1,) if stream.has_steps else ()
                lost = sent(drawn(self._lost, stream.values.shape, axes, self.generator), first.device)
                kept[name] = ~(lost & ~over(kept[name], stream.values))
        return kept

    def _chosen(self, probabilities: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """The number of the stream that is masked at each place, -1 where none is."""
        if self.mode == "hard" and self.gate == "batch" and torch.rand((), generator=generator) >= self.p:
            return torch.full(shape, -1)
        chosen = torch.multinomial(probabilities, math.prod(shape), replacement=True, generator=generator).view(shape)
        if self.mode == "soft" or self.gate == "batch":
            return chosen
        gates = shape if self.gate == "step" else shape[:1] + (1,) * (len(shape) - 1)  # (B, T); (B, 1) or (B,)
        return torch.where(torch.rand(gates, generator=generator) < self.p, chosen, -1)

    def _lost(self, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        return torch.rand(shape, generator=generator) < self.p
