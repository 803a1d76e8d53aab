"""A head per modality learns what the modality says alone, and the model knows nothing of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmsa.build import check
from mmsa.errors import ConfigError, DataError
from mmsa.model import Learner
from mmsa.testing.batches import make_batch
from mmsa.testing.training import same
from mmsa.types import Batch, Mix, Moment
from tests.contracts.conftest import configuration
from tests.objective.learners import learner_of, step

MODALITIES = ("text", "audio", "visual")
NOW = Moment(1, 1, 1, 1)


def learner_for(*overrides: str) -> Learner:
    return learner_of(configuration("objective=unimodal", *overrides))


def labelled(batch: Batch, **targets: Tensor) -> Batch:
    return replace(batch, targets={**batch.targets, **targets})


def losses_of(learner: Learner, batch: Batch) -> tuple[dict[str, Tensor], Any]:
    output, internals = learner.model.trace(batch)
    return learner.objective(output, internals, batch, NOW), internals


def one_error(kind: str, predicted: Tensor, label: Tensor) -> Tensor:
    """The loss of one utterance."""
    if kind == "l1":
        return (predicted - label).abs().mean()
    if kind == "classes":
        return functional.cross_entropy(predicted[None], (label >= 0).long()[None])
    return functional.binary_cross_entropy_with_logits(predicted, (label > 0).float())


@pytest.mark.parametrize(
    ("kind", "overrides", "columns"),
    [
        ("l1", ["task=regression"], ()),
        ("classes", ["task=classification"], ()),
        ("l1", ["task=regression", "task.target=emotions"], (6,)),
        ("emotions", ["task=classification", "task.target=emotions", "task.monitor=f1_emotions"], (6,)),
    ],
)
def test_a_head_learns_from_the_utterances_that_have_its_modality_and_its_label(
    kind: str, overrides: list[str], columns: tuple[int, ...]
) -> None:
    """Utterance by utterance, on the label of the modality's own, or where there is none on that of all."""
    learner = learner_for(*overrides, "objective.weights={text:0.5,audio:2,visual:1}")
    name = learner.objective.task.target
    torch.manual_seed(0)
    of_all, of_text = torch.randn(4, *columns), torch.randn(4, *columns)
    of_text[2] = torch.nan
    batch = make_batch(absent=[("text", 0), ("audio", 3), *(("visual", i) for i in range(4))])
    batch = labelled(batch, **{name: of_all, f"{name}_text": of_text})
    losses, internals = losses_of(learner, batch)
    assert list(losses) == ["task", "unimodal_text", "unimodal_audio", "unimodal_visual"]
    for modality, labels, weight, counted in (("text", of_text, 0.5, [1, 3]), ("audio", of_all, 2.0, [0, 1, 2])):
        linear = learner.objective.heads[modality]
        errors = []
        for i in counted:
            predicted = linear.weight @ internals.encoded[modality].utterance[i] + linear.bias
            errors.append(one_error(kind, predicted if columns or kind == "classes" else predicted[0], labels[i]))
        torch.testing.assert_close(losses[f"unimodal_{modality}"], weight * sum(errors) / len(errors))
    assert losses["unimodal_visual"] == 0 and losses["unimodal_visual"].requires_grad


def test_one_weight_is_that_of_every_head_and_none_changes_the_loss_of_the_task() -> None:
    batch = make_batch()
    plain, _ = losses_of(learner_for().eval(), batch)
    tripled, _ = losses_of(learner_for("objective.weights=3").eval(), batch)
    for name, loss in plain.items():
        torch.testing.assert_close(tripled[name], loss if name == "task" else 3 * loss)
    alone, _ = losses_of(learner_of(configuration("objective=task")).eval(), batch)
    assert torch.equal(plain["task"], alone["task"]), "the heads are drawn after the model, whose weights stay"


def test_heads_learn_and_reach_the_encoders_but_are_not_in_the_model() -> None:
    learner = learner_for()
    step(learner, make_batch(absent=[("visual", i) for i in range(4)]))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learner.parameters())
    for modality in ("text", "audio"):
        assert learner.objective.heads[modality].weight.grad.abs().sum() > 0
    assert not any("head" in name and "text" in name for name in learner.model.state_dict())

    learner.zero_grad()
    losses, _ = losses_of(learner, make_batch())
    losses["unimodal_audio"].backward()
    assert sum(p.grad.abs().sum() for p in learner.model.encoders["audio"].parameters()) > 0
    assert all(p.grad is None for p in learner.model.encoders["text"].parameters())


def test_targets_do_not_reach_the_model() -> None:
    learner, batch = learner_for(), make_batch()
    nothing = labelled(batch, sentiment=torch.full((4,), torch.nan), sentiment_text=torch.full((4,), torch.nan))
    found = []
    for given in (batch, nothing):
        torch.manual_seed(0)
        output, internals = learner.model.trace(given)
        found.append([output.predictions["sentiment"], internals.fused.vector])
    assert same(*found)


def test_utterances_that_are_mixed_before_the_encoders_are_refused() -> None:
    learner, batch = learner_for(), make_batch()
    output, internals = learner.model.trace(batch)
    rows = torch.stack([torch.arange(4), torch.tensor([1, 2, 3, 0])], dim=1)
    mix = Mix(rows, {}, torch.full((4, 2), 0.5))
    for site in ("inputs", "encoded", "streams"):
        done = {**internals.regularized, site: replace(internals.regularized[site], mix=mix)}
        given = replace(output, mix=mix), replace(internals, regularized=done), batch, NOW
        if site == "inputs":
            with pytest.raises(ConfigError, match=r"mixes utterances(.|\n)*type regularizer=none"):
                learner.objective(*given)
        else:
            assert learner.objective(*given)["unimodal_text"].isfinite(), "encodings are of one utterance each"


def test_wrong_weights_and_labels_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"each of text, audio, visual(.|\n)*weights=\{text:2,audio:1,visual:1\}"):
        check(configuration("objective=unimodal", "objective.weights={text:2}"))
    for wrong in ("-1", "{text:1,audio:-1,visual:1}", "much"):
        with pytest.raises(ConfigError, match=r"objective\.weights="):
            check(configuration("objective=unimodal", f"objective.weights={wrong}"))
    objective = learner_for().objective
    objective.begin(4, {"sentiment": torch.zeros(4), "sentiment_text": torch.zeros(4)})
    with pytest.raises(DataError, match=r"sentiment_text needs the columns(.|\n)*type objective=task"):
        objective.begin(4, {"sentiment": torch.zeros(4), "sentiment_text": torch.zeros(4, 1)})
