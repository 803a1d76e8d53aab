"""The update of a joint step: parameters and optimisers come to where each comes alone, and part when they must."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from mmsa.layers.draws import drawing_as
from mmsa.stages import Phase
from mmsa.testing.training import same
from mmsa.training.checkpoints import load_checkpoint, save_checkpoint
from mmsa.training.device import one_device
from mmsa.training.optimizers import adam, adamw
from mmsa.training.together import JointStep
from mmsa.training.trainer import MAIN, Trainer
from tests.training.test_together import MOMENT, learners

SMALL = ("encoder=bilstm", "fusion=concat")
Made = Callable[[Any], Optimizer]
OPTIMIZERS: dict[str, Made] = {
    "adam": lambda learner: adam(learner.parameters(), 0.01),
    "adamw": lambda learner: adamw(learner.parameters(), 0.01, 0.1),
    "groups": lambda learner: adam(
        [
            {"params": list(learner.model.head.parameters()), "lr": 0.03},
            {"params": list(learner.model.encoders.parameters()), "weight_decay": 0.1},
        ],
        0.01,
    ),
    "some": lambda learner: adam(learner.model.head.parameters(), 0.01),
}
CLIPS: list[Mapping[str, Any]] = [{}, {"clip_norm": 0.1}, {"clip_value": 0.01, "clip_norm": 100.0}]


class Scaled(nn.Module):
    """A part with a parameter of no axes, and with one that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.spare = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Runs:
    """Three learners with their optimisers, and the steps that they take, together and by themselves."""

    def __init__(self, made: Made, clip: Mapping[str, Any]) -> None:
        self.learners, self.batches, self.generators = learners(SMALL, True)
        for learner in self.learners:
            learner.model.head = nn.Sequential(learner.model.head, Scaled())
        self.optimizers = [made(learner) for learner in self.learners]
        task: Any = None
        self.trainer = Trainer(one_device(), task, Path(), {}, max_epochs=1, batch_size=4, patience=1, **clip)
        self.joint = JointStep(self.learners, self.generators, one_device(), optimizers=self.optimizers, **clip)

    def alone(self, numbers: tuple[int, ...] = (0, 1, 2)) -> None:
        for number in numbers:
            optimizers = {MAIN: self.optimizers[number]}
            with drawing_as(self.generators[number]):
                self.trainer.step(self.learners[number], optimizers, [self.batches[number]], [MOMENT])

    def together(self) -> bool:
        self.joint(self.batches, MOMENT)
        return self.joint.updated

    def state(self) -> Any:
        return [
            (learner.state_dict(), optimizer.state_dict()["state"])
            for learner, optimizer in zip(self.learners, self.optimizers, strict=True)
        ]


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("made", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_updates_are_those_of_each_alone_from_the_first_step_and_from_any_later(
    made: Made, clip: Mapping[str, Any]
) -> None:
    ours, theirs = Runs(made, clip), Runs(made, clip)
    for turn in range(5):
        for optimizer in (*ours.optimizers, *theirs.optimizers):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + turn)
        if turn == 3:  # a step by itself in between, as where one computes alone
            ours.joint.release()
            ours.alone()
        else:
            assert ours.together()
        theirs.alone()
        torch.testing.assert_close(ours.state(), theirs.state(), rtol=1e-3, atol=1e-4)
    assert not same(ours.state()[0], ours.state()[1])


def test_optimisers_that_come_apart_step_by_themselves_from_then_on() -> None:
    ours, theirs = (Runs(OPTIMIZERS["adam"], {}) for _ in range(2))
    for turn in range(4):
        for runs in (ours, theirs):
            runs.optimizers[1].param_groups[0]["lr"] = 0.01 if turn in {0, 3} else 0.001
        assert ours.together() == (turn == 0)
        if turn:
            for learner, optimizer in zip(ours.learners, ours.optimizers, strict=True):
                ours.trainer.update(learner, {MAIN: optimizer}, Phase())
        theirs.alone()
        torch.testing.assert_close(ours.state(), theirs.state(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("other", ["kind", "progress", "setting", "order", "hook"])
def test_others_than_equal_ones_are_not_updated_together(other: str) -> None:
    made = (lambda learner: SGD(learner.parameters(), 0.01)) if other == "kind" else OPTIMIZERS["adam"]
    runs = Runs(made, {})
    if other == "progress":
        runs.alone((1,))
    if other == "setting":
        runs.optimizers[2].param_groups[0]["betas"] = (0.5, 0.999)
    if other == "order":
        runs.optimizers[2].param_groups[0]["params"].reverse()
    if other == "hook":
        runs.optimizers[2].register_step_post_hook(lambda *of: None)
    before = [parameter.clone() for learner in runs.learners for parameter in learner.parameters()]
    assert not runs.together()
    assert same(before, [parameter.data for learner in runs.learners for parameter in learner.parameters()])
    assert all(p.grad is not None for learner in runs.learners for p in learner.model.head[0].parameters())


def test_a_checkpoint_of_one_holds_nothing_of_the_others_and_a_released_one_is_on_its_own(tmp_path: Path) -> None:
    ours, theirs = (Runs(OPTIMIZERS["adam"], {}) for _ in range(2))
    ours.together()
    theirs.alone()
    sizes = []
    for runs in (ours, theirs):
        learner, optimizer = runs.state()[1]
        save_checkpoint(tmp_path / "one.pt", {"model": learner, "optimizer": optimizer})
        sizes.append((tmp_path / "one.pt").stat().st_size)
        read = load_checkpoint(tmp_path / "one.pt")
        assert same(read["model"], learner) and same(read["optimizer"], optimizer)
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[1]
    ours.joint.release()
    left = ours.state()[1]
    ours.alone((0, 2))
    assert same(left, ours.state()[1])


def test_whoever_computes_alone_has_recurrences_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's library reads them, which warns where they lie apart; on a CPU `flatten_parameters` does nothing."""
    runs, pieces = Runs(OPTIMIZERS["adam"], {}), dict[nn.Module, list[int]]()

    def places(layer: nn.Module) -> list[int]:
        return [parameter.data_ptr() for parameter in layer.parameters()]

    def reads(layer: Any, x: Any) -> None:
        assert pieces.get(layer, places(layer)) == places(layer)

    def flattened(layer: nn.Module) -> None:
        pieces[layer] = places(layer)

    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", flattened)
    for learner in runs.learners:
        for module in learner.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
                module.register_forward_pre_hook(reads)
    assert len(pieces) == 18
    runs.together()
    for learner in runs.learners:
        learner.eval()
    runs.joint.proven_outputs(runs.batches)
    for learner in runs.learners:
        learner.train()
    runs.together()
    runs.joint.proven(runs.batches, MOMENT)
    runs.alone()
