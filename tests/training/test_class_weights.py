"""Weights of the classes in the loss of classification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import mmsa
from mmsa import build
from mmsa.compose import compose
from mmsa.errors import ConfigError
from mmsa.training.classification import Classification
from mmsa.training.task import mixed
from mmsa.types import Mix

LABELS = np.array([-1, 1, 1, 2, 1, 1, 3], dtype=np.float32)  # one negative of seven
DEGREES = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 2, 0, 1, 0], [0, 0, 3, 0, 0, 0], [0, 1, 0, 0, 0, 0]], dtype=np.float32)


@pytest.mark.parametrize(("target", "values"), [("sentiment", LABELS), ("emotions", DEGREES)])
def test_balanced_classes_pull_alike(target: str, values: np.ndarray) -> None:
    """Where nothing is known of the input, the loss of the train fold is least where every class is as probable."""
    task = Classification(target, class_weights="balanced")
    task.begin({target: values})
    bias = torch.zeros(task.output_dim, requires_grad=True)
    truth = task.truth(torch.from_numpy(values))
    task.primary_loss(bias.expand(len(values), -1), truth).backward()
    assert bias.grad is not None
    seen = torch.ones(task.output_dim, dtype=torch.bool) if target == "sentiment" else (truth > 0).any(dim=0)
    assert bias.grad[seen].abs().max() < 1e-6
    plain = Classification(target)
    plain.begin({target: values})
    plain.primary_loss(bias.expand(len(values), -1), truth).backward()
    assert bias.grad[seen].abs().max() > 0.01


def test_a_list_weighs_each_utterance_by_its_class_whatever_its_batch() -> None:
    task = Classification(class_weights=[1, 3], thresholds=[0])
    output, truth = torch.randn(7, 2), task.truth(torch.from_numpy(LABELS))
    each = functional.cross_entropy(output, truth, reduction="none") * torch.where(truth == 0, 1.0, 3.0)
    assert task.primary_loss(output, truth) == pytest.approx(float(each.mean()))
    halves = [task.primary_loss(output[part], truth[part]) * len(truth[part]) for part in (slice(3), slice(3, 7))]
    assert float(sum(halves)) / 7 == pytest.approx(float(each.mean()))
    mix = Mix(rows=torch.tensor([[0, 1]]), targets=torch.tensor([[0.25, 0.75]]), weights={})
    of_two = [task.primary_loss(output[:1], label[None]) for label in truth[:2]]
    expected = 0.25 * of_two[0] + 0.75 * of_two[1]
    assert task.primary_loss(output[:1], mixed(task.shares(truth), mix)) == pytest.approx(float(expected))


def test_a_class_that_the_train_fold_lacks_weighs_one() -> None:
    task = Classification(class_weights="balanced", thresholds=[0, 100])
    task.begin({"sentiment": LABELS})
    assert task.weights is not None and task.weights.tolist() == pytest.approx([7 / 3, 7 / 18, 1])


@pytest.mark.parametrize(("weights", "said"), [([1.0], "needs 2 weights"), ("inverse", "class_weights"), ([1, 0], "0")])
def test_wrong_weights_are_refused(weights: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build.check(compose(["task=classification", f"task.class_weights={weights}"]))


def test_a_run_and_its_evaluation_have_one_loss(small: list[str]) -> None:
    typed = [*small, "task=classification", "task.thresholds=[-1.5,1.5]", "trainer.max_epochs=1"]
    weighted = mmsa.run([*typed, "task.class_weights=balanced"], quiet=True)
    plain = mmsa.run(typed, quiet=True)
    assert weighted.metrics["valid/loss"] != pytest.approx(plain.metrics["valid/loss"], rel=1e-3)
    metrics, _ = mmsa.load(weighted.folder).evaluate("valid")
    assert metrics["loss"] == pytest.approx(weighted.metrics["valid/loss"], rel=1e-5)
