"""A step of training and an epoch: the mean that a loss is, the order of clipping, and what is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmsa import learning
from mmsa.model import Learner
from mmsa.run_folder import OF_THE_RUN
from mmsa.testing.batches import select
from mmsa.testing.laws import MOMENT, Subject
from mmsa.testing.training import LENGTHS, SIZES, STOPPED_IN, a_stopped_training_goes_on_to_the_same_bits, fitted
from mmsa.training.device import one_device
from mmsa.training.trainer import Trainer
from tests.contracts.conftest import configuration, options

STILL = [f"encoder.{m}.dropout=0" for m in ("text", "audio", "visual")] + ["fusion=concat"]
SCHEDULES = {
    "plateau": [
        "optimizer.lr=1e-6",  # steps too small to improve the monitored value, on any processor
        "scheduler.patience=0",
        "scheduler.cooldown=0",
        "scheduler.factor=0.3",
        "scheduler.min_factor=0",
    ],
    "step": ["scheduler.every=2"],
    **{name: ["scheduler.warmup=0.3"] for name in ("constant", "linear", "cosine")},
}
"""What makes a schedule move within five epochs."""


def trainer_of(subject: Subject, folder: Path) -> Trainer:
    chosen = {key: value for key, value in subject.cfg.trainer.items() if key not in OF_THE_RUN}
    return Trainer(one_device(), subject.task, folder, {}, **chosen)


def gradients(learner: Learner) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


def test_the_train_loss_is_the_mean_over_utterances_with_a_smaller_last_batch(tmp_path: Path) -> None:
    subject = Subject(configuration(*STILL, "optimizer.lr=1e-30", "scheduler=none"))
    state, learner = fitted(subject, tmp_path)
    whole = subject.batch(lengths=LENGTHS)
    assert len(LENGTHS) % SIZES["batch_size"], "the last batch is smaller"
    expected = subject.task.loss(learner.model(whole), whole).item()
    assert [record["train/loss"] for record in state.history] == pytest.approx([expected] * 5, rel=1e-5)


def test_gradients_that_add_up_are_a_mean_over_their_utterances(tmp_path: Path) -> None:
    subject = Subject(configuration(*STILL, "trainer.accumulate=2"))
    whole, learner = subject.batch(lengths=LENGTHS), subject.learner()
    optimizers = learning.build_optimizers(subject.cfg, learner)
    parts = [select(whole, range(7)), select(whole, range(7, 10))]
    losses = trainer_of(subject, tmp_path).step(learner, optimizers, parts, [MOMENT, MOMENT._replace(step=2)])
    other = subject.learner()
    loss = other(whole, MOMENT)["task"]
    loss.backward()
    torch.testing.assert_close(gradients(learner), gradients(other), rtol=1e-4, atol=1e-6)
    assert (7 * losses[0]["task"] + 3 * losses[1]["task"]).item() / 10 == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 4), (2, 2), (3, 2), (9, 1)])
def test_the_last_smaller_group_is_stepped_too(tmp_path: Path, accumulate: int, steps: int) -> None:
    subject = Subject(configuration(*STILL, f"trainer.accumulate={accumulate}", "scheduler=linear"))
    state, _ = fitted(subject, tmp_path)
    falls = [record["lr"] for record in state.history]
    assert falls == pytest.approx([1e-3 * (1 - epoch / 5) for epoch in range(5)]), "one move of the schedule per step"
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["optimizer"]["state"]
    assert {int(of_one["step"]) for of_one in saved.values()} == {5 * steps}


def test_single_elements_are_clipped_before_the_norm(tmp_path: Path) -> None:
    plain = Subject(configuration(*STILL)).learner()
    batch = Subject(configuration()).batch()
    plain(batch, MOMENT)["task"].backward()
    raw = gradients(plain)
    bound = raw.abs().quantile(0.9).item()
    clamped = raw.clamp(-bound, bound)
    largest = 0.5 * clamped.norm().item()
    subject = Subject(configuration(*STILL, f"trainer.clip_value={bound}", f"trainer.clip_norm={largest}"))
    learner = subject.learner()
    trainer_of(subject, tmp_path).step(learner, learning.build_optimizers(subject.cfg, learner), [batch], [MOMENT])
    torch.testing.assert_close(gradients(learner), clamped * (largest / clamped.norm()), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("schedule", options("scheduler"))
def test_a_resume_across_a_move_of_the_learning_rate_comes_to_equal_bits(schedule: str, tmp_path: Path) -> None:
    more = SCHEDULES.get(schedule, [])
    subject = Subject(configuration("fusion=concat", f"scheduler={schedule}", "optimizer.lr=0.05", *more))
    rates = [record["lr"] for record in fitted(subject, tmp_path)[0].history]
    assert schedule == "none" or len(set(rates[:STOPPED_IN])) > 1, "it moved before the stop"
    a_stopped_training_goes_on_to_the_same_bits(subject)
