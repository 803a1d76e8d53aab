"""Element dropout, the baseline of modality masking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import nn

from mmsa.errors import ConfigError
from mmsa.layers.dropout import Dropout
from mmsa.ranges import DropRate
from mmsa.types import Regularized, Stream


class ElementDropout(nn.Module):
    """Drops every element of every stream on its own and scales up the others, in training only.

    Reference: the scheme "dropout" with which M3 (Interspeech 2021) is compared. Where we differ: in the released code
    it has no effect.

    Args:
        p: rate in [0, 1).
        sites: where it acts: "inputs" of the encoders, "encoded" modalities, "streams" of the fusion.

    Shapes: streams of any shape -> the same.

    Raises:
        ConfigError: no site.
    """

    requires_alignment = False

    def __init__(
        self, p: DropRate = 0.2, sites: Sequence[Literal["inputs", "encoded", "streams"]] = ("encoded",)
    ) -> None:
        super().__init__()
        if not sites:
            raise ConfigError("regularizer.sites=[]: dropout would have no effect.\n  type regularizer.sites=[encoded]")
        self.sites = frozenset(sites)
        self.of_vectors, self.of_steps = Dropout(p), Dropout(p, steps=(1,))

    def forward(self, site: str, streams: Mapping[str, Stream]) -> Regularized:
        """The streams of a site, with dropout in training if this site is one of ours."""
        if site not in self.sites or not self.training:
            return Regularized(streams)
        dropped = {
            name: (self.of_steps if stream.has_steps else self.of_vectors)(stream.values)
            for name, stream in streams.items()
        }
        kept = {name: (values != 0) | (streams[name].values == 0) for name, values in dropped.items()}
        return Regularized({name: replace(stream, values=dropped[name]) for name, stream in streams.items()}, kept)
