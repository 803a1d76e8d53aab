"""What each part that makes a training step fast gains: steps with all of them, and without one."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measuring import Contender, Contest, Size, Work
from benchmarks.ours import Training
from benchmarks.training import Recipe, sides
from mmsa.data import batches
from mmsa.layers import attention
from mmsa.layers.dropout import Dropout
from mmsa.training import device

memory: Any = torch.utils.deterministic

MALLOC_DEFAULT = 128 * 1024
"""Bytes of glibc's thresholds."""


def _dropout(training: Training) -> AbstractContextManager[Any]:
    def mask(self: Dropout, shape: Any, dtype: torch.dtype, device: torch.device, also: Tensor | None = None) -> Tensor:
        drawn = functional.dropout(torch.ones(shape, dtype=dtype), self.p)
        return drawn if also is None else drawn * also

    return patch.object(Dropout, "mask", mask)


def _attention(training: Training) -> AbstractContextManager[Any]:
    return patch.object(attention, "current", lambda: "a joint step, which takes PyTorch's own")


def _products(training: Training) -> AbstractContextManager[Any]:
    return patch.object(attention, "linears", lambda x, *weights: tuple(functional.linear(x, w) for w in weights))


def _pools(num_batches: int, training: Training) -> AbstractContextManager[Any]:
    return patch.object(batches, "POOL_BATCHES", (num_batches, num_batches))


@contextmanager
def _adam(training: Training) -> Iterator[None]:
    groups = [group for optimizer in training.optimizers.values() for group in optimizer.param_groups]
    for group in groups:
        group["fused"] = None
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = True


@contextmanager
def _filling(training: Training) -> Iterator[None]:
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = False


@contextmanager
def _blocks(training: Training) -> Iterator[None]:
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(device.M_MMAP_THRESHOLD, MALLOC_DEFAULT)
        mallopt(device.M_TRIM_THRESHOLD, MALLOC_DEFAULT)
    try:
        yield
    finally:
        device.keep_blocks()


WITHOUT: dict[str, Callable[[Training], AbstractContextManager[Any]]] = {
    "batches of similar length": partial(_pools, 1),
    "pools of 50 batches (16)": partial(_pools, 16),
    "dropout by 16 bits": _dropout,
    "attention's own gradient": _attention,
    "stacked products": _products,
    "fused Adam": _adam,
    "unfilled memory": _filling,
    "kept memory": _blocks,
}
"""What a step does without, by name: enters the state in which it does, with PyTorch's or glibc's way instead."""


def parts(recipe: Recipe, precision: str, folder: Path, size: Size) -> Contest:
    """Training without one part each; plainly, with all.

    Args:
        recipe: that trains.
        precision: one of its.
        folder: of the corpus.
        size: how much of it.
    """
    found = sides(recipe, folder, size)
    training = found.ours[precision]

    def turn(without: Callable[[Training], AbstractContextManager[Any]] | None) -> Work:
        if without is None:
            steps = training.epoch()
        else:
            with without(training):
                steps = training.epoch()
        return Work(len(steps), found.operations.training(steps))

    contenders = [Contender(f"without {name}", partial(turn, without)) for name, without in WITHOUT.items()]
    return Contest("utterance", contenders, Contender("with all", partial(turn, None)))
