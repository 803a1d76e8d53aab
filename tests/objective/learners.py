"""Small learners, and single batches of theirs."""

from __future__ import annotations

from omegaconf import DictConfig
from torch import Tensor

from mmsa import learning
from mmsa.model import Learner
from mmsa.testing.laws import MOMENT, Subject, generator
from mmsa.types import Batch


def learner_of(cfg: DictConfig, seed: int = 0) -> Learner:
    """A model for the batches of `make_batch` and what it learns from, in training; the objective has not begun."""
    subject = Subject(cfg)
    model = subject.model(seed)
    return Learner(model, learning.build_objective(cfg, model, subject.task, generator())).train()


def step(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """The losses of a batch, after which its gradients are there and the objective is told."""
    losses = learner(batch, MOMENT)
    sum(losses.values()).backward()
    learner.objective.after_backward(batch, MOMENT)
    return {name: loss.detach() for name, loss in losses.items()}
