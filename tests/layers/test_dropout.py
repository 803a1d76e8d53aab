"""Dropout keeps the expectation, draws every element on its own, and its gradient is that of its output."""

from __future__ import annotations

import pytest
import torch

from mmsa.layers.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_elements_are_dropped_on_their_own_at_the_rate_and_the_expectation_stays(p: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p).train()(torch.ones(256, 1001))
    gone = (dropped == 0).double()
    assert gone.mean().item() == pytest.approx(p, abs=0.005)
    assert dropped[dropped != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-3)
    for apart in (1, 2, 3, 4, 1001):  # within a word, of neighbouring words, of rows
        flat = gone.flatten()
        assert (flat[apart:] * flat[:-apart]).mean().item() == pytest.approx(p * p, abs=0.005)
    for place in range(4):
        assert gone.flatten()[place::4].mean().item() == pytest.approx(p, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_layout_in_memory_and_the_gradient_follow_the_input(dtype: torch.dtype) -> None:
    x = torch.ones(3, 5, 7, dtype=dtype).transpose(0, 1).requires_grad_()
    dropped = Dropout(0.4).train()(x)
    assert dropped.dtype == dtype and dropped.stride() == x.stride()
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped) and (dropped == 0).any()
    spread = Dropout(0.4).train()(torch.ones(2, 1, 3, dtype=dtype).expand(-1, 9, -1))
    assert len({tuple(step) for step in spread[0].tolist()}) > 1, "steps of one vector have draws of their own"


def test_every_type_keeps_the_same_elements_at_the_same_scale() -> None:
    dropout, rows = Dropout(0.3).train(), torch.tensor([[1.0], [0.0]])
    masks = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(5)
        masks[dtype] = dropout.mask((2, 50), dtype, torch.device("cpu"))
        assert masks[dtype].dtype == dtype
        assert torch.equal(masks[dtype], masks[torch.float64].to(dtype))
    torch.manual_seed(5)
    assert torch.equal(dropout.mask((2, 50), torch.float32, torch.device("cpu"), rows), masks[torch.float32] * rows)


def test_the_generator_decides_and_evaluation_and_rate_zero_draw_nothing() -> None:
    x = torch.randn(4, 5)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert Dropout(0.4).eval()(x) is x and Dropout(0.0).train()(x) is x
    assert torch.equal(state, torch.get_rng_state())
    first = Dropout(0.4).train()(x)
    torch.set_rng_state(state)
    assert torch.equal(first, Dropout(0.4).train()(x)) and not torch.equal(first, Dropout(0.4).train()(x))


def test_the_largest_rate_keeps_an_element_in_65536() -> None:
    torch.manual_seed(0)
    dropped = Dropout(1 - 1e-9).train()(torch.ones(1 << 18))
    assert torch.isfinite(dropped).all() and 0 < (dropped != 0).sum() < 20
