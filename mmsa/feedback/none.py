"""No feedback: one bottom-up pass."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmsa.stages import Fusion
from mmsa.types import Embedded, Encoded


class NoFeedback(nn.Module):
    """The encoders run once on their inputs."""

    num_passes = 0
    requires_alignment = False

    def forward(
        self, embedded: Mapping[str, Embedded], encoded: Mapping[str, Encoded], fusion: Fusion
    ) -> tuple[Mapping[str, Embedded], dict[str, Tensor]]:
        return embedded, {}
