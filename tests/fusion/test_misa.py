"""MISA: its extractor, its codes and its losses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import mmsa
from mmsa.build import build_task
from mmsa.encoder.misa import MisaEncoder
from mmsa.errors import ConfigError
from mmsa.fusion.misa import ACTIVATIONS, Activation, MisaFusion
from mmsa.fusion.misa_losses import (
    central_moment_discrepancy,
    difference,
    discrimination,
    reconstruction,
    reversed_gradient,
)
from mmsa.testing.batches import make_batch
from mmsa.types import Embedded, Encoded
from tests.contracts.conftest import configuration, model_of
from tests.streams import values_of

NAMES = ("text", "audio", "visual")
SIMILARITIES = ("cmd", "adversarial")


def codes(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def everyone(num_utterances: int) -> Tensor:
    return torch.ones(num_utterances, dtype=torch.bool)


def encoded_of(num_utterances: int, absent: tuple[tuple[str, int], ...] = (), seed: int = 0) -> dict[str, Encoded]:
    parts = {}
    for index, modality in enumerate(NAMES):
        lengths = torch.tensor([0 if (modality, i) in absent else 3 for i in range(num_utterances)])
        vector = torch.randn(num_utterances, 5, generator=torch.Generator().manual_seed(10 * seed + index))
        parts[modality] = Encoded(vector[:, None, :], vector * (lengths > 0)[:, None], lengths)
    return parts


def fusion_of(**options: Any) -> MisaFusion:
    torch.manual_seed(0)
    return MisaFusion(dict.fromkeys(NAMES, 5), 6, **options)


# --- the extractor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_extractor_is_as_wide_as_its_input_and_starts_orthogonal(cell: Any) -> None:
    encoder = MisaEncoder(7, cell=cell)
    assert (encoder.sequence_dim, encoder.utterance_dim) == (14, 28)
    assert MisaEncoder(7, 3).utterance_dim == 12
    recurrent = [p for name, p in encoder.named_parameters() if "weight_hh" in name]
    assert len(recurrent) == 4
    for weight in recurrent:
        torch.testing.assert_close(weight.T @ weight, torch.eye(7))


def test_the_extractor_gives_zeros_at_padding_and_for_an_absent_modality() -> None:
    encoder = MisaEncoder(4)
    torch.nn.init.ones_(encoder.norm.bias)
    encoded = encoder(Embedded(torch.randn(3, 5, 4), torch.tensor([5, 2, 0])))
    assert encoded.sequence[0].abs().sum(dim=-1).min() > 0
    assert not encoded.sequence[1, 2:].any() and not encoded.sequence[2].any() and not encoded.utterance[2].any()


# --- the losses -------------------------------------------------------------------------------------------------------


def test_equal_codes_have_no_discrepancy_and_each_moment_counts() -> None:
    x, present = codes(8, 5), everyone(8)
    assert central_moment_discrepancy(x, x.clone(), present, present) == 0
    assert central_moment_discrepancy(x, x[torch.randperm(8)], present, present) < 1e-6  # of distributions, not of rows
    torch.testing.assert_close(central_moment_discrepancy(x, x + 1, present, present), torch.tensor(math.sqrt(5)))
    mirrored = 2 * x.mean(dim=0) - x  # the same mean and variance, another skew
    assert central_moment_discrepancy(x, mirrored, present, present) > 1e-3


def test_codes_that_vary_apart_do_not_differ_less_than_codes_that_vary_together() -> None:
    t = torch.tensor([1.0, -1.0, 1.0, -1.0])
    s = torch.tensor([1.0, 1.0, -1.0, -1.0])
    x, apart = t[:, None].expand(4, 3), s[:, None].expand(4, 3)
    assert difference(x, apart, everyone(4)) < 1e-10
    assert difference(x, x, everyone(4)) > 1


def test_both_sides_of_the_reconstruction_learn() -> None:
    made, target = codes(4, 3).requires_grad_(), codes(4, 3, seed=1).requires_grad_()
    reconstruction(made, target, everyone(4)).backward()
    assert made.grad is not None and target.grad is not None
    torch.testing.assert_close(made.grad, -target.grad)


def test_a_reversed_gradient_keeps_the_values() -> None:
    x = codes(4, 3).requires_grad_()
    y = reversed_gradient(x, 0.7)
    assert torch.equal(x, y)
    (3 * y).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((4, 3), -0.7 * 3))


def test_telling_modalities_apart_costs_nothing_once_it_is_sure() -> None:
    sure = 50 * torch.eye(3)[:, None, :].expand(3, 4, 3)
    present = torch.ones(3, 4, dtype=torch.bool)
    assert discrimination(sure, present) < 1e-6
    torch.testing.assert_close(discrimination(torch.zeros(3, 4, 3), present), torch.tensor(math.log(3)))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("num_utterances", [1, 2, 4])
def test_gradients_are_finite_for_a_batch_of_one_and_for_equal_codes(similarity: Any, num_utterances: int) -> None:
    """The original's moments have NaN gradients in both cases."""
    fusion = fusion_of(similarity=similarity)
    for part in (fusion.project, fusion.norm, fusion.private):  # the same map for all, so that equal inputs coincide
        for name in NAMES[1:]:
            part[name].load_state_dict(part[NAMES[0]].state_dict())
    parts = encoded_of(num_utterances)
    equal = {m: replace(parts[m], utterance=parts["text"].utterance.clone()) for m in NAMES}
    for encoded in (parts, equal):
        vectors = [part.utterance.requires_grad_() for part in encoded.values()]
        for loss in fusion.interact(encoded).losses.values():
            fusion.zero_grad()
            assert torch.isfinite(loss)
            loss.backward(retain_graph=True)
            gradients = [p.grad for p in [*fusion.parameters(), *vectors] if p.grad is not None]
            assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


# --- absent modalities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_an_absent_modality_says_nothing(similarity: Any) -> None:
    """Neither to the prediction nor to the losses, whatever is in its place."""
    fusion = fusion_of(similarity=similarity).eval()
    encoded = encoded_of(5, absent=(("audio", 1), ("audio", 2), ("visual", 2)))
    noise = {m: replace(p, utterance=p.utterance + 9 * (p.lengths == 0)[:, None]) for m, p in encoded.items()}
    ours, other = fusion.interact(encoded), fusion.interact(noise)
    assert torch.equal(fusion.combine(ours.streams).vector, fusion.combine(other.streams).vector)
    assert all(torch.equal(loss, other.losses[name]) for name, loss in ours.losses.items())


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_losses_are_those_of_the_utterances_that_have_the_modalities(similarity: Any) -> None:
    fusion = fusion_of(similarity=similarity).eval()
    all_absent = tuple((m, 3) for m in NAMES)
    part = encoded_of(4, absent=all_absent)
    rest = {m: Encoded(p.sequence[:3], p.utterance[:3], p.lengths[:3]) for m, p in part.items()}
    ours, theirs = fusion.interact(part).losses, fusion.interact(rest).losses
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])


def test_a_pair_is_compared_where_the_utterance_has_both() -> None:
    fusion = fusion_of().eval()
    interaction = fusion.interact(encoded_of(5, absent=(("audio", 0), ("visual", 4))))
    rows = {"text": slice(0, 5), "audio": slice(1, 5), "visual": slice(0, 4)}
    pairs = [(f"private {m}", f"shared {m}", rows[m]) for m in NAMES]
    pairs += [("private text", f"private {m}", rows[m]) for m in ("audio", "visual")]
    pairs += [("private audio", "private visual", slice(1, 4))]
    code = values_of(interaction.streams)
    expected = [difference(code[x][both], code[y][both], everyone(both.stop - both.start)) for x, y, both in pairs]
    torch.testing.assert_close(interaction.losses["difference"], torch.stack(expected).sum())
    x, y = codes(4, 3), codes(4, 3, seed=1)
    assert central_moment_discrepancy(x, y, everyone(4), ~everyone(4)) == 0


def test_a_batch_without_a_modality_at_all_is_finite() -> None:
    fusion = fusion_of()
    for absent in (tuple(("text", i) for i in range(3)), tuple((m, i) for m in NAMES for i in range(3))):
        interaction = fusion.interact(encoded_of(3, absent=absent))
        vector = fusion.combine(interaction.streams).vector
        total = vector.sum() + torch.stack(list(interaction.losses.values())).sum()
        total.backward()
        assert torch.isfinite(total) and all(
            p.grad is None or torch.isfinite(p.grad).all() for p in fusion.parameters()
        )
        fusion.zero_grad()


def test_attention_always_has_something_to_attend_to(monkeypatch: pytest.MonkeyPatch) -> None:
    fusion = fusion_of().eval()
    seen, layer = [], fusion.transformer.forward

    def recorded(*inputs: Any, **options: Any) -> Tensor:  # a hook would make torch take another kernel
        seen.append(layer(*inputs, **options))
        return seen[-1]

    monkeypatch.setattr(fusion.transformer, "forward", recorded)
    with torch.no_grad():  # this kernel gives NaN where it may attend to nothing
        streams = fusion.interact(encoded_of(2, absent=tuple((m, 1) for m in NAMES))).streams
        fusion.combine(streams)
    assert torch.isfinite(seen[0]).all()


def test_a_masked_stream_is_not_attended_to() -> None:
    fusion = fusion_of().eval()
    streams = dict(fusion.interact(encoded_of(4)).streams)
    last = list(streams)[-1]
    streams[last] = replace(streams[last], values=torch.zeros_like(streams[last].values))
    others = torch.stack([x for name, x in values_of(streams).items() if name != last], dim=1)
    alone = torch.cat([fusion.transformer(others), torch.zeros(4, 1, 6)], dim=1)
    expected = fusion.activation(fusion.fuse(alone.flatten(1)))
    torch.testing.assert_close(fusion.combine(streams).vector, expected)


# --- options ----------------------------------------------------------------------------------------------------------


def test_the_fusion_brings_the_weights_of_its_losses() -> None:
    paper = {"similarity": 1.0, "difference": 0.3, "reconstruction": 1.0}
    for task in ("regression", "classification"):
        assert dict(configuration("fusion=misa", f"task={task}").task.auxiliary) == paper
        assert not configuration("fusion=concat", f"task={task}").task.auxiliary
    cfg = configuration("encoder=misa", "fusion=misa", "task.auxiliary.difference=2", "task.auxiliary.similarity=0")
    model, task, batch = model_of(cfg).eval(), build_task(cfg), make_batch()
    output = model(batch)
    assert set(output.losses) == set(paper)
    plain = task.primary_loss(output.predictions["sentiment"], batch.targets["sentiment"])
    expected = plain + 2 * output.losses["difference"] + output.losses["reconstruction"]
    torch.testing.assert_close(task.loss(output, batch), expected)


def test_a_loss_without_a_weight_and_a_weight_without_a_loss_are_refused() -> None:
    without = configuration("fusion=misa", "~task.auxiliary.reconstruction")
    with pytest.raises(ConfigError, match=r"reconstruction, which has no weight.\n  type \+task"):
        build_task(without).loss(model_of(without)(make_batch()), make_batch())
    more = configuration("fusion=misa", "+task.auxiliary.cmd=1")
    with pytest.raises(ConfigError, match=r"type ~task\.auxiliary\.cmd"):
        build_task(more).loss(model_of(more)(make_batch()), make_batch())


@pytest.mark.parametrize("overrides", [("fusion.hidden_dim=7",), ("fusion=attention",)], ids=" ".join)
def test_what_does_not_fit_is_refused(overrides: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"type (hidden_dim=8|fusion=misa)"):
        model_of(configuration("encoder=misa", "fusion=misa", *overrides))
    with pytest.raises(ConfigError, match="type fusion=concat"):
        MisaFusion({"text": 5}, 6)


def test_the_discriminator_is_built_only_for_adversarial_similarity() -> None:
    assert not [name for name, _ in fusion_of().named_parameters() if "discriminator" in name]
    fusion = fusion_of(similarity="adversarial")
    assert sum(p.numel() for p in fusion.discriminator.parameters()) == 6 * 6 + 6 + 6 * 3 + 3


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_shared_codes_learn_against_the_discriminator(weight: float) -> None:
    """The discriminator's own gradient is not reversed; that of what it reads is, by the weight."""
    gradients = {}
    for reversal in (1.0, weight):
        fusion = fusion_of(similarity="adversarial", reversal=reversal).eval()
        fusion.interact(encoded_of(4)).losses["similarity"].backward()
        gradients[reversal] = (fusion.discriminator[0].weight.grad, fusion.shared.weight.grad)
    torch.testing.assert_close(gradients[weight][0], gradients[1.0][0])
    torch.testing.assert_close(gradients[weight][1], weight * gradients[1.0][1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_of_the_original_works(activation: Any) -> None:
    assert set(get_args(Activation)) == set(ACTIVATIONS)
    fusion = fusion_of(similarity="adversarial", activation=activation)
    interaction = fusion.interact(encoded_of(4))
    assert torch.isfinite(fusion.combine(interaction.streams).vector).all()
    slopes = [p for p in fusion.parameters() if p.shape == (1,)]
    assert len(slopes) == (activation == "prelu")


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_training_on_the_built_in_corpus_does_not_diverge(similarity: str, small: list[str]) -> None:
    chosen = ["encoder=misa", "fusion=misa", f"fusion.similarity={similarity}", "trainer.clip_value=1", "task.loss=mse"]
    result = mmsa.run([*small, *chosen, "hidden_dim=32"], quiet=True)
    losses = [float(line.split(",")[1]) for line in (result.folder / "history.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]
    assert all(math.isfinite(value) for name, value in result.metrics.items() if name.startswith("valid"))
