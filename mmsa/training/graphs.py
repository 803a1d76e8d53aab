"""CUDA graphs: all kernels of a forward and backward pass in one launch, captured once per padded shape of a batch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
from lightning_fabric import Fabric
from torch import Generator, Tensor, nn

from mmsa.layers.draws import Draw, drawing
from mmsa.model import Learner
from mmsa.stages import Phase
from mmsa.training.phases import lowered, summed
from mmsa.training.together import hindrance_of
from mmsa.training.trainer import Trainer, alone
from mmsa.types import Batch, Moment, sent

MULTIPLE = 4
"""Of padded numbers of steps, so that the shapes are few."""
VISITS = 3
"""A shape is captured when it comes for this time: rare ones are not worth it, and kernels are to be loaded before."""
MOST = 64
"""Graphs, each of which takes megabytes; further shapes run eagerly."""
CLOSE = 1e-2
"""Largest difference between a graph and the eager pass, as a share of the largest value: far below another draw."""

Losses = dict[str, Tensor]
Results = tuple[Losses, list[Tensor | None]]
"""The losses by name, and the gradient of each parameter."""
Capture = Callable[[Callable[[], Results]], tuple[Callable[[], None], Results]]
"""A forward and backward pass -> what repeats it, and the results, in the memory where a repetition leaves its own."""


class CudaCapture:
    """Captures passes as CUDA graphs, which share their memory as long as one of them lives."""

    def __init__(self) -> None:
        self._alive: WeakSet[Any] = WeakSet()

    def __call__(self, once: Callable[[], Results]) -> tuple[Callable[[], None], Results]:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        spare, broken = generator.clone_state(), list[Exception]()
        memory = next((other.pool() for other in self._alive), None)
        try:
            with torch.cuda.graph(graph, memory, capture_error_mode="thread_local"):
                try:
                    found = once()
                except Exception as error:
                    broken.append(error)
                    raise
        except BaseException:
            torch.cuda.set_stream(stream)
            generator.graphsafe_set_state(spare)  # the state that it had stays in a capture that failed
            if broken:  # such a capture cannot end either, which says less
                raise broken.pop() from None
            raise
        self._alive.add(graph)
        return graph.replay, found


class HostDraws:
    """The draws of a pass on the host, in memory that a graph reads.

    Args:
        device: where that memory lies.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._all: list[tuple[Draw, Generator | None, Tensor]] = []
        self._left: Iterator[tuple[Draw, Generator | None, Tensor]] = iter(())

    def record(self, draw: Draw, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
        """A draw that every later pass repeats."""
        kept = sent(draw(shape, generator), self._device).clone()
        self._all.append((draw, generator, kept))
        return kept

    def read(self, draw: Draw, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
        """The next of the recorded draws."""
        *_, kept = next(self._left, (None, torch.empty(0)))
        if kept.shape != shape:
            raise RuntimeError("a part draws other shapes from step to step")
        return kept

    def rewind(self) -> None:
        """Read from the first on."""
        self._left = iter(self._all)

    def renew(self) -> None:
        """Draw all again."""
        for draw, generator, kept in self._all:
            kept.copy_(sent(draw(tuple(kept.shape), generator), self._device))


class Unknown:
    """Stands for the moment in a graph, which would keep the one of its capture."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"the objective reads the {name} of the training")


class Graph:
    """The captured pass of batches of one shape.

    Args:
        trainer, learner, phase: whose pass it is.
        batch: one of them, on the device.
        draws: recorded in the eager pass of it.
        capture: captures it.
    """

    def __init__(
        self, trainer: Trainer, learner: Learner, phase: Phase, batch: Batch, draws: HostDraws, capture: Capture
    ) -> None:
        self._batch = replace(batch.mapped(torch.clone), ids=())
        self._parameters, self._draws = list(learner.named().values()), draws
        moment: Any = Unknown()

        def once() -> Results:
            draws.rewind()
            for parameter in self._parameters:
                parameter.grad = None
            with drawing(draws.read):
                losses = lowered(learner(self._batch, moment), phase)
            trainer.fabric.backward(summed(losses))
            found = {name: loss.detach() for name, loss in losses.items()}
            return found, [parameter.grad for parameter in self._parameters]

        self._replay, (self._losses, self.gradients) = capture(once)

    def __call__(self, batch: Batch) -> Losses:
        """The losses of a batch; their gradients are in the parameters."""
        for kept, tensor in zip(tensors_of(self._batch), tensors_of(batch), strict=True):
            kept.copy_(tensor)
        self._draws.renew()
        self._replay()
        for parameter, gradient in zip(self._parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return {name: loss.clone() for name, loss in self._losses.items()}


class Graphs:
    """Gradients of a trainer by graphs, each of which is compared with the eager pass before it counts.

    The first graph that fails or differs ends them all, with a line that says why; the training goes on eagerly.

    Args:
        say: prints a line.
        capture: captures a pass.
    """

    def __init__(self, say: Callable[[str], None], capture: Capture) -> None:
        self._say, self._capture = say, capture
        self._visits: Counter[Any] = Counter()
        self._graphs: dict[Any, Graph] = {}
        self._failed = False

    def anew(self, say: Callable[[str], None]) -> Graphs:
        """Others, of another learner."""
        return Graphs(say, self._capture)

    def __call__(
        self, trainer: Trainer, learner: Learner, batches: Sequence[Batch], moments: Sequence[Moment], phase: Phase
    ) -> list[Losses]:
        """As `mmsa.training.trainer.alone`."""
        (batch,) = (batch.to(trainer.fabric.device) for batch in batches)
        shape = tuple(tensor.shape for tensor in tensors_of(batch))
        self._visits[shape] += 1
        if shape in self._graphs:
            return [self._graphs[shape](batch)]
        if self._failed or self._visits[shape] < VISITS or len(self._graphs) == MOST:
            return alone(trainer, learner, [batch], moments, phase)
        return self._captured(shape, trainer, learner, batch, moments, phase)

    def _captured(
        self, shape: Any, trainer: Trainer, learner: Learner, batch: Batch, moments: Sequence[Moment], phase: Phase
    ) -> list[Losses]:
        """The eager pass, and beside it the graph for later ones."""
        sources, parameters = sources_of(trainer), list(learner.named().values())
        before, plain = [source.get_state() for source in sources], plain_state(learner)
        draws = HostDraws(trainer.fabric.device)
        with drawing(draws.record):
            losses = alone(trainer, learner, [batch], moments, phase)
        gradients = [parameter.grad for parameter in parameters]
        after = [source.get_state() for source in sources]
        try:
            if plain_state(learner) != plain:
                raise RuntimeError("a part has state besides its parameters, which changes in every step")
            restore(sources, before)
            graph = Graph(trainer, learner, phase, batch, draws, self._capture)
            if not equal(sources, before):
                raise RuntimeError("a part draws on the host by itself")
            found = graph(batch)
            if not equal(sources, after):
                raise RuntimeError("a part draws other numbers in a graph")
            compare(losses[0] | named(learner, gradients), found | named(learner, graph.gradients))
            self._graphs[shape] = graph
        except Exception as error:  # whatever it is, the run can do without
            self._failed = True
            self._graphs.clear()
            reason = str(error).partition("\n")[0] or type(error).__name__
            self._say(f"steps run without CUDA graphs: {reason}")
            logging.getLogger("mmsa").debug("where a graph failed", exc_info=error)
        finally:
            restore(sources, after)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
        return losses


def graphs_for(fabric: Fabric, learner: Learner, accumulate: int, say: Callable[[str], None]) -> Graphs | None:
    """Graphs for a training on a GPU, where its parts allow them; None, with a line that says why, where they do not.

    Args:
        fabric: where it runs.
        learner: what learns.
        accumulate: batches per step.
        say: prints a line.
    """
    if fabric.device.type != "cuda":
        return None
    if reason := hindrance(learner, accumulate, fabric.world_size):
        say(f"steps run without CUDA graphs: {reason}")
        return None
    return Graphs(say, CudaCapture())


def hindrance(learner: Learner, accumulate: int, world_size: int) -> str | None:
    """Why a training takes no graphs, as far as its parts show it."""
    if accumulate > 1:
        return f"trainer.accumulate={accumulate}"
    if world_size > 1:
        return "several processes train together"
    if tuple(learner.objective.phases) != (Phase(),):
        return "the objective has phases of its own"
    if in_pieces := [m for m, encoder in learner.model.encoders.items() if hasattr(encoder, "tokenizer")]:
        return f"the word pieces of {in_pieces[0]} come in too many shapes"
    return hindrance_of(type(learner.objective))


def tensors_of(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in order."""
    by_name = (batch.features, batch.lengths, batch.targets, batch.pieces)
    return [batch.rows, *(tensor for tensors in by_name for tensor in tensors.values())]


def sources_of(trainer: Trainer) -> list[Generator]:
    """The generators that a pass may draw from."""
    device = trainer.fabric.device
    on_device = [torch.cuda.default_generators[device.index]] if device.type == "cuda" else []
    return [*trainer.generators.values(), torch.default_generator, *on_device]


def restore(sources: Iterable[Generator], states: Iterable[Tensor]) -> None:
    """Set generators to their states."""
    for source, state in zip(sources, states, strict=True):
        source.set_state(state)


def equal(sources: Iterable[Generator], states: Iterable[Tensor]) -> bool:
    """Whether generators are in these states."""
    return all(torch.equal(source.get_state(), state) for source, state in zip(sources, states, strict=True))


def plain_state(learner: nn.Module) -> list[Any]:
    """The numbers and texts of all modules, and the versions of their buffers, none of which a graph follows."""
    numbers = [
        (name, value)
        for module in learner.modules()
        for name, value in vars(module).items()
        if isinstance(value, int | float | str)
    ]
    return [*numbers, *((id(buffer), buffer._version) for buffer in learner.buffers())]


def named(learner: Learner, gradients: Iterable[Tensor | None]) -> dict[str, Tensor | None]:
    """The gradients of all parameters, by a name."""
    return {f"gradient of {name}": g for name, g in zip(learner.named(), gradients, strict=True)}


def compare(eager: Mapping[str, Tensor | None], found: Mapping[str, Tensor | None]) -> None:
    """Compare a graph's losses and gradients with the eager ones: equal bits where PyTorch is deterministic.

    Raises:
        RuntimeError: they differ.
    """
    exactly = torch.are_deterministic_algorithms_enabled()
    for name, wanted in eager.items():
        came = found[name]
        if wanted is None or came is None:
            same = wanted is came
        elif exactly:
            same = torch.equal(wanted, came)
        else:
            same = bool((wanted - came).abs().amax() <= CLOSE * wanted.abs().amax())
        if not same:
            raise RuntimeError(f"the {name} of a graph is not that of the eager pass")
