"""Nobody asks a GPU for a value in an epoch: the program would wait for it.

PyTorch's device "meta" stands for the GPU: its tensors have no values, and whoever asks for one fails.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmsa.run_folder import OF_THE_RUN
from mmsa.testing.laws import MOMENT, Subject
from mmsa.testing.training import RandomFold
from mmsa.training.loss_log import CHECK_EVERY, LossLog
from mmsa.training.schedules import linear
from mmsa.training.together import JointStep
from mmsa.training.trainer import Trainer, evaluate
from tests.contracts.conftest import configuration, options, quickly_built
from tests.training.test_together import COMBINATIONS, learners

META = torch.device("meta")
FABRIC: Any = SimpleNamespace(device=META, backward=lambda loss: loss.backward())
EVERYWHERE = "regularizer.sites=[inputs,encoded,streams]"
MODELS = [
    ["fusion=attention", "encoder=bilstm", "feedback=mmlatch", "regularizer=m3", "regularizer.mode=soft", EVERYWHERE],
    ["fusion=bilinear", "encoder=bigru", "feedback=static", "feedback.num_passes=2", "regularizer=dropout", EVERYWHERE],
    ["fusion=sequence", "regularizer=m3_slp", "objective=contrastive", "feedback=none"],
    ["fusion=misa", "fusion.similarity=adversarial", "encoder=misa", "regularizer=none"],
    ["fusion=mlp", "objective=self_mm", "task=regression"],
    ["fusion=lmf", "objective=unimodal", "task.head_dropout=0.1"],
    ["fusion=concat", "objective=task", "task=classification", "task.class_weights=[1,2]", "task.thresholds=[0]"],
]
WAITING = {"encoder=bert"}
"""Its library looks in every step whether there is padding."""


def test_every_option_is_tried() -> None:
    groups = ("fusion", "encoder", "feedback", "regularizer", "objective", "task")
    there = {f"{group}={option}" for group in groups for option in options(group)}
    assert there - WAITING == there & {override for model in MODELS for override in model}


@pytest.mark.parametrize("overrides", MODELS, ids=lambda overrides: overrides[0])
def test_a_step_asks_for_no_value(overrides: list[str], tmp_path: Path) -> None:
    with quickly_built():
        subject = Subject(configuration(*overrides, "trainer.clip_norm=1", "trainer.clip_value=1"))
        learner: Any = subject.learner().to(META)
    chosen = {key: value for key, value in subject.cfg.trainer.items() if key not in OF_THE_RUN}
    trainer = Trainer(FABRIC, subject.task, tmp_path, {}, **chosen)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)  # our own are PyTorch's for real devices
    schedule, log = linear(optimizer, 4, 2), LossLog(1)
    batch = subject.lacking(lengths=(2, 1, 1, 2))
    log.add(0, [batch], trainer.step(learner, {"main": optimizer}, [batch], [MOMENT._replace(epoch=2)]))
    schedule.after_step()


def test_a_joint_step_asks_for_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of it is left on the host."""
    monkeypatch.setattr("mmsa.layers.dropout.OWN_DRAWS", {"meta"})
    joint, batches, generators = learners(COMBINATIONS[0], True)
    step = JointStep([learner.to(META) for learner in joint], generators, FABRIC)
    for losses in step(batches, MOMENT):
        assert all(loss.device == META for loss in losses.values())
    for output in step.outputs(batches):
        assert output.predictions[output.primary].device == META


def test_losses_on_a_gpu_are_looked_at_once_an_epoch() -> None:
    log, batch = LossLog(1), Subject(configuration()).batch()
    for done in range(CHECK_EVERY + 1):
        log.add(done, [batch], [{"task": torch.zeros((), device=META)}])
    with pytest.raises(NotImplementedError, match="no data"):
        log.means()


def test_an_evaluation_looks_when_all_is_predicted() -> None:
    with quickly_built():
        subject = Subject(configuration("fusion=concat"))
        model = subject.model().to(META)
    seen: list[int] = []
    model.register_forward_hook(lambda module, given, output: seen.append(len(given[0].ids)))
    fold: Any = RandomFold(subject.batch(lengths=(2, 3, 1, 2, 1)))
    with pytest.raises(NotImplementedError, match="no data"):
        evaluate(model, subject.task, fold, 2, META)
    assert seen == [2, 2, 1]
