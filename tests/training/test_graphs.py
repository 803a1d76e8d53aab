"""Steps by CUDA graphs: buffers, draws, shapes and fall-backs, with a stand-in on the CPU that repeats a pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

import mmsa
from mmsa.data.batches import Data, Fold
from mmsa.data.resident import resident
from mmsa.model import Learner
from mmsa.stages import Objective
from mmsa.testing.laws import MOMENT, Subject
from mmsa.testing.training import NUM_BATCHES, SIZES, STOPPED_IN, Stopped, fitted, same
from mmsa.training.device import one_device
from mmsa.training.graphs import MULTIPLE, VISITS, CudaCapture, Graphs, Results, compare, hindrance
from mmsa.training.trainer import Trainer, TrainingState
from mmsa.types import Batch, Internals, Moment, Output
from tests.contracts.conftest import configuration, encoder_overrides, quickly_built
from tests.data.test_batches import prepared, store_of

RECIPES = {
    "mmlatch": ("fusion=attention", "feedback=mmlatch", "regularizer=m3", "regularizer.sites=[inputs,encoded]"),
    "unimodal": (
        "fusion=concat",
        "regularizer=m3",
        "regularizer.mode=soft",
        "objective=unimodal",
        "task=classification",
        "task.head_dropout=0.2",
        "trainer.clip_norm=0.1",
    ),
}
NUM_STEPS = SIZES["max_epochs"] * NUM_BATCHES


class Repeated:
    """A stand-in for the capture: it computes the pass again, and leaves the results where they were."""

    def __init__(self, change: Callable[[Results], None] = lambda results: None) -> None:
        self.num_captures = self.num_repeats = 0
        self.change = change

    def __call__(self, once: Callable[[], Results]) -> tuple[Callable[[], None], Results]:
        self.num_captures += 1
        results = once()

        def repeat() -> None:
            self.num_repeats += 1
            again = once()
            self.change(again)
            for kept, new in zip([*results[0].values(), *results[1]], [*again[0].values(), *again[1]], strict=True):
                if kept is not None:
                    kept.copy_(new)

        return repeat, results


def trained(subject: Subject, folder: Path, capture: Any) -> tuple[Any, list[str]]:
    """A training by graphs, and what it said."""
    said: list[str] = []
    with quickly_built():
        return fitted(subject, folder, gradients=Graphs(said.append, capture)), said


@pytest.fixture(scope="module")
def plain() -> Subject:
    return Subject(configuration("fusion=concat"))


@pytest.fixture(scope="module")
def eager(plain: Subject, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingState, Learner]:
    """A training without graphs."""
    with quickly_built():
        return fitted(plain, tmp_path_factory.mktemp("eager"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_by_graphs_is_the_eager_one(recipe: str, tmp_path: Path) -> None:
    subject, capture = Subject(configuration(*RECIPES[recipe])), Repeated()
    (state, learner), said = trained(subject, tmp_path / "graphs", capture)
    assert not said
    assert capture.num_captures > 1 and capture.num_repeats > NUM_STEPS / 3
    with quickly_built():
        eager, other = fitted(subject, tmp_path / "eager")
    assert same(state.history, eager.history)
    assert same(learner.state_dict(), other.state_dict())


def test_a_stopped_training_by_graphs_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """In which other steps are the first of their shape."""
    with quickly_built():
        subject = Subject(configuration("fusion=concat", "regularizer=m3"))
        whole, learner = fitted(subject, tmp_path / "whole", gradients=Graphs(print, Repeated()))
        with suppress(Stopped):
            after = (STOPPED_IN - 1) * NUM_BATCHES + 2
            fitted(subject, tmp_path / "stopped", after, gradients=Graphs(print, Repeated()))
        resumed, other = fitted(subject, tmp_path / "stopped", resume=True, gradients=Graphs(print, Repeated()))
    assert same(whole.history, resumed.history) and same(learner.state_dict(), other.state_dict())


def test_a_shape_is_captured_when_it_has_come_often_enough_and_there_is_room(
    plain: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.training.graphs.MOST", 2)
    capture = Repeated()
    graphs, learner = Graphs(print, capture), plain.learner()
    trainer = Trainer(one_device(), plain.task, tmp_path, {}, max_epochs=1, batch_size=4, patience=1, gradients=graphs)
    optimizers: Any = {"main": torch.optim.SGD(learner.parameters(), lr=0.0)}
    seen = []
    for lengths in (
        (4, 9, 1, 6),
        (9, 2, 2, 2),
        (5, 1),
        (9, 9, 9, 9),
        (3, 9, 1, 1),
        (5, 2),
        (2, 5),
        *[(3, 3)] * VISITS,
        (5, 5),
    ):
        trainer.step(learner, optimizers, [plain.batch(lengths=lengths)], [MOMENT])
        seen.append((capture.num_captures, capture.num_repeats))
    assert seen == [(0, 0), (0, 0), (0, 0), (1, 1), (1, 2), (1, 2), (2, 3), *[(2, 3)] * VISITS, (2, 4)]


def wrong_loss(results: Results) -> None:
    results[0]["task"] *= 1.1


def wrong_gradient(results: Results) -> None:
    results[1][-1] *= 1.1  # type: ignore[operator]


def other_draws(results: Results) -> None:
    torch.rand(1)


def broken(once: Callable[[], Results]) -> Any:
    once()
    raise RuntimeError("operation not permitted when stream is capturing\nCompile with something")


@pytest.mark.parametrize(
    ("capture", "reason"),
    [
        (Repeated(wrong_loss), "the task of a graph is not that of the eager pass"),
        (Repeated(wrong_gradient), "the gradient of head.bias of a graph is not that of the eager pass"),
        (Repeated(other_draws), "a part draws other numbers in a graph"),
        (broken, "operation not permitted when stream is capturing"),
    ],
)
def test_a_graph_that_fails_or_differs_ends_all_and_costs_nothing(
    capture: Any,
    reason: str,
    plain: Subject,
    eager: tuple[TrainingState, Learner],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "mmsa")
    (state, learner), said = trained(plain, tmp_path, capture)
    assert said == [f"steps run without CUDA graphs: {reason}"] and reason in caplog.text and "graphs.py" in caplog.text
    assert same(state.history, eager[0].history) and same(learner.state_dict(), eager[1].state_dict())


class Gpu:
    """What PyTorch has for captures, without a GPU: it records what is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[str, Any]] = []
        numbers = count()

        class CUDAGraph:
            def __init__(self) -> None:
                self.number = next(numbers)

            def pool(self) -> str:
                return f"memory of {self.number}"

            def replay(self) -> None:
                pass

        own = SimpleNamespace(
            clone_state=lambda: "spare", graphsafe_set_state=lambda state: self.done.append(("state", state))
        )
        for name, value in {
            "CUDAGraph": CUDAGraph,
            "graph": self.graph,
            "current_stream": lambda: "stream",
            "set_stream": lambda stream: self.done.append(("stream", stream)),
            "current_device": lambda: 0,
            "default_generators": (own,),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextmanager
    def graph(self, graph: Any, memory: str | None, capture_error_mode: str) -> Iterator[None]:
        try:
            yield
        except ZeroDivisionError:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        self.done.append((capture_error_mode, memory))


def test_after_a_capture_that_fails_steps_run_where_they_did_with_another_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch leaves its own stream current, and the generator's state in the broken capture."""
    gpu = Gpu(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        CudaCapture()(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    assert gpu.done == [("stream", "stream"), ("state", "spare")]


def test_graphs_share_the_memory_of_one_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes none whose graphs are all gone, as those of a joint step that another has replaced."""
    gpu, results = Gpu(monkeypatch), ({}, [])
    capture = CudaCapture()
    kept = [capture(lambda: results) for _ in range(2)]
    assert kept[0][1] is results
    kept.clear()
    capture(lambda: results)
    assert gpu.done == [("thread_local", memory) for memory in (None, "memory of 0", None)]


def test_nothing_of_an_eager_pass_lives_in_a_capture(tmp_path: Path) -> None:
    """Its nodes would add gradients where the eager pass did, outside the capture, and break it."""
    with quickly_built():
        subject = Subject(configuration(*RECIPES["mmlatch"]))
    learner, repeated, left = subject.learner(), Repeated(), []

    def nodes() -> list[dict[Any, Any]]:
        return [get_gradient_edge(parameter).node.metadata for parameter in learner.parameters()]

    def backward(loss: Tensor) -> None:
        for node in nodes():
            node["of a pass"] = True
        loss.backward()

    def capture(once: Callable[[], Results]) -> Any:
        left.extend(node for node in nodes() if node)
        return repeated(once)

    fabric: Any = SimpleNamespace(device=torch.device("cpu"), backward=backward)
    graphs = Graphs(print, capture)
    trainer = Trainer(fabric, subject.task, tmp_path, {}, max_epochs=1, batch_size=4, patience=1, gradients=graphs)
    optimizers: Any = {"main": torch.optim.SGD(learner.parameters(), lr=0.0)}
    for _ in range(VISITS):
        trainer.step(learner, optimizers, [subject.batch()], [MOMENT])
    assert repeated.num_captures == 1 and not left


class Head(nn.Linear):
    """A head that does what a graph does not follow."""

    def __init__(self, does: str, width: int) -> None:
        super().__init__(width, 1)
        self.does, self.scale = does, 1.0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.does == "draws":
            x = x * torch.rand(len(x), 1)
        elif self.does == "counts":
            self.scale *= 0.9
        elif self.does == "replaces a buffer":
            self.seen = self.seen + 1
        return super().forward(x) * self.scale


class Timed(nn.Module, Objective):
    """An objective whose weight falls."""

    def __init__(self, task: Any) -> None:
        super().__init__()
        self.task = task

    def forward(self, output: Output, internals: Internals, batch: Batch, moment: Moment) -> Mapping[str, Tensor]:
        return {"task": self.task.loss(output, batch) / moment.epoch}


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("draws", "a part draws on the host by itself"),
        ("counts", "a part has state besides its parameters, which changes in every step"),
        ("replaces a buffer", "a part has state besides its parameters, which changes in every step"),
        ("reads the epoch", "the objective reads the epoch of the training"),
        ("nothing", None),
    ],
)
def test_what_a_graph_does_not_follow_is_seen(does: str, reason: str | None, plain: Subject, tmp_path: Path) -> None:
    learner, batch, said = plain.learner(), plain.batch(), []
    learner.model.head = Head(does, learner.model.fusion.output_dim)
    if does == "reads the epoch":
        learner.objective = Timed(plain.task)
    graphs = Graphs(said.append, Repeated())
    trainer = Trainer(one_device(), plain.task, tmp_path, {}, max_epochs=1, batch_size=4, patience=1, gradients=graphs)
    optimizers: Any = {"main": torch.optim.SGD(learner.parameters(), lr=0.0)}
    for _ in range(VISITS + 1):
        trainer.step(learner, optimizers, [batch], [MOMENT])
    assert said == ([] if reason is None else [f"steps run without CUDA graphs: {reason}"])


@pytest.mark.parametrize(
    ("overrides", "accumulate", "world_size", "reason"),
    [
        ([], 1, 1, None),
        (["objective=unimodal"], 1, 1, None),
        (["fusion=misa", "encoder=misa"], 1, 1, None),
        ([], 2, 1, "trainer.accumulate=2"),
        ([], 1, 2, "several processes train together"),
        (["objective=contrastive"], 1, 1, "the objective has a memory of its own"),
        (["fusion=mlp", "objective=self_mm"], 1, 1, "the objective has a memory of its own"),
        (encoder_overrides("bert"), 1, 1, "the word pieces of text come in too many shapes"),
    ],
)
def test_a_hindrance_is_seen_before_training(
    overrides: list[str], accumulate: int, world_size: int, reason: str | None
) -> None:
    with quickly_built():
        learner = Subject(configuration("fusion=concat", *overrides)).learner()
    assert hindrance(learner, accumulate, world_size) == reason


def test_batches_are_padded_to_few_lengths_and_never_beyond_the_longest_utterance(tmp_path: Path) -> None:
    fold = Data(store_of(tmp_path / "made.h5", prepared()), ["text", "audio"]).fold("train")
    few = copy(fold)
    few.multiple = MULTIPLE
    for ours, theirs in zip(few.batches(7), fold.batches(7), strict=True):
        num_steps = theirs.features["text"].shape[1]
        expected = min(num_steps + -num_steps % MULTIPLE, int(fold.steps.max()))
        for m, features in ours.features.items():
            assert features.shape[1] == expected
            assert torch.equal(features[:, :num_steps], theirs.features[m]) and not features[:, num_steps:].any()


def test_where_pytorch_is_deterministic_the_bits_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    eager, found = {"task": torch.tensor(1.0), "none": None}, {"task": torch.tensor(1.0001), "none": None}
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    compare(eager, found)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    compare(eager, dict(eager))
    with pytest.raises(RuntimeError, match="the task of a graph"):
        compare(eager, found)
    with pytest.raises(RuntimeError, match="the none of a graph"):
        compare(eager, {**eager, "none": torch.zeros(1)})


def test_a_run_on_a_gpu_trains_by_graphs_on_resident_folds(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the CPU plays the part."""
    capture, folds = Repeated(), []

    def near(device: torch.device, *given: Fold) -> list[Fold]:
        folds.extend(resident(fold, device) for fold in given)
        return folds[-2:]

    monkeypatch.setattr("mmsa.experiment.graphs_for", lambda fabric, learner, accumulate, say: Graphs(say, capture))
    monkeypatch.setattr("mmsa.experiment.near", near)
    typed = [*small, "fusion=concat", "trainer.batch_size=300", "trainer.max_epochs=4"]
    by_graphs = mmsa.run(typed, quiet=True)
    assert (capture.num_captures, capture.num_repeats) == (1, 2)
    assert mmsa.run([*typed, "device.graphs=off"], quiet=True).predictions == by_graphs.predictions, "of one length"
    assert capture.num_captures == 1
    assert [fold.multiple for fold in folds] == [MULTIPLE, 1, 1, 1]
