"""The fusion of utterance vectors by two layers."""

from __future__ import annotations

import torch
from torch import Tensor

from mmsa.fusion.mlp import MlpFusion
from mmsa.types import Encoded

LENGTHS = torch.tensor([3, 1])
WIDTHS = {"text": 4, "audio": 2, "gaze": 3}


def vectors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {m: torch.randn(2, width, generator=generator) for m, width in WIDTHS.items()}


def encoded() -> dict[str, Encoded]:
    return {m: Encoded(torch.zeros(2, 3, 1), x, LENGTHS) for m, x in vectors().items()}


def test_two_layers_over_the_vectors_side_by_side() -> None:
    fusion = MlpFusion(WIDTHS, 5, dropout=0.4).eval()
    fused = fusion.combine(fusion.interact(encoded()).streams)
    joined = torch.cat(list(vectors().values()), dim=1)
    first = (joined @ fusion.layers.first.weight.T + fusion.layers.first.bias).clamp(min=0)
    second = (first @ fusion.layers.second.weight.T + fusion.layers.second.bias).clamp(min=0)
    torch.testing.assert_close(fused.published["hidden"], first)
    torch.testing.assert_close(fused.vector, second)
    assert fusion.output_dim == 5 and fusion.published_dims == {"hidden": 5}


def test_dropout_acts_on_the_vectors_alone() -> None:
    """Units that sum the vectors agree, whatever was dropped of these."""
    torch.manual_seed(0)
    fusion = MlpFusion(WIDTHS, 5, dropout=0.5).train()
    with torch.no_grad():
        fusion.layers.first.weight.fill_(1.0)
        fusion.layers.first.bias.fill_(100.0)
    hidden = fusion.combine(fusion.interact(encoded()).streams).published["hidden"]
    assert (hidden == hidden[:, :1]).all()
    assert not torch.allclose(hidden[:, 0], 100 + torch.cat(list(vectors().values()), dim=1).sum(dim=1))
