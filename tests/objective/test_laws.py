"""The laws of training, on every objective: what it keeps survives a stop, and nothing of it is in a prediction."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mmsa.build import check
from mmsa.errors import ConfigError
from mmsa.testing.laws import MOMENT, Subject, every_element_learns, targets_are_not_seen
from mmsa.testing.training import RandomFold, a_stopped_training_goes_on_to_the_same_bits, fitted
from mmsa.training.checkpoints import load_checkpoint
from mmsa.training.trainer import evaluate
from tests.contracts.conftest import configuration, options

TARGETS = ("sentiment", "sentiment_text", "sentiment_audio", "sentiment_visual")
OBJECTIVES = options("objective")


def subject_of(objective: str, *more: str) -> Subject:
    """With what it says to type where it refuses the default fusion."""
    chosen = [f"objective={objective}", *more]
    try:
        check(configuration(*chosen))
    except ConfigError as refusal:
        chosen += re.findall(r"type ([^\s,]+)", str(refusal))[:1]
    return Subject(configuration(*chosen), targets=TARGETS)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_stopped_in_mid_epoch_and_resumed_it_comes_to_equal_bits(objective: str, tmp_path: Path) -> None:
    subject = subject_of(objective, "trainer.accumulate=2")
    a_stopped_training_goes_on_to_the_same_bits(subject)
    state, learner = fitted(subject, tmp_path)
    assert load_checkpoint(tmp_path / "best.pt")["model"].keys() == subject.model().state_dict().keys()
    last = load_checkpoint(tmp_path / "last.pt")
    assert last["objective"].keys() == learner.objective.state_dict().keys()
    record = state.history[-1]
    losses = [value for name, value in record.items() if name.startswith("train/") and name != "train/loss"]
    assert not losses or record["train/loss"] == pytest.approx(sum(losses), rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_its_parameters_learn_and_targets_are_its_own(objective: str) -> None:
    subject = subject_of(objective)
    targets_are_not_seen(subject, subject.model())
    every_element_learns(subject, subject.model())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_evaluation_knows_nothing_of_it(objective: str, tmp_path: Path) -> None:
    """The loss of a fold is the task's, and neither heads nor memories are asked or moved."""
    subject = subject_of(objective)
    learner = subject.learner()
    before = {name: value.clone() for name, value in learner.objective.state_dict().items()}
    learner.objective.register_forward_pre_hook(lambda *_: pytest.fail("it is of the training only"))
    batch = subject.batch()

    fold: Any = RandomFold(batch)
    metrics, _ = evaluate(learner.model, subject.task, fold, 4, torch.device("cpu"))
    output = learner.model.eval()(batch)
    assert metrics["loss"] == pytest.approx(subject.task.loss(output, batch).item())
    assert all(torch.equal(value, before[name]) for name, value in learner.objective.state_dict().items())


def test_it_learns_from_no_target_that_it_does_not_need() -> None:
    """Of data without labels per modality, and with `needs` for what is read besides the task's."""
    for objective in OBJECTIVES:
        subject = subject_of(objective)
        plain = Subject(subject.cfg)
        learner = plain.learner()
        assert set(learner.objective.needs) <= set(TARGETS)
        if not learner.objective.needs:
            learner(plain.batch(), MOMENT)
