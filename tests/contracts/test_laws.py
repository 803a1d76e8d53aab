"""The laws that every stage keeps, on every combination of options that is allowed."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from mmsa.build import build_task
from mmsa.errors import ConfigError
from mmsa.model import MultimodalModel
from mmsa.types import Batch
from tests.contracts.conftest import (
    batch_for,
    configuration,
    encoder_overrides,
    lengthened,
    make_batch,
    model_of,
    options,
    select,
)

EVERY = list(
    itertools.product(options("encoder"), options("fusion"), options("regularizer"), options("feedback"), (1, 2, 3, 4))
)


def documented_as_refused(encoder: str, fusion: str, regularizer: str, feedback: str, num_modalities: int) -> bool:
    """The rule of docs/combinations.md."""
    return (
        (fusion in ("attention", "bilinear", "sequence") and encoder == "misa")
        or (fusion in ("attention", "bilinear") and num_modalities not in (2, 3))
        or (num_modalities == 1 and (regularizer.startswith("m3") or feedback != "none" or fusion == "misa"))
        or (fusion in ("concat", "misa") and regularizer == "m3")  # masks per step, of vectors that have no steps
    )


ALLOWED = [combination for combination in EVERY if not documented_as_refused(*combination)]
EVALUATED = [combination for combination in ALLOWED if combination[2] == "none"]
"""At evaluation every regularizer is off, as one law says, so the laws of evaluation need not be tried with each."""
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def overrides_of(encoder: str, fusion: str, regularizer: str, feedback: str) -> list[str]:
    return [*encoder_overrides(encoder), f"fusion={fusion}", f"regularizer={regularizer}", f"feedback={feedback}"]


def predict(model: MultimodalModel, batch: Batch) -> Tensor:
    output = model(batch)
    return output.predictions[output.primary]


def named(combination: tuple[str | int, ...]) -> str:
    return "-".join(map(str, combination))


@pytest.fixture(params=ALLOWED, ids=named)
def combination(request: pytest.FixtureRequest) -> tuple[DictConfig, int]:
    *parts, num_modalities = request.param
    return configuration(*overrides_of(*parts)), num_modalities


@pytest.fixture(params=EVALUATED, ids=named)
def evaluated(request: pytest.FixtureRequest) -> tuple[DictConfig, int]:
    *parts, num_modalities = request.param
    return configuration(*overrides_of(*parts)), num_modalities


def test_what_is_not_allowed_is_refused_with_a_message() -> None:
    for *parts, num_modalities in set(EVERY) - set(ALLOWED):
        with pytest.raises(ConfigError, match="type "):
            model_of(configuration(*overrides_of(*parts)), num_modalities)


def test_evaluation_is_deterministic_and_padding_safe(evaluated: tuple[DictConfig, int]) -> None:
    cfg, num = evaluated
    model = model_of(cfg, num).eval()
    batch = batch_for(model, num, absent=[("text", 1)] if num > 1 else [])
    together = predict(model, batch)
    assert torch.equal(together, predict(model, batch))
    assert torch.isfinite(together).all()

    torch.testing.assert_close(predict(model, lengthened(batch, 7)), together, **CLOSE)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(predict(model, select(batch, order)), together[order], **CLOSE)
    for row in range(len(batch.ids)):
        torch.testing.assert_close(predict(model, select(batch, [row])), together[row : row + 1], **CLOSE)


def test_what_lies_in_the_padding_does_not_matter(evaluated: tuple[DictConfig, int]) -> None:
    cfg, num = evaluated
    model = model_of(cfg, num).eval()
    batch = batch_for(model, num)
    dirty = dict(batch.features)
    for modality, x in batch.features.items():
        if modality in batch.pieces:
            continue
        padding = torch.arange(x.shape[1])[None, :] >= batch.lengths[modality][:, None]
        dirty[modality] = torch.where(padding[:, :, None], 1e3, x)
    torch.testing.assert_close(predict(model, replace(batch, features=dirty)), predict(model, batch), **CLOSE)


def test_every_parameter_learns(combination: tuple[DictConfig, int]) -> None:
    cfg, num = combination
    model, objective = model_of(cfg, num).train(), build_task(cfg)
    received = dict.fromkeys((name for name, _ in model.named_parameters()), 0.0)
    for seed in range(3):
        batch = batch_for(model, num, absent=[("text", 0)] if num > 1 else [], seed=seed)
        for part in (batch, select(batch, [2])):  # also a batch of one utterance of one step
            model.zero_grad()
            objective.loss(model(part), part).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                received[name] += parameter.grad.abs().sum().item()
    assert all(0 < total < float("inf") for total in received.values()), received


def test_save_and_load_give_equal_bits(evaluated: tuple[DictConfig, int]) -> None:
    cfg, num = evaluated
    model = model_of(cfg, num).eval()
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    other = model_of(cfg, num, seed=1).eval()
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(predict(other, batch_for(model, num)), predict(model, batch_for(model, num)))


@pytest.mark.parametrize("task", options("task"))
def test_every_task_trains_a_model(task: str) -> None:
    still = [f"encoder.{m}.dropout=0" for m in ("text", "audio", "visual")]
    cfg = configuration(f"task={task}", *still, "fusion.dropout=0", "fusion.attention_dropout=0")
    model, objective = model_of(cfg), build_task(cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    batch = make_batch()
    with torch.no_grad():
        before = objective.loss(model.eval()(batch), batch)
    for _ in range(80):
        optimizer.zero_grad()
        objective.loss(model.train()(batch), batch).backward()
        optimizer.step()
    with torch.no_grad():
        assert objective.loss(model.eval()(batch), batch) < 0.5 * before


def test_an_utterance_without_any_modality_is_finite() -> None:
    batch = make_batch(3, absent=[(m, 1) for m in ("text", "audio", "visual")])
    for feedback in options("feedback"):
        model = model_of(configuration(f"feedback={feedback}"))
        assert torch.isfinite(predict(model.train(), batch)).all()


@pytest.mark.parametrize("regularizer", sorted(set(options("regularizer")) - {"none"}))
def test_a_regularizer_is_off_at_evaluation(regularizer: str) -> None:
    for *parts, num in EVALUATED:
        if (parts[0], parts[1], regularizer, parts[3], num) in ALLOWED:
            cfg = configuration(*overrides_of(parts[0], parts[1], regularizer, parts[3]))
            plain = model_of(configuration(*overrides_of(*parts)), num).eval()
            batch = batch_for(plain, num)
            assert torch.equal(predict(model_of(cfg, num).eval(), batch), predict(plain, batch))
    plain = model_of(configuration()).eval()
    everywhere = ["regularizer.sites=[inputs,encoded,streams]"]
    for more in (everywhere, *([[*everywhere, "regularizer.mode=soft"]] if regularizer.startswith("m3") else [])):
        model = model_of(configuration(f"regularizer={regularizer}", *more)).eval()
        assert torch.equal(predict(model, make_batch()), predict(plain, make_batch()))


def test_a_mask_forced_to_one_is_no_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model_of(configuration("feedback=none")).eval()
    for feedback in set(options("feedback")) - {"none"}:
        model = model_of(configuration(f"feedback={feedback}")).eval()
        model.load_state_dict(model.state_dict() | plain.state_dict())
        monkeypatch.setattr(type(model.feedback), "mask", lambda self, target, sources, lengths: torch.ones(1, 1, 1))
        assert torch.equal(predict(model, make_batch()), predict(plain, make_batch()))
        monkeypatch.undo()


def test_recurrent_masks_stay_in_their_range_and_feedback_changes_predictions() -> None:
    plain = model_of(configuration("feedback=none")).eval()
    model = model_of(configuration("feedback=mmlatch")).eval()
    model.load_state_dict(model.state_dict() | plain.state_dict())
    output = model(make_batch())
    for mask in output.feedback.values():
        assert mask.min() >= 0.2689 and mask.max() <= 0.7311
    assert not torch.allclose(output.predictions["sentiment"], predict(plain, make_batch()))


def test_a_missing_source_does_not_touch_a_mask() -> None:
    """The mask of an utterance is the mean over the modalities that it has; without any, it is one."""
    model = model_of(configuration("feedback=static")).eval()
    batch = make_batch(absent=[("text", 0), ("visual", 0)])
    masks = model(batch).feedback
    assert torch.equal(masks["audio"][0], torch.ones_like(masks["audio"][0]))
    full = model.feedback.generators["text"]["audio"]
    encoded = model.encode(model.embed(batch))["audio"]
    torch.testing.assert_close(masks["text"][0], torch.sigmoid(full(encoded.sequence, encoded.lengths))[0])
