"""LMF: what its factors compute, how they start, and what an absent modality says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmsa.fusion.lmf import LmfFusion
from mmsa.types import Stream

WIDTHS = {"text": 3, "audio": 2, "visual": 4, "gaze": 1}
RANK = 5


def fusion_of(num_modalities: int) -> LmfFusion:
    torch.manual_seed(0)
    return LmfFusion(dict(list(WIDTHS.items())[:num_modalities]), RANK)


def vectors(num_modalities: int, num_utterances: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    widths = list(WIDTHS.items())[:num_modalities]
    return {m: torch.randn(num_utterances, width, generator=generator) for m, width in widths}


def combined(fusion: LmfFusion, values: dict[str, Tensor]) -> Tensor:
    return fusion.combine({m: Stream(x, torch.ones(len(x), dtype=torch.int64)) for m, x in values.items()}).vector


@pytest.mark.parametrize("num_modalities", [1, 2, 3, 4])
def test_it_is_the_outer_product_read_by_a_tensor_of_its_rank(num_modalities: int) -> None:
    fusion, values = fusion_of(num_modalities), vectors(num_modalities)
    product, tensor = torch.ones(6, 1), torch.ones(RANK, 1)
    for m, x in values.items():
        extended = torch.cat([torch.ones(6, 1), x], dim=1)
        product = torch.einsum("bi,bj->bij", product, extended).flatten(1)
        tensor = torch.einsum("ri,rj->rij", tensor, fusion.factors[m][:, :, 0]).flatten(1)
    assert product.shape[1] == math.prod(1 + x.shape[1] for x in values.values())
    vector = combined(fusion, values)
    assert vector.shape == (6, fusion.output_dim)
    torch.testing.assert_close(vector, product @ tensor.T)


def test_an_absent_modality_leaves_the_rest_of_the_product_to_the_others() -> None:
    fusion, values = fusion_of(3), vectors(3)
    present = combined(fusion_of(2), {m: values[m] for m in ("text", "audio")})
    with torch.no_grad():
        for m, factor in fusion_of(2).factors.items():
            fusion.factors[m].copy_(factor)
    absent = combined(fusion, {**values, "visual": torch.zeros_like(values["visual"])})
    torch.testing.assert_close(absent, present * fusion.factors["visual"][:, 0, 0])


def test_the_factors_start_xavier_normal_and_are_a_module_of_their_own() -> None:
    """Their fans are those that torch sees in (rank, 1 + width, 1)."""
    torch.manual_seed(0)
    fusion = LmfFusion({"text": 299, "audio": 99}, rank=50)
    for m, width in (("text", 299), ("audio", 99)):
        factor = fusion.factors[m]
        assert factor.shape == (50, 1 + width, 1)
        deviation = math.sqrt(2 / (1 + width + 50))
        assert factor.std().item() == pytest.approx(deviation, rel=0.03)
        assert factor.abs().max() > 2 * deviation, "drawn from a uniform distribution"
    assert set(fusion.parameters()) == set(fusion.factors.parameters())
