"""The laws that every stage keeps: on every pair of options, and in the slow run on every allowed combination."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from mmsa.build import build_task
from mmsa.model import MultimodalModel
from mmsa.types import Batch
from tests.contracts.combinations import Combination, every_combination, is_allowed, pairwise
from tests.contracts.conftest import batch_for, configuration, lengthened, make_batch, model_of, options, select

PAIRWISE = pairwise()
THE_REST = [c for c in every_combination() if is_allowed(c) and c not in PAIRWISE]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Built:
    """A combination of options, and the model of them."""

    of: Combination
    cfg: DictConfig
    model: MultimodalModel

    def batch(self, **how: Any) -> Batch:
        return batch_for(self.model, self.of.num_modalities, aligned=self.of.axes == "common", **how)


def build(combination: Combination, seed: int = 0) -> Built:
    cfg = configuration(*combination.overrides)
    model = model_of(cfg, combination.num_modalities, seed, aligned=combination.axes == "common")
    return Built(combination, cfg, model)


def named(combination: Combination) -> str:
    return "-".join(map(str, combination))


@pytest.fixture(scope="module", params=PAIRWISE, ids=named)
def built(request: pytest.FixtureRequest) -> Built:
    """Its laws share the model, whose weights none of them changes."""
    return build(request.param)


def predict(model: MultimodalModel, batch: Batch) -> Tensor:
    output = model(batch)
    return output.predictions[output.primary]


def test_every_pair_that_goes_together_is_tried() -> None:
    """By brute force, where `pairwise` searches."""
    assert set().union(*(c.pairs for c in PAIRWISE)) == set().union(*(c.pairs for c in (*PAIRWISE, *THE_REST)))
    assert len(PAIRWISE) < len(THE_REST) / 10


def test_evaluation_is_deterministic_and_padding_safe(built: Built) -> None:
    model = built.model.eval()
    batch = built.batch(absent=[("text", 1)] if built.of.num_modalities > 1 else [])
    together = predict(model, batch)
    assert torch.equal(together, predict(model, batch))
    assert torch.isfinite(together).all()

    torch.testing.assert_close(predict(model, lengthened(batch, 7)), together, **CLOSE)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(predict(model, select(batch, order)), together[order], **CLOSE)
    for row in range(len(batch.ids)):
        torch.testing.assert_close(predict(model, select(batch, [row])), together[row : row + 1], **CLOSE)


def test_what_lies_in_the_padding_does_not_matter(built: Built) -> None:
    model, batch = built.model.eval(), built.batch()
    dirty = dict(batch.features)
    for modality, x in batch.features.items():
        if modality in batch.pieces:
            continue
        padding = torch.arange(x.shape[1])[None, :] >= batch.lengths[modality][:, None]
        dirty[modality] = torch.where(padding[:, :, None], 1e3, x)
    torch.testing.assert_close(predict(model, replace(batch, features=dirty)), predict(model, batch), **CLOSE)


def test_every_parameter_learns(built: Built) -> None:
    torch.manual_seed(0)
    model, objective = built.model.train(), build_task(built.cfg)
    received = dict.fromkeys((name for name, _ in model.named_parameters()), 0.0)
    for seed in range(3):
        batch = built.batch(absent=[("text", 0)] if built.of.num_modalities > 1 else [], seed=seed)
        for part in (batch, select(batch, [2])):  # also a batch of one utterance of one step
            model.zero_grad()
            objective.loss(model(part), part).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                received[name] += parameter.grad.abs().sum().item()
    assert all(0 < total < float("inf") for total in received.values()), received


def test_save_and_load_give_equal_bits(built: Built) -> None:
    model, batch = built.model.eval(), built.batch()
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    other = build(built.of, seed=1).model.eval()
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(predict(other, batch), predict(model, batch))


def test_the_regularizer_is_off_at_evaluation(built: Built) -> None:
    plain = build(built.of._replace(regularizer="none")).model.eval()
    assert torch.equal(predict(built.model.eval(), built.batch()), predict(plain, built.batch()))


@pytest.mark.slow
@pytest.mark.parametrize("combination", THE_REST, ids=named)
def test_the_laws_hold_for_every_combination(combination: Combination) -> None:
    built = build(combination)
    test_evaluation_is_deterministic_and_padding_safe(built)
    test_what_lies_in_the_padding_does_not_matter(built)
    test_every_parameter_learns(built)
    test_save_and_load_give_equal_bits(built)
    test_the_regularizer_is_off_at_evaluation(built)


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
def test_a_regularizer_is_off_at_evaluation_at_every_site(regularizer: str) -> None:
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
