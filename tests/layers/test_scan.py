"""The scan of several runs gives the states and gradients of PyTorch's layers, each run with its own lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from mmsa.layers.draws import Runs, Together, computing
from mmsa.layers.recurrence import Cell, Recurrence
from mmsa.types import padding_mask

LENGTHS = torch.tensor([[5, 1, 0, 3], [2, 5, 4, 1], [1, 1, 2, 2]])
VALID = ~padding_mask(LENGTHS.flatten(), 5).view(3, 4, 5, 1)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("widest", "large"), [(4, 1000), (4, 1), (3, 1000)])
def test_states_and_gradients_are_those_of_each_run_alone(
    cell: Cell, bidirectional: bool, widest: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.layers.scan.WIDEST", widest)  # of the loop; wider ones are read by the library's kernel
    monkeypatch.setattr("mmsa.layers.scan.LARGE", large)
    torch.manual_seed(0)
    runs = [Recurrence(3, 4, cell=cell, num_layers=2, bidirectional=bidirectional).double() for _ in LENGTHS]
    x = torch.randn(*LENGTHS.shape, 5, 3, dtype=torch.double)
    weights = torch.randn(*LENGTHS.shape, 5, 4, dtype=torch.double) * ~padding_mask(LENGTHS.flatten(), 5).view(
        3, 4, 5, 1
    )

    def total(states: list[Tensor], weights: Tensor) -> Tensor:
        return torch.stack([(number + 1) * (one * weights).sum() for number, one in enumerate(states)]).sum()

    alone = []
    for run, values, lengths, weight in zip(runs, x, LENGTHS, weights, strict=True):
        read = values.clone().requires_grad_()
        total(run(read, lengths), weight).backward()
        alone.append((read.grad, {name: p.grad for name, p in run.named_parameters()}))

    stacked = {
        name: torch.stack([dict(run.named_parameters())[name].detach() for run in runs]).requires_grad_()
        for name, _ in runs[0].named_parameters()
    }
    read = x.clone().requires_grad_()

    def one(parameters: dict[str, Tensor], values: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
        return total(functional_call(runs[0], parameters, (values, lengths)), weight)

    with computing(Together(torch.arange(3)[:, None], Runs({}))):
        vmap(one)(stacked, read, LENGTHS, weights).sum().backward()
    gradients: dict[str, Any] = {name: tensor.grad for name, tensor in stacked.items()}
    for number, (of_read, of_parameters) in enumerate(alone):
        assert read.grad is not None
        torch.testing.assert_close(read.grad[number], of_read)
        for name, gradient in of_parameters.items():
            torch.testing.assert_close(gradients[name][number], gradient, msg=name)
