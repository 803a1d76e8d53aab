"""The floor: the operations of a method's matrix products on real steps, over the measured rate of such products."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmsa.layers.products import product

_TRIES = 6


def rate(side: int) -> float:
    """Operations per processor-second of a square matrix product, the best of some by each library that PyTorch has.

    Of two, as only one of them may use all of a processor's vector units.
    """
    matrix = torch.randn(side, side)
    seconds = []
    for _ in range(_TRIES):
        for multiply in (torch.matmul, product):
            start = time.process_time()
            multiply(matrix, matrix)
            seconds.append(time.process_time() - start)
    return 2 * side**3 / min(seconds)


def _of_lstm(x: tuple[int, ...], to_gates: tuple[int, ...], recurrent: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of one direction: every step's input and state, each times its (4H, ·) weights."""
    return 2 * x[0] * x[1] * to_gates[0] * (to_gates[1] + recurrent[1])


def _of_product(left: tuple[int, ...], right: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * left[0] * left[1] * right[0]


def counted(compute: Callable[[], object]) -> int:
    """Operations of the matrix products that a computation makes."""
    own = {torch.ops.aten.mkldnn_rnn_layer: _of_lstm, torch.ops.mkldnn._linear_pointwise: _of_product}
    counter = FlopCounterMode(display=False, custom_mapping=own)
    with torch.no_grad(), counter:
        compute()
    return int(counter.get_total_flops())


class Operations:
    """Operations of a training step per utterance, by its steps T: those of the forward pass, and twice that for the
    backward; a quadratic in T, whose square is attention's.

    Args:
        forward: runs the method on one utterance of that many steps.
    """

    def __init__(self, forward: Callable[[int], object]) -> None:
        places = (8, 16, 32)
        found = [counted(lambda at=at: forward(at)) for at in places]  # type: ignore[misc]
        self._terms = np.polyfit(places, found, 2)

    def forward(self, steps: Sequence[int]) -> float:
        """Of the forward passes of utterances of these lengths."""
        return float(np.polyval(self._terms, np.asarray(steps)).sum())

    def training(self, steps: Sequence[int]) -> float:
        """Of training on them."""
        return 3 * self.forward(steps)
