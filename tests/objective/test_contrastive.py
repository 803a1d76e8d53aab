"""Supervised contrastive learning with a memory: its loss pair by pair, what the memory holds, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmsa.build import check
from mmsa.errors import ConfigError
from mmsa.model import Learner
from mmsa.objective.contrastive import NOTHING
from mmsa.testing.batches import make_batch
from mmsa.testing.training import same
from mmsa.training.classification import Classification
from mmsa.training.regression import Regression
from mmsa.types import Batch, Mix, Moment
from tests.contracts.conftest import configuration
from tests.objective.learners import learner_of, step

NOW = Moment(1, 1, 1, 1)
PROJECTED = ["objective.projection_dim=5", "objective.temperature=0.3", "objective.weight=0.7"]


def learner_for(*overrides: str, seed: int = 0) -> Learner:
    """Without dropout."""
    return learner_of(configuration("objective=contrastive", *overrides), seed=seed).eval()


def labelled(sentiments: Sequence[float], seed: int = 0) -> Batch:
    batch = make_batch(lengths=[4, 9, 1, 6, 3, 5][: len(sentiments)], seed=seed)
    return replace(batch, targets={"sentiment": torch.tensor(sentiments)})


def contrastive(learner: Learner, batch: Batch) -> tuple[Tensor, Tensor]:
    """The contrastive loss of a batch, and the fused vectors of which it is."""
    output, internals = learner.model.trace(batch)
    return learner.objective(output, internals, batch, NOW)["contrastive"], internals.fused.vector


def units(learner: Learner, fused: Tensor) -> list[Tensor]:
    """The vectors that are compared, written again."""
    mapped = [learner.objective.projection.weight.detach().double() @ vector for vector in fused.detach().double()]
    return [vector / vector.square().sum().sqrt() for vector in mapped]


Labelled = tuple[Tensor, bool]
"""A vector, and whether its sentiment is negative."""


def by_pairs(batch: Sequence[Labelled], memory: Sequence[Labelled], temperature: float) -> float:
    """The mean over the anchors with a positive of -1/|P| sum_p log(exp(a p / t) / sum_c exp(a c / t))."""
    of_anchors = []
    for i, (anchor, negative) in enumerate(batch):
        contrasts = [other for j, other in enumerate(batch) if j != i] + list(memory)
        total = sum(math.exp(float(anchor @ vector) / temperature) for vector, _ in contrasts)
        logs = [
            math.log(math.exp(float(anchor @ vector) / temperature) / total)
            for vector, other in contrasts
            if other == negative
        ]
        if logs:
            of_anchors.append(-sum(logs) / len(logs))
    return sum(of_anchors) / len(of_anchors)


def test_the_loss_is_that_of_the_paper_over_the_batch_and_the_memory() -> None:
    learner = learner_for(*PROJECTED, "objective.memory_size=5")
    sentiments = [[0.5, -2.0, 1.0, -0.1], [0.0, 3.0, 2.0], [-1.0, -2.0, 0.3, 0.0, 1.0, 2.0], [-3.0, 0.0]]
    memory: list[Labelled] = []
    for number, values in enumerate(sentiments):
        batch = labelled(values, seed=number)
        loss, fused = contrastive(learner, batch)
        now = list(zip(units(learner, fused), [value < 0 for value in values], strict=True))
        assert loss.item() == pytest.approx(0.7 * by_pairs(now, memory, temperature=0.3), abs=1e-5)

        learner.objective.after_backward(batch, NOW)
        memory = [*memory, *now][-5:]
        held = learner.objective.classes != NOTHING
        assert held.sum() == len(memory)
        kept = torch.stack([vector for vector, _ in memory])
        torch.testing.assert_close(learner.objective.vectors[held].double(), kept, rtol=1e-5, atol=1e-6)
        assert learner.objective.classes[held].tolist() == [int(not negative) for _, negative in memory]
        assert not learner.objective.vectors.requires_grad


def test_without_a_map_or_a_memory_the_fused_vectors_of_the_batch_are_compared() -> None:
    learner = learner_for("objective.memory_size=0")
    values = [0.5, -2.0, 1.0, -0.1]
    for seed in (0, 1):
        batch = labelled(values, seed)
        loss, fused = contrastive(learner, batch)
        vectors = [vector / vector.norm() for vector in fused.detach().double()]
        now = list(zip(vectors, [value < 0 for value in values], strict=True))
        assert loss.item() == pytest.approx(0.1 * by_pairs(now, [], temperature=0.1), abs=1e-5)
        learner.objective.after_backward(batch, NOW)
    assert learner.objective.vectors.shape == (0, fused.shape[1])


def test_the_memory_is_renewed_after_a_batch_and_not_by_looking() -> None:
    learner = learner_for(*PROJECTED)
    before = {name: value.clone() for name, value in learner.objective.state_dict().items()}
    batch = labelled([0.5, -2.0, 1.0])
    contrastive(learner, batch)
    assert same(dict(learner.objective.state_dict()), before)
    step(learner, batch)
    assert (learner.objective.classes != NOTHING).sum() == 3
    learner.objective.after_backward(batch, NOW)
    assert (learner.objective.classes != NOTHING).sum() == 3, "each batch comes in once"


def test_gradients_reach_the_map_and_the_model_and_not_the_memory() -> None:
    learner = learner_for(*PROJECTED)
    step(learner, labelled([0.5, -2.0, 1.0, -0.1]))
    learner.zero_grad()
    loss, _ = contrastive(learner, labelled([0.7, -1.0], seed=1))
    loss.backward()
    assert learner.objective.projection.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for name, p in learner.model.named_parameters() if not name.startswith("head."))
    assert not any("projection" in name for name in learner.model.state_dict())


@pytest.mark.parametrize("values", [[0.5], [0.5, -1.0]])
def test_a_batch_without_positives_has_a_loss_of_zero_with_a_gradient(values: list[float]) -> None:
    learner = learner_for(*PROJECTED)
    losses = step(learner, labelled(values))
    assert losses["contrastive"] == 0 and losses["task"] > 0
    assert learner.objective.projection.weight.grad is not None
    assert all(p.grad is None or p.grad.isfinite().all() for p in learner.parameters())
    assert step(learner, labelled([*values, -1.0], seed=1))["contrastive"] > 0, "now the memory has some"


def test_a_vector_of_zeros_is_not_compared() -> None:
    """As dropout makes it of an utterance of one word: it has no direction, and no gradient."""
    learner, batch = learner_for(), labelled([0.5, -2.0, 1.0, 0.3])
    output, internals = learner.model.trace(batch)
    vector = internals.fused.vector.detach().clone()
    vector[2] = 0.0
    vector.requires_grad_()
    given = replace(internals, fused=replace(internals.fused, vector=vector))
    loss = learner.objective(output, given, batch, NOW)["contrastive"]
    rows = [0, 1, 3]
    units = [(vector[i].detach().double() / vector[i].detach().double().norm(), i == 1) for i in rows]
    assert loss.item() == pytest.approx(0.1 * by_pairs(units, [], temperature=0.1), abs=1e-5)
    loss.backward()
    assert vector.grad is not None and vector.grad.isfinite().all()
    assert not vector.grad[2].any() and vector.grad[rows].any(dim=1).all()
    learner.objective.after_backward(batch, NOW)
    assert learner.objective.classes[-4:].tolist() == [1, 0, NOTHING, 1]


def test_saved_and_loaded_the_next_losses_are_equal() -> None:
    learner, other = learner_for(*PROJECTED), learner_for(*PROJECTED, seed=1)
    for seed in range(3):
        step(learner, labelled([0.5, -2.0, 1.0, -0.1], seed))
    other.model.load_state_dict(learner.model.state_dict())
    other.objective.load_state_dict(learner.objective.state_dict())
    for seed in range(3, 6):
        batch = labelled([0.5, -2.0, 1.0, -0.1], seed)
        assert same(step(learner, batch), step(other, batch))


def test_targets_do_not_reach_the_model() -> None:
    learner, found = learner_for(*PROJECTED), []
    for values in ([0.5, -2.0, 1.0], [math.nan] * 3):
        torch.manual_seed(0)
        found.append(learner.model(labelled(values)).predictions)
    assert same(*found)


def test_classes_are_those_of_the_task_or_lie_between_the_cuts_of_its_kind() -> None:
    values = torch.tensor([-1.0, -0.1, 0.0, 0.05, 1.0])
    assert Regression().classes(values).tolist() == [0, 0, 1, 1, 1]
    assert Regression(kind="sims").classes(values).tolist() == [0, 1, 1, 1, 2]
    assert Regression(kind="binary").classes(torch.tensor([0.0, 1.0])).tolist() == [0, 1]
    typed = Classification(thresholds=[-0.5, 0.0, 0.5])
    assert typed.classes(values).tolist() == [0, 1, 2, 2, 3] == typed.truth(values).tolist()


@pytest.mark.parametrize(
    ("overrides", "typed"),
    [
        (["task.kind=number"], "task=classification task.thresholds=[0]"),
        (["task.target=emotions"], "objective=task"),
        (["task=classification", "task.target=emotions", "task.monitor=f1_emotions"], "objective=task"),
    ],
)
def test_a_target_without_classes_is_refused_before_data_are_read(overrides: list[str], typed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(configuration("objective=contrastive", *overrides))
    assert "has no classes" in str(refused.value) and f"type {typed}" in str(refused.value)
    chosen = dict(option.split("=", 1) for option in [*overrides, *typed.split()] if "monitor" not in option)
    chosen = {"objective": "contrastive", **chosen}
    check(configuration(*(f"{key}={value}" for key, value in chosen.items())))


def test_mixed_utterances_and_wrong_options_are_refused() -> None:
    learner, batch = learner_for(), labelled([0.5, -2.0])
    output, internals = learner.model.trace(batch)
    mix = Mix(torch.tensor([[0, 1], [1, 0]]), {}, torch.full((2, 2), 0.5))
    with pytest.raises(ConfigError, match=r"mixes utterances(.|\n)*type regularizer=none"):
        learner.objective(replace(output, mix=mix), internals, batch, NOW)
    for wrong in ("weight=-1", "temperature=0", "projection_dim=0", "memory_size=-1"):
        with pytest.raises(ConfigError, match=f"objective.{wrong.partition('=')[0]}="):
            check(configuration("objective=contrastive", f"objective.{wrong}"))
