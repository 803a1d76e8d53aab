"""The laws that every stage keeps: on every pair of options, and in the slow run on every allowed combination."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from mmsa.build import build_task
from mmsa.model import MultimodalModel
from mmsa.regularizer.m3 import M3
from mmsa.testing.batches import make_batch, prediction
from mmsa.testing.combinations import Combination
from mmsa.testing.laws import OF_A_MODEL, Subject
from tests.contracts.conftest import COMBINATIONS, configuration, model_of, options, quickly_built

PAIRWISE = COMBINATIONS.pairwise()
THE_REST = [c for c in COMBINATIONS.every() if COMBINATIONS.is_allowed(c) and c not in PAIRWISE]


def subject_of(combination: Combination) -> Subject:
    cfg = configuration(*COMBINATIONS.overrides(combination))
    return Subject(cfg, combination.num_modalities, combination.axes == "common")


def named(combination: Combination) -> str:
    return "-".join(map(str, combination))


@pytest.fixture(scope="module", params=PAIRWISE, ids=named)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[Subject, MultimodalModel]]:
    """Its laws share the model, whose weights none of them changes."""
    with quickly_built():
        subject = subject_of(request.param)
        yield subject, subject.model()


def test_every_pair_that_goes_together_is_tried() -> None:
    """By brute force, where `pairwise` searches."""
    assert set().union(*(c.pairs for c in PAIRWISE)) == set().union(*(c.pairs for c in (*PAIRWISE, *THE_REST)))
    assert len(PAIRWISE) < len(THE_REST) / 10


@pytest.mark.parametrize("law", OF_A_MODEL, ids=lambda law: law.__name__)
def test_law(law: Callable[[Subject, MultimodalModel], None], built: tuple[Subject, MultimodalModel]) -> None:
    law(*built)


@pytest.mark.slow
@pytest.mark.parametrize("combination", THE_REST, ids=named)
def test_the_laws_hold_for_every_combination(combination: Combination) -> None:
    with quickly_built():
        subject = subject_of(combination)
        model = subject.model()
        for law in OF_A_MODEL:
            law(subject, model)


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
        assert torch.isfinite(prediction(model.train()(batch))).all()


@pytest.mark.parametrize("regularizer", sorted(set(options("regularizer")) - {"none"}))
def test_a_regularizer_is_off_at_evaluation_at_every_site(regularizer: str) -> None:
    plain, chosen = model_of(configuration()).eval(), [f"regularizer={regularizer}"]
    if "sites" in configuration(*chosen).regularizer:
        chosen.append("regularizer.sites=[inputs,encoded,streams]")
    models = [model_of(configuration(*chosen))]
    if isinstance(models[0].regularizer, M3):
        models.append(model_of(configuration(*chosen, "regularizer.mode=soft")))
    for model in models:
        assert torch.equal(prediction(model.eval()(make_batch())), prediction(plain(make_batch())))


@pytest.mark.parametrize("option", ["mmlatch", "static"])
def test_a_mask_forced_to_one_is_no_feedback(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model_of(configuration("feedback=none")).eval()
    model = model_of(configuration(f"feedback={option}")).eval()
    model.load_state_dict(model.state_dict() | plain.state_dict())
    monkeypatch.setattr(type(model.feedback), "mask", lambda self, target, sources, lengths: torch.ones(1, 1, 1))
    assert torch.equal(prediction(model(make_batch())), prediction(plain(make_batch())))


def test_recurrent_masks_stay_in_their_range_and_feedback_changes_predictions() -> None:
    plain = model_of(configuration("feedback=none")).eval()
    model = model_of(configuration("feedback=mmlatch")).eval()
    model.load_state_dict(model.state_dict() | plain.state_dict())
    output = model(make_batch())
    for mask in output.feedback.values():
        assert mask.min() >= 0.2689 and mask.max() <= 0.7311
    assert not torch.allclose(output.predictions["sentiment"], prediction(plain(make_batch())))


def test_a_missing_source_does_not_touch_a_mask() -> None:
    """The mask of an utterance is the mean over the modalities that it has; without any, it is one."""
    model = model_of(configuration("feedback=static")).eval()
    batch = make_batch(absent=[("text", 0), ("visual", 0)])
    masks = model(batch).feedback
    assert torch.equal(masks["audio"][0], torch.ones_like(masks["audio"][0]))
    full = model.feedback.generators["text"]["audio"]
    encoded = model.encode(model.embed(batch))["audio"]
    torch.testing.assert_close(masks["text"][0], torch.sigmoid(full(encoded.sequence, encoded.lengths))[0])
