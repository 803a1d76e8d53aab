"""Shares of a batch: together they have the losses and the gradient of the whole, and what has not is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmsa import learning
from mmsa.build import check
from mmsa.errors import ConfigError
from mmsa.stages import Phase
from mmsa.testing.batches import select
from mmsa.testing.laws import MOMENT, Subject
from mmsa.testing.training import LENGTHS, RandomFold
from mmsa.training.shares import Shares, check_shares
from mmsa.training.trainer import Trainer, alone
from tests.contracts.conftest import configuration
from tests.training.test_steps import STILL, gradients, trainer_of

OF_RANK_0 = {"loss": 2.0, "mae": 1.0}


class OneRank:
    """Fabric of one of several processes, which are tried one after the other."""

    device = torch.device("cpu")

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.global_rank, self.world_size = rank, num_ranks
        self.exchanged: list[bool] = []

    @contextmanager
    def no_backward_sync(self, module: nn.Module, enabled: bool) -> Iterator[None]:
        self.exchanged.append(not enabled)
        yield

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    def broadcast(self, metrics: dict[str, float]) -> dict[str, float]:
        assert not metrics
        return OF_RANK_0

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def all_reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return values


def of_rank(trainer: Trainer, rank: int, num_ranks: int) -> Trainer:
    fabric: Any = OneRank(rank, num_ranks)
    trainer.fabric = fabric
    return trainer


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_shares_have_the_losses_and_the_gradient_of_the_whole(num_ranks: int, tmp_path: Path) -> None:
    """Of two batches whose gradients add up, and whose utterances are no multiple of the processes, or fewer."""
    subject = Subject(configuration(*STILL))
    whole, learner = subject.batch(lengths=LENGTHS), subject.learner()
    batches = [select(whole, range(7)), select(whole, [7])]
    moments = [MOMENT._replace(step=2), MOMENT._replace(step=3)]
    trainer = trainer_of(subject, tmp_path)
    expected = [losses["task"].item() for losses in alone(trainer, learner, batches, moments, Phase())]
    gradient = gradients(learner)
    found, shares = torch.zeros(2), torch.zeros_like(gradient)
    for rank in range(num_ranks):
        one = of_rank(trainer, rank, num_ranks)
        found += torch.stack([of["task"] for of in Shares(0).gradients(one, learner, batches, moments, Phase())])
        shares += gradients(learner) / num_ranks  # the mean that DDP takes
        assert getattr(one.fabric, "exchanged") == [False, True]  # noqa: B009  (of the last batch alone)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(shares, gradient, rtol=1e-4, atol=1e-6)


def test_each_process_draws_for_itself_and_the_same_again_in_the_same_epoch(tmp_path: Path) -> None:
    subject = Subject(configuration("regularizer=m3"))
    whole, trainer = subject.batch(lengths=LENGTHS), trainer_of(subject, tmp_path)

    def drawn(rank: int, epoch: int, step: int = 1) -> dict[str, Tensor]:
        torch.manual_seed(0)
        generators = {name: torch.Generator().manual_seed(0) for name in ("order", "places", "masks", "objective")}
        trainer.generators = generators
        learner, moment = subject.learner(generators=generators), MOMENT._replace(epoch=epoch, step=step)
        Shares(seed=1).gradients(of_rank(trainer, rank, 2), learner, [whole], [moment], Phase())
        return {name: one.get_state() for name, one in generators.items()} | {"dropout": torch.get_rng_state()}

    first = drawn(1, 1)
    assert all(map(torch.equal, first.values(), drawn(1, 1).values()))
    for other in (drawn(0, 1), drawn(1, 2), drawn(1, 1, step=2)):
        assert not any(torch.equal(first[name], other[name]) for name in ("masks", "dropout"))
        assert all(torch.equal(first[name], other[name]) for name in ("order", "places"))
    assert all(map(torch.equal, drawn(0, 1).values(), drawn(0, 2).values())), "rank 0 goes on by the run's generators"


def test_only_rank_0_evaluates_selects_and_writes(tmp_path: Path) -> None:
    subject = Subject(configuration(*STILL, "trainer.max_epochs=2", "trainer.batch_size=10"))
    trainer, learner = of_rank(trainer_of(subject, tmp_path), 1, 2), subject.learner()
    trainer.generators = {"order": torch.Generator()}
    trainer.gradients = Shares(0).gradients
    nothing: Any = None  # a fold that is read would raise
    train: Any = RandomFold(subject.batch(lengths=LENGTHS))
    optimizers = learning.build_optimizers(subject.cfg, learner)
    state = trainer.fit(learner, optimizers, None, train, nothing, lambda *_: None)
    assert (state.epoch, state.best_epoch, state.best_score) == (2, 1, OF_RANK_0["mae"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["objective=contrastive", "task=classification"], "ContrastiveObjective has a memory"),
        (["objective=self_mm", "fusion=mlp"], "SelfMM has a memory"),
        (["objective=unimodal"], "UnimodalObjective has losses that are not means"),
        (["fusion=misa"], "the loss task.auxiliary.similarity compares"),
        (["trainer.batch_size=1"], "needs an utterance"),
    ],
)
def test_what_is_no_mean_over_shares_is_refused_with_what_to_type(typed: list[str], reason: str) -> None:
    check(configuration(*typed))
    with pytest.raises(ConfigError, match=reason) as refused:
        check(configuration(*typed, "device.devices=2"))
    assert "\n  type device.devices=1" in str(refused.value)


def test_a_normalisation_over_the_batch_and_an_optimiser_of_a_phase_are_refused() -> None:
    subject = Subject(configuration())
    learner = subject.learner()
    learner.objective.phases = (Phase("own", optimizer=torch.optim.SGD),)
    with pytest.raises(ConfigError, match="a phase with an optimiser of its own"):
        check_shares(2, 2, learner, subject.task)
    learner = subject.learner()
    learner.model.head = nn.Sequential(nn.BatchNorm1d(8), learner.model.head)
    with pytest.raises(ConfigError, match="a batch normalisation"):
        check_shares(2, 2, learner, subject.task)
    check_shares(1, 2, learner, subject.task)
