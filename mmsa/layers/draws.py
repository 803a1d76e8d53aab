"""The draws of layers on the host, which a joint step of several runs or a graph of kernels takes over.

Where several runs compute in one joint step, every draw is still each run's own.

A joint step runs under `torch.func.vmap` over the runs. Their batches have one size, but steps of their own, and are
padded to one number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

Draw = Callable[[tuple[int, ...], Generator | None], Tensor]
"""A shape and a generator, None being the global one -> numbers of this shape."""


@dataclass(frozen=True)
class Together:
    """Several runs in one joint step.

    Args:
        index: (1,) int64 number of this run inside vmap, (K, 1) outside.
        generators: of the first run -> those of all; None is the global one.
        num_steps: padded number of steps -> that of each run.
    """

    index: Tensor
    generators: Mapping[Generator | None, Sequence[Generator]]
    num_steps: Mapping[int, Sequence[int]]

    def drawn(self, draw: Draw, shape: tuple[int, ...], steps: tuple[int, ...], generator: Generator | None) -> Tensor:
        """What this run draws of its own shape, zeros where it is padded."""
        sources = self.generators[generator]
        shapes = [list(shape) for _ in sources]
        for axis in steps:
            for own, size in zip(shapes, self.num_steps.get(shape[axis], [shape[axis]] * len(shapes)), strict=True):
                own[axis] = size
        parts = [draw(tuple(own), source) for own, source in zip(shapes, sources, strict=True)]
        if all(own == list(shape) for own in shapes):
            stacked = torch.stack(parts)
        else:
            stacked = parts[0].new_zeros((len(parts), *shape))
            for whole, part in zip(stacked, parts, strict=True):
                whole[tuple(map(slice, part.shape))] = part
        rows = torch.embedding(stacked.view(len(parts), -1), self.index)  # cheap inside vmap, as index_select is not
        return rows.view(shape)


Source = Callable[[Draw, tuple[int, ...], Generator | None], Tensor]
"""Draws, by a draw, a shape and a generator."""
_current: list[Together] = []
_sources: list[Source] = []


def current() -> Together | None:
    """The joint step that is computed now; None where a run computes alone."""
    return _current[-1] if _current else None


@contextmanager
def computing(together: Together) -> Iterator[None]:
    """Layers compute for several runs inside."""
    _current.append(together)
    try:
        yield
    finally:
        _current.pop()


@contextmanager
def drawing(source: Source) -> Iterator[None]:
    """Layers that compute alone draw by a source inside."""
    _sources.append(source)
    try:
        yield
    finally:
        _sources.pop()


def drawn(draw: Draw, shape: Sequence[int], steps: tuple[int, ...] = (), generator: Generator | None = None) -> Tensor:
    """Draws of a shape, in a joint step by each run for itself.

    Args:
        draw: draws it.
        shape: as this run sees it.
        steps: its axes of time, which are padded.
        generator: the source; None is the global one.
    """
    if (together := current()) is not None:
        return together.drawn(draw, tuple(shape), steps, generator)
    return _sources[-1](draw, tuple(shape), generator) if _sources else draw(tuple(shape), generator)
