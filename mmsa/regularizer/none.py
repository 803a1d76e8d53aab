"""No regularizer: streams pass unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mmsa.types import Regularized, Stream


class NoRegularizer(nn.Module):
    """Leaves every site as it is."""

    requires_alignment = False

    def forward(self, site: str, streams: Mapping[str, Stream]) -> Regularized:
        return Regularized(streams)
