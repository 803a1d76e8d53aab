"""Laws of the masks of MMLatch, for every generator and every way to combine them.

Here fails whatever has one of the originals' faults: a mask dropout that acts at evaluation; a model that stops when an
encoder has no attention; a mask that is returned but is not the one applied; ways to combine masks that never take
effect; generators of a unit that start with equal weights; masks that depend on padding or on modalities that are not
there.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmsa.build import build_task
from mmsa.errors import ConfigError
from mmsa.feedback.mmlatch import GENERATORS, MaskFeedback, combined
from mmsa.testing.batches import make_batch
from mmsa.types import Embedded, Encoded, padding_mask
from tests.contracts.conftest import configuration, model_of

WIDTHS = {"text": 4, "audio": 4, "visual": 3}
LENGTHS = {"text": [5, 2, 0, 4], "audio": [5, 2, 3, 4], "visual": [5, 2, 3, 0]}
COMBINE = ("mean", "max", "min")
EVERY = list(itertools.product(GENERATORS, COMBINE, (False, True)))
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def feedback(**options: object) -> MaskFeedback:
    torch.manual_seed(0)
    return MaskFeedback(WIDTHS, {"sequence": dict.fromkeys(WIDTHS, 5)}, **options).eval()  # type: ignore[arg-type]


def encoded(num_steps: int = 5, in_padding: float = 0.0) -> dict[str, Encoded]:
    generator = torch.Generator().manual_seed(1)
    parts = {}
    for modality, steps in LENGTHS.items():
        lengths = torch.tensor(steps)
        sequence = torch.randn(4, 5, 5, generator=generator)
        sequence = torch.nn.functional.pad(sequence, (0, 0, 0, num_steps - 5))
        sequence = sequence.masked_fill(padding_mask(lengths, num_steps)[:, :, None], in_padding)
        parts[modality] = Encoded(sequence, sequence.sum(dim=1), lengths)
    return parts


def embedded(values: dict[str, Tensor]) -> dict[str, Embedded]:
    return {modality: Embedded(x, torch.tensor(LENGTHS[modality])) for modality, x in values.items()}


def inputs() -> dict[str, Embedded]:
    return embedded({modality: torch.ones(4, 5, width) for modality, width in WIDTHS.items()})


def mask_of(stage: MaskFeedback, target: str, parts: dict[str, Encoded]) -> Tensor:
    """The mask of a modality, from the sequences of these."""
    return stage.mask(target, {m: part.sequence for m, part in parts.items()}, {m: p.lengths for m, p in parts.items()})


def single(stage: MaskFeedback, target: str, source: str) -> Tensor:
    """The mask that one source alone would give, (B, T, D)."""
    part = encoded()[source]
    return torch.sigmoid(stage.generators[target][source](part.sequence, part.lengths))  # type: ignore[index]


def test_masks_are_combined_over_the_sources_that_are_there() -> None:
    masks = torch.tensor([[0.2, 0.2, 0.2], [0.5, 0.6, 0.5], [0.9, 0.9, 0.9]]).view(3, 3, 1, 1)
    present = torch.tensor([[True, True, False], [True, False, False], [True, True, False]]).view(3, 3, 1, 1)
    expected = {"mean": [1.6 / 3, 0.55, 1.0], "max": [0.9, 0.9, 1.0], "min": [0.2, 0.2, 1.0]}
    for how in COMBINE:
        torch.testing.assert_close(combined(masks, present, how).flatten(), torch.tensor(expected[how]))


@pytest.mark.parametrize(("generator", "combine", "use_self"), EVERY)
def test_a_mask_is_made_of_its_sources(generator: str, combine: str, use_self: bool) -> None:
    stage = feedback(generator=generator, combine=combine, use_self=use_self)
    for target in WIDTHS:
        mask = mask_of(stage, target, encoded())
        sources = [source for source in WIDTHS if source != target or use_self]
        assert list(stage.generators[target]) == sources  # type: ignore[arg-type]
        for row in range(4):
            there = [single(stage, target, source)[row] for source in sources if LENGTHS[source][row]]
            stacked = torch.stack(there)
            whole = {"mean": stacked.mean(dim=0), "max": stacked.amax(dim=0), "min": stacked.amin(dim=0)}[combine]
            torch.testing.assert_close(mask[row], whole, **CLOSE)


@pytest.mark.parametrize(("generator", "combine", "use_self"), EVERY)
def test_padding_does_not_touch_a_mask(generator: str, combine: str, use_self: bool) -> None:
    stage = feedback(generator=generator, combine=combine, use_self=use_self)
    for target, steps in LENGTHS.items():
        mask, dirty = mask_of(stage, target, encoded()), mask_of(stage, target, encoded(num_steps=9, in_padding=1e3))
        for row, length in enumerate(steps):
            torch.testing.assert_close(dirty[row, :length], mask[row, :length], **CLOSE)


@pytest.mark.parametrize(("combine", "use_self"), list(itertools.product(COMBINE, (False, True))))
def test_recurrent_masks_stay_in_their_range_and_others_do_not(combine: str, use_self: bool) -> None:
    def bounds(generator: str) -> tuple[float, float]:
        stage = feedback(generator=generator, combine=combine, use_self=use_self)
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter.mul_(30)
        masks = torch.cat([mask_of(stage, target, encoded()).detach().flatten() for target in WIDTHS])
        return float(masks.min()), float(masks.max())

    lowest, highest = bounds("recurrent")
    assert 0.2689 <= lowest < highest <= 0.7311
    for generator in ("linear", "mlp"):
        lowest, highest = bounds(generator)
        assert lowest < 0.2 and highest > 0.8


def test_the_returned_masks_are_those_that_are_applied() -> None:
    low = {modality: torch.randn(4, 5, width) for modality, width in WIDTHS.items()}
    masked, masks = feedback()(embedded(low), encoded(), None)
    assert set(masks) == set(WIDTHS)
    for modality in WIDTHS:
        assert torch.equal(masked[modality].values, low[modality] * masks[modality])


def test_dropout_acts_in_training_only() -> None:
    stage = feedback(mask_dropout=0.5, generator_dropout=0.0)
    for _ in range(2):
        assert all((masked.values > 0).all() for masked in stage(inputs(), encoded(), None)[0].values())
    masked, masks = stage.train()(inputs(), encoded(), None)
    dropped = torch.cat([x.values.flatten() == 0 for x in masked.values()]).float().mean()
    assert dropped == pytest.approx(0.5, abs=0.15)
    assert all((mask > 0).all() for mask in masks.values()), "the masks that are shown are those before dropout"
    for generator in GENERATORS:
        stage = feedback(generator=generator, generator_dropout=0.5)
        assert torch.equal(mask_of(stage, "text", encoded()), mask_of(stage, "text", encoded()))
        stage.train()
        assert not torch.equal(mask_of(stage, "text", encoded()), mask_of(stage, "text", encoded()))


@pytest.mark.parametrize("generator", GENERATORS)
def test_generators_of_a_unit_start_apart(generator: str) -> None:
    stage = feedback(generator=generator)
    first, second = (dict(stage.generators["visual"][source].named_parameters()) for source in ("text", "audio"))  # type: ignore[index]
    assert first.keys() == second.keys()
    for name in first:
        assert not torch.equal(first[name], second[name])


VARIANTS = [
    [f"feedback.generator={generator}", f"feedback.combine={combine}", f"feedback.use_self={use_self}"]
    for generator, combine, use_self in EVERY
] + [["feedback.num_passes=3"], ["feedback.num_passes=2", "feedback.generator=mlp", "feedback.combine=min"]]


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_masks_of_one_are_no_feedback(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model_of(configuration("feedback=none")).eval()
    model = model_of(configuration("feedback=mmlatch", *overrides)).eval()
    model.load_state_dict(model.state_dict() | plain.state_dict())
    batch = make_batch()
    expected = plain(batch).predictions["sentiment"]
    assert not torch.allclose(model(batch).predictions["sentiment"], expected)
    monkeypatch.setattr(MaskFeedback, "mask", lambda self, target, sources, lengths: torch.ones(1, 1, 1))
    assert torch.equal(model(batch).predictions["sentiment"], expected)


@pytest.mark.parametrize("overrides", VARIANTS, ids=" ".join)
def test_every_generator_learns(overrides: list[str]) -> None:
    cfg = configuration("feedback=mmlatch", "fusion=concat", *overrides)
    model, task = model_of(cfg).train(), build_task(cfg)
    batch = make_batch(absent=[("text", 0)])
    task.loss(model(batch), batch).backward()
    received: dict[str, float] = {}
    for name, parameter in model.feedback.named_parameters():
        assert parameter.grad is not None
        _, target, _source, rest = name.split(".", 3)
        # Of the largest or smallest mask only the source that gives it learns.
        one_wins = any(way in " ".join(overrides) for way in ("combine=max", "combine=min"))
        place = f"{target}.{rest}" if one_wins else name
        received[place] = received.get(place, 0.0) + float(parameter.grad.abs().sum())
    assert all(0 < total < float("inf") for total in received.values()), received


def test_every_pass_masks_the_original_inputs() -> None:
    model = model_of(configuration("feedback=mmlatch", "feedback.num_passes=2")).eval()
    batch = make_batch()
    low = model.embed(batch)
    first = model.encode(low)
    second = model.encode({m: x.masked(mask_of(model.feedback, m, first)) for m, x in low.items()})
    masks = {m: mask_of(model.feedback, m, second) for m in batch.features}
    output = model(batch)
    for modality, mask in masks.items():
        torch.testing.assert_close(output.feedback[modality], mask)
    masked = replace(batch, features={m: x * masks[m] for m, x in batch.features.items()})
    model.feedback.num_passes = 0
    torch.testing.assert_close(output.predictions["sentiment"], model(masked).predictions["sentiment"])


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_source_of_another_number_of_steps_than_the_inputs_is_refused(generator: str) -> None:
    parts = encoded()
    parts["audio"] = replace(parts["audio"], sequence=parts["audio"].sequence[:, :1])  # which would broadcast
    with pytest.raises(ConfigError, match=r"of audio gives another [^.]*\.\n  type feedback\.source=utterance"):
        feedback(generator=generator)(inputs(), parts, None)
    low = inputs() | {"audio": Embedded(torch.ones(4, 4, 4), parts["audio"].lengths)}
    with pytest.raises(ConfigError, match="masks audio step by step, and the encoder of text"):
        feedback(generator=generator)(low, encoded(), None)


def test_encoders_without_attention_are_fed_back_to() -> None:
    plain = [f"encoder.{modality}.attention=false" for modality in WIDTHS]
    output = model_of(configuration("feedback=mmlatch", *plain)).eval()(make_batch())
    assert torch.isfinite(output.predictions["sentiment"]).all() and len(output.feedback) == 3


def test_a_single_modality_needs_itself() -> None:
    with pytest.raises(ConfigError, match=r"feedback.use_self=true"):
        MaskFeedback({"text": 3}, {"sequence": {"text": 5}})
    stage = MaskFeedback({"text": 4}, {"sequence": {"text": 5}}, use_self=True).eval()
    mask = mask_of(stage, "text", {"text": encoded()["text"]})
    torch.testing.assert_close(mask[:2], single(stage, "text", "text")[:2])
