"""Self-MM: what moves the labels of the modalities and what does not, what its memory holds, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmsa.build import check
from mmsa.compose import compose
from mmsa.errors import ConfigError
from mmsa.model import Learner
from mmsa.testing.batches import make_batch
from mmsa.testing.training import same
from mmsa.types import Batch, Mix, Moment
from tests.contracts.conftest import configuration
from tests.objective.learners import learner_of

SELF_MM = ["objective=self_mm", "fusion=mlp"]
MODALITIES = ("text", "audio", "visual")
SIGNED = (1.5, -2.0, 0.5, -1.0)


def learner_for(*overrides: str, seed: int = 0) -> Learner:
    """Without dropout."""
    return learner_of(configuration(*SELF_MM, *overrides), seed=seed).eval()


def labelled(sentiments: Sequence[float] = SIGNED, absent: Sequence[tuple[str, int]] = (), seed: int = 0) -> Batch:
    return replace(make_batch(absent=absent, seed=seed), targets={"sentiment": torch.tensor(sentiments)})


def begun(learner: Learner, batch: Batch) -> Learner:
    learner.objective.begin(len(batch.ids), batch.targets)
    return learner


def step(learner: Learner, batch: Batch, epoch: int) -> dict[str, Tensor]:
    """The losses of a batch, whose gradients are fresh, and after which the labels are renewed."""
    learner.zero_grad()
    moment = Moment(epoch, 1, 9, 1)
    losses = learner(batch, moment)
    torch.stack(list(losses.values())).sum().backward()
    learner.objective.after_backward(batch, moment)
    return {name: loss.detach() for name, loss in losses.items()}


def labels(learner: Learner) -> dict[str, Tensor]:
    return {m: memory.labels.clone() for m, memory in learner.objective.memories.items()}


def test_labels_stay_in_the_first_epoch_and_weigh_nothing_in_the_first_two() -> None:
    batch = labelled()
    learner = begun(learner_for(), batch)
    for epoch, moves in ((1, False), (2, True)):
        losses = step(learner, batch, epoch)
        assert losses["task"] > 0 and all(losses[f"unimodal_{m}"] == 0 for m in MODALITIES)
        for parameter in learner.objective.parameters():
            assert parameter.grad is not None and not parameter.grad.any(), "zeros, which are decayed, unlike none"
        assert all(torch.equal(label, batch.targets["sentiment"]) != moves for label in labels(learner).values())
    before = labels(learner)
    assert all(step(learner, batch, 3)[f"unimodal_{m}"] > 0 for m in MODALITIES)
    assert all(parameter.grad.any() for parameter in learner.objective.outputs.parameters())
    assert not any(torch.equal(label, before[m]) for m, label in labels(learner).items())
    assert torch.equal(learner.objective.whole.labels, batch.targets["sentiment"])


def test_a_label_moves_as_the_equations_say() -> None:
    """One utterance, one modality, written out."""
    batch, row, epoch, bound = labelled(), 1, 4, 0.8
    learner = begun(learner_for(f"objective.bound={bound}"), batch)
    step(learner, batch, 1)
    learner.objective.memories["audio"].labels.copy_(torch.tensor([0.3, -0.1, 0.0, -2.0]))
    centres, features = {}, {}
    for name, memory in {"whole": learner.objective.whole, "audio": learner.objective.memories["audio"]}.items():
        features[name] = memory.features[row]  # of equal weights, and so of the next pass too
        centres[name] = memory.positive, memory.negative
    delta = {}
    for name, (positive, negative) in centres.items():
        nearer, farther = (features[name] - positive).norm(), (features[name] - negative).norm()
        delta[name] = ((farther - nearer) / (nearer + 1e-8)).item()
    truth, ratio = -2.0, delta["audio"] / (delta["whole"] + 1e-8)
    made = 0.5 * ratio * truth + 0.5 * (truth + delta["audio"] - delta["whole"])
    made = min(max(made, -bound), bound)
    step(learner, batch, epoch)
    moved = learner.objective.memories["audio"].labels[row].item()
    assert moved == pytest.approx(3 / 5 * -0.1 + 2 / 5 * made, rel=1e-4)


@pytest.mark.parametrize("exclude_zero", [True, False])
def test_centres_are_the_means_of_the_classes_over_all_utterances(exclude_zero: bool) -> None:
    batch = labelled([1.0, 0.0, 2.0, -1.0])
    learner = begun(learner_for(f"objective.exclude_zero={str(exclude_zero).lower()}"), batch)
    step(learner, batch, 1)
    for memory in (learner.objective.whole, *learner.objective.memories.values()):
        members = [0, 2] if exclude_zero else [0, 1, 2]
        torch.testing.assert_close(memory.positive, memory.features[members].mean(dim=0))
        torch.testing.assert_close(memory.negative, memory.features[3])


@pytest.mark.parametrize("sentiments", [[0.0] * 4, [1.0, 2.0, 3.0, 0.5], [-1.0, -2.0, -3.0, 0.0]])
def test_nobodys_label_moves_by_a_class_without_members(sentiments: list[float]) -> None:
    batch = labelled(sentiments)
    learner = begun(learner_for(), batch)
    for epoch in (1, 2, 3):
        assert all(loss.isfinite() for loss in step(learner, batch, epoch).values())
    assert all(torch.equal(label, batch.targets["sentiment"]) for label in labels(learner).values())
    assert all(parameter.grad.isfinite().all() for parameter in learner.parameters())


def test_an_utterance_without_a_modality_has_no_error_label_or_feature_there() -> None:
    absent = [("audio", 0), ("audio", 3), *((m, 1) for m in MODALITIES)]
    batch = labelled(absent=absent)
    learner = begun(learner_for(), batch)
    step(learner, batch, 1)
    audio, text = learner.objective.memories["audio"], learner.objective.memories["text"]
    torch.testing.assert_close(audio.positive, audio.features[2])
    assert audio.negative.isnan().all(), "nobody with a negative label is heard"
    torch.testing.assert_close(text.negative, text.features[3])
    step(learner, batch, 2)
    moved = {m: (label != batch.targets["sentiment"]).tolist() for m, label in labels(learner).items()}
    assert moved["audio"] == [False] * 4 and moved["text"] == [True, False, True, True]

    audio.labels += 1.0
    loss = step(learner, batch, 1)["unimodal_audio"]
    _, second = learner.objective.layers["audio"](learner.model.trace(batch)[1].encoded["audio"].utterance)
    error = (learner.objective.outputs["audio"](second)[2, 0] - audio.labels[2]).abs()
    torch.testing.assert_close(loss, math.tanh(1.0) * error.detach() / 4)


def test_saved_and_loaded_the_next_labels_are_equal() -> None:
    batch = labelled()
    learner, other = begun(learner_for(), batch), begun(learner_for(seed=1), labelled((0.0,) * 4))
    for epoch in (1, 2):
        step(learner, batch, epoch)
    other.model.load_state_dict(learner.model.state_dict())
    other.objective.load_state_dict(learner.objective.state_dict())
    for epoch in (2, 3, 4):
        assert same(step(learner, batch, epoch), step(other, batch, epoch))
        assert same(labels(learner), labels(other))


def test_targets_do_not_reach_the_model() -> None:
    learner, found = learner_for(), []
    for values in (SIGNED, [math.nan] * 4):
        found.append(learner.model(labelled(values)).predictions)
    assert same(*found)
    assert not any("memories" in name or "outputs" in name for name in learner.model.state_dict())


def test_widths_and_rates_are_one_for_all_or_by_modality() -> None:
    sizes = "objective.hidden_dims={text:5,audio:3,visual:4,gaze:9}"
    learner = learner_for(sizes, "objective.dropouts={text:0.1,audio:0.2,visual:0}")
    assert {m: (layers.second.out_features, layers.dropout.p) for m, layers in learner.objective.layers.items()} == {
        "text": (5, 0.1),
        "audio": (3, 0.2),
        "visual": (4, 0.0),
    }
    assert {layers.second.out_features for layers in learner_for().objective.layers.values()} == {8}
    with pytest.raises(ConfigError, match=r"lacks audio(.|\n)*type \+objective\.hidden_dims\.audio="):
        check(compose([*SELF_MM, "objective.hidden_dims={text:3}"]))


@pytest.mark.parametrize(
    ("overrides", "typed"),
    [
        (["objective=self_mm", "fusion=concat"], "fusion=mlp"),
        ([*SELF_MM, "task=classification"], "task=regression"),
        ([*SELF_MM, "task.target=emotions"], "task=regression"),
    ],
)
def test_what_it_is_not_defined_for_is_refused_before_any_data_are_read(overrides: list[str], typed: str) -> None:
    with pytest.raises(ConfigError, match=rf"type {typed}, or objective=task"):
        check(compose(overrides))
    check(compose([*overrides, "objective=task"]))


def test_mixed_utterances_and_wrong_options_are_refused() -> None:
    batch = labelled()
    learner = begun(learner_for(), batch)
    output, internals = learner.model.trace(batch)
    mix = Mix(torch.tensor([[0, 1], [1, 0]]), {}, torch.full((2, 2), 0.5))
    with pytest.raises(ConfigError, match=r"regularizer mixes(.|\n)*type regularizer=none"):
        learner.objective(replace(output, mix=mix), internals, batch, Moment(1, 1, 1, 1))
    for wrong in ("bound=0", "hidden_dims=0", "dropouts=1.0", "dropouts={text:0,audio:2,visual:0}", "exclude_zero=1"):
        with pytest.raises(ConfigError, match=f"objective.{wrong.partition('=')[0]}="):
            check(compose([*SELF_MM, f"objective.{wrong}"]))
