"""No feedback: one bottom-up pass."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmsa.types import Encoded


class NoFeedback(nn.Module):
    """The encoders run once on their inputs."""

    num_passes = 0
    requires_alignment = False

    def forward(
        self, embedded: Mapping[str, Tensor], encoded: Mapping[str, Encoded]
    ) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
        return embedded, {}
