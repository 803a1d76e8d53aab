"""Attention gives one result and one gradient, however it is computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmsa.layers import attention, products
from mmsa.layers.attention import SymmetricAttention
from mmsa.layers.products import linears


def results(dropout: float) -> list[Tensor]:
    """What a pair of sequences of other lengths, one of them without steps, attends to, and every gradient."""
    torch.manual_seed(1)
    layer = SymmetricAttention(40, dropout).train()
    x, y = (torch.randn(3, 6, 40, requires_grad=True) for _ in range(2))
    steps = torch.arange(6)[None]
    attended = layer(x, y, steps >= torch.tensor([[6], [0], [4]]), steps >= torch.tensor([[5], [6], [6]]))
    return [attended.detach(), *torch.autograd.grad((attended**2).sum(), [x, y, *layer.parameters()])]


FORMS = {"at once": {}, "rows of any width": {"ROW": 1}, "by utterance": {"LONG": 5}}
"""Ways to attend, which the steps of `results` take by these constants."""


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_results_and_gradients_of_pytorchs_own(
    form: str, dropout: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.5}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        for name, value in FORMS[form].items():
            monkeypatch.setattr(attention, name, value)
        found = results(dropout)
        monkeypatch.setattr(attention, "current", lambda: "a joint step, which takes PyTorch's own")
        torch.testing.assert_close(found, results(dropout), **tolerance)


def test_products_of_large_weights_are_those_of_pytorch_in_any_layout() -> None:
    torch.manual_seed(1)
    weights = [torch.randn(65, 40, requires_grad=True) for _ in range(2)]
    assert sum(weight.numel() for weight in weights) >= products.LARGE
    whole = torch.randn(2, 7, 80, requires_grad=True)
    for x in (whole[..., :40], whole[..., ::2], whole[..., 40:].transpose(0, 1), whole[0, :, :40]):
        found, expected = linears(x, *weights), tuple(functional.linear(x, weight) for weight in weights)
        torch.testing.assert_close(found, expected)
        gradients = [torch.autograd.grad((a**2 * b).sum(), [whole, *weights]) for a, b in (found, expected)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-3)
