"""A joint step gives each learner the loss, the gradients and the draws that it has alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmsa.layers.draws import current
from mmsa.testing.laws import Subject
from mmsa.testing.training import same
from mmsa.training.device import one_device
from mmsa.training.graphs import VISITS, Graphs
from mmsa.training.together import JointStep, hindrance
from mmsa.training.trainer import alone
from mmsa.types import Batch, Moment
from tests.contracts.conftest import configuration, quickly_built
from tests.training.test_graphs import Repeated

MOMENT = Moment(1, 1, 1, 1)
LENGTHS = [(4, 9, 1, 6), (2, 2, 5, 1), (8, 3, 7, 8)]
COMBINATIONS = [
    ("encoder=bilstm", "fusion=attention", "feedback=mmlatch", "regularizer=m3"),
    ("encoder=bigru", "fusion=sequence", "feedback=static", "regularizer=dropout"),
    ("encoder=misa", "fusion=lmf", "feedback=none", "regularizer=m3", "regularizer.per_step=false"),
    ("encoder=bigru", "fusion=sequence", "feedback=mmlatch", "regularizer=m3", "regularizer.mode=soft"),
    ("encoder=bilstm", "fusion=mlp", "fusion.dropout=0.5", "feedback=mmlatch", "feedback.generator=mlp"),
    ("encoder=misa", "fusion=concat", "feedback=static", "regularizer=m3_slp", "task.head_dropout=0.3"),
    ("encoder=bilstm", "fusion=concat", "objective=unimodal", "task.head_dropout=0.3"),
    (
        "encoder=bilstm",
        "fusion=concat",
        "task=classification",
        "regularizer=dropout",
        "regularizer.sites=[inputs,encoded]",
    ),
]
UNALIGNED = [("encoder=bigru", "fusion=concat", *COMBINATIONS[-1][2:]), COMBINATIONS[2]]
CASES = [*((one, True) for one in COMBINATIONS), *((one, False) for one in UNALIGNED)]


def learners(
    overrides: tuple[str, ...], aligned: bool
) -> tuple[list[Any], list[Batch], list[dict[str, torch.Generator]]]:
    """Three learners of a configuration with their batches, whose steps differ, and their generators."""
    made, batches, generators = [], [], []
    with quickly_built():
        for seed, lengths in enumerate(LENGTHS):
            subject = Subject(configuration(*overrides), 3, aligned)
            own = {name: torch.Generator().manual_seed(seed) for name in ("order", "masks", "objective", "dropout")}
            batches.append(subject.batch(lengths=lengths, seed=seed))
            made.append(subject.learner(train=batches[-1], generators=own).train())
            generators.append(own)
    return made, batches, generators


@pytest.mark.parametrize(("overrides", "aligned"), CASES)
def test_losses_gradients_and_draws_are_those_of_each_alone(overrides: tuple[str, ...], aligned: bool) -> None:
    joint, batches, generators = learners(overrides, aligned)
    by_itself, _, others = learners(overrides, aligned)
    assert hindrance(joint[0]) is None
    for numbers in ([0, 1, 2], [2, 0]):
        step = JointStep([joint[n] for n in numbers], [generators[n] for n in numbers], one_device())
        losses = step([batches[number] for number in numbers], MOMENT)
        for place, number in enumerate(numbers):
            learner = by_itself[number]
            learner.zero_grad()
            torch.set_rng_state(others[number]["dropout"].get_state())
            expected = learner(batches[number], MOMENT)
            torch.stack(list(expected.values())).sum().backward()
            others[number]["dropout"].set_state(torch.get_rng_state())
            torch.testing.assert_close(losses[place], {name: loss.detach() for name, loss in expected.items()})
            for (name, ours), theirs in zip(joint[number].named_parameters(), learner.parameters(), strict=True):
                if theirs.grad is None:
                    assert ours.grad is None or not ours.grad.any(), name
                else:
                    assert ours.grad is not None and ours.grad.is_contiguous(), name
                    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)
            for name, source in generators[number].items():
                assert torch.equal(source.get_state(), others[number][name].get_state()), name
    outputs = step.outputs([batches[2], batches[0]])
    for number, ours in zip([2, 0], outputs, strict=True):
        with torch.no_grad():
            output = by_itself[number].eval().model(batches[number])
        assert ours.primary == output.primary and not ours.predictions[ours.primary].requires_grad
        for name in ("predictions", "losses", "feedback"):
            found, wanted = getattr(ours, name), getattr(output, name)
            assert found.keys() == wanted.keys()
            for key, theirs in wanted.items():
                cut = tuple(map(slice, theirs.shape))  # where the batch of another has more steps
                torch.testing.assert_close(found[key][cut], theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("overrides", COMBINATIONS[:1])
def test_joint_steps_by_graphs_are_the_eager_ones_with_the_draws_of_each_length(overrides: tuple[str, ...]) -> None:
    """Batches of three lengths come again in another order of the runs, padded to one shape."""
    said: list[str] = []
    capture, found = Repeated(), []
    for gradients in (alone, Graphs(said.append, capture)):
        made, batches, generators = learners(overrides, True)
        step = JointStep(made, generators, one_device(), gradients)
        for turn in range(VISITS + 3):
            losses = step([*batches[turn % 3 :], *batches[: turn % 3]], MOMENT)
            of_each = [parameter.grad for learner in made for parameter in learner.parameters()]
            found.append((losses, of_each, [source.get_state() for own in generators for source in own.values()]))
    assert not said and (capture.num_captures, capture.num_repeats) == (1, 4)
    for eager, by_graph in zip(found[: VISITS + 3], found[VISITS + 3 :], strict=True):
        assert same(by_graph, eager)


@pytest.mark.parametrize("overrides", COMBINATIONS[:1])
def test_draws_on_the_device_are_those_of_each_alone(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.layers.dropout.OWN_DRAWS", {"cpu"})
    made, batches, generators = learners(overrides, True)
    assert not same(*(own["dropout"].get_state() for own in generators[:2]))
    before = generators[0]["dropout"].get_state()
    JointStep(made, generators, one_device()).proven(batches, MOMENT)
    assert not same(generators[0]["dropout"].get_state(), before)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("fusion=bilinear",), "PyTorch has no batching rule for aten::bilinear"),
    ],
)
def test_what_cannot_be_batched_is_refused_and_nothing_is_drawn(overrides: tuple[str, ...], reason: str) -> None:
    joint, batches, generators = learners(("encoder=bilstm", *overrides), True)
    assert hindrance(joint[0]) is None
    before = [{name: source.get_state() for name, source in own.items()} for own in generators]
    with pytest.raises(RuntimeError, match=reason):
        JointStep(joint, generators, one_device()).proven(batches, MOMENT)
    for own, states in zip(generators, before, strict=True):
        assert all(torch.equal(own[name].get_state(), state) for name, state in states.items())


class Noisy(torch.nn.Module):
    """A part that draws as no part of ours does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rand(3)[0]


class Blocked(torch.nn.Module):
    """A part whose gradient is another in a joint step."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if current() is None else x.detach()


def test_a_step_with_other_gradients_than_alone_is_refused_and_nothing_is_drawn() -> None:
    joint, batches, generators = learners(("encoder=bilstm", "fusion=concat", "task.head_dropout=0.3"), True)
    before = [source.get_state() for own in generators for source in own.values()]
    for learner in joint:
        learner.model.head = torch.nn.Sequential(Blocked(), learner.model.head)
    with pytest.raises(RuntimeError, match=r"the gradient of model\.encoders\.text\..* differs from that alone"):
        JointStep(joint, generators, one_device()).proven(batches, MOMENT)
    assert same([source.get_state() for own in generators for source in own.values()], before)


def test_a_step_that_is_not_what_each_has_alone_is_refused() -> None:
    joint, batches, generators = learners(("encoder=bilstm", "fusion=concat"), True)
    for learner in joint:
        learner.model.head = torch.nn.Sequential(Noisy(), learner.model.head)
    with pytest.raises(RuntimeError, match=r"the loss task is -?[\d.]+, alone -?[\d.]+"):
        JointStep(joint, generators, one_device()).proven(batches, MOMENT)
    for learner in joint:
        learner.eval()
    with pytest.raises(RuntimeError, match="the prediction sentiment differs from that alone"):
        JointStep(joint, generators, one_device()).proven_outputs(batches)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("fusion=misa", "task/auxiliary=misa"), "fusion.transformer.self_attn drops by the library's own draws"),
        (("fusion=concat", "objective=contrastive"), "the objective has a memory of its own"),
    ],
)
def test_a_hindrance_is_seen_in_the_parts(overrides: tuple[str, ...], reason: str) -> None:
    (learner, *_), *_ = learners(("encoder=bilstm", *overrides), True)
    assert hindrance(learner) == reason
