"""No regularizer: streams pass unchanged."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class NoRegularizer(nn.Module):
    """Leaves every site as it is."""

    requires_alignment = False

    def forward(self, site: str, streams: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return streams
