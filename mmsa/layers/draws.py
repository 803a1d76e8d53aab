"""The draws of layers, which a joint step of several runs or a graph of kernels takes over.

Where several runs compute in one joint step, every draw is still each run's own.

A joint step runs under `torch.func.vmap` over the runs. Their batches have one size, but steps of their own, and are
padded to one number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor

from mmsa.types import sent

Draw = Callable[[tuple[int, ...], Generator | None], Tensor]
"""A shape and a generator, None being the global one of the host -> numbers of this shape."""


@dataclass
class Runs:
    """The runs of joint steps.

    Args:
        generators: of the first run, which stands for all, the global ones included -> those of all.
        num_steps: of the present batches, padded number of steps -> that of each run.
    """

    generators: Mapping[Generator, Sequence[Generator]]
    num_steps: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def drawn(self, draw: Draw, steps: tuple[int, ...], shape: tuple[int, ...], generator: Generator | None) -> Tensor:
        """What each run draws of its own part of a shape (K, …), zeros where it is padded."""
        sources = self.generators[generator or torch.default_generator]
        shapes = [list(shape[1:]) for _ in sources]
        for axis in steps:
            padded = shape[1 + axis]
            for own, size in zip(shapes, self.num_steps.get(padded, [padded] * len(shapes)), strict=True):
                own[axis] = size
        parts = [draw(tuple(own), source) for own, source in zip(shapes, sources, strict=True)]
        if all(part.shape == shape[1:] for part in parts):
            return torch.stack(parts)
        stacked = parts[0].new_zeros(shape)
        for whole, part in zip(stacked, parts, strict=True):
            whole[tuple(map(slice, part.shape))] = part
        return stacked


@dataclass(frozen=True)
class Together:
    """Several runs in one joint step.

    Args:
        index: (1,) int64 number of this run inside vmap, on the device.
        runs: all of them.
    """

    index: Tensor
    runs: Runs

    def drawn(
        self, source: Source, draw: Draw, shape: tuple[int, ...], steps: tuple[int, ...], generator: Generator | None
    ) -> Tensor:
        """What this run draws of its own shape, zeros where it is padded."""
        num_runs = len(self.runs.generators[generator or torch.default_generator])
        stacked = source(partial(self.runs.drawn, draw, steps), (num_runs, *shape), generator)
        flat = sent(stacked, self.index.device).view(num_runs, -1)
        return torch.embedding(flat, self.index).view(shape)  # cheap inside vmap, as index_select is not


Source = Callable[[Draw, tuple[int, ...], Generator | None], Tensor]
"""Draws, by a draw, a shape and a generator."""


def by_itself(draw: Draw, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """The source of all draws that no other takes over."""
    return draw(shape, generator)


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
    """Layers draw by a source inside."""
    _sources.append(source)
    try:
        yield
    finally:
        _sources.pop()


def drawn(draw: Draw, shape: Sequence[int], steps: tuple[int, ...] = (), generator: Generator | None = None) -> Tensor:
    """Draws of a shape, in a joint step by each run for itself and on its device.

    Args:
        draw: draws it.
        shape: as this run sees it.
        steps: its axes of time, which are padded.
        generator: the source; None is the global one of the host.
    """
    source = _sources[-1] if _sources else by_itself
    if (together := current()) is not None:
        return together.drawn(source, draw, tuple(shape), steps, generator)
    return source(draw, tuple(shape), generator)


def drawn_there(draw: Draw, shape: Sequence[int], steps: tuple[int, ...], device: torch.device) -> Tensor:
    """As `drawn`, by the device's own generator; a graph of one run draws these numbers itself."""
    own = torch.cuda.default_generators[device.index] if device.type == "cuda" else None
    return draw(tuple(shape), own) if current() is None else drawn(draw, shape, steps, own)


def global_generators() -> dict[str, Generator]:
    """PyTorch's own of the host and, where it is in use, of the GPU, by the names that a checkpoint has for them."""
    found = {"dropout": torch.default_generator}
    if torch.cuda.is_initialized():
        found["dropout_device"] = torch.cuda.default_generators[torch.cuda.current_device()]
    return found


@contextmanager
def drawing_as(own: Mapping[str, Generator]) -> Iterator[None]:
    """Draws of PyTorch's own generators inside are those of a run's.

    Args:
        own: the generators of the run, those among them by the names of `global_generators`.
    """
    ours = {name: source for name, source in global_generators().items() if name in own}
    before = {name: source.get_state() for name, source in ours.items()}
    for name, source in ours.items():
        source.set_state(own[name].get_state())
    try:
        yield
    finally:
        for name, source in ours.items():
            own[name].set_state(source.get_state())
            source.set_state(before[name])
