"""Masks from utterance vectors and from the codes that MISA's fusion publishes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmsa.build import build_task
from mmsa.errors import ConfigError
from mmsa.feedback.mmlatch import MaskFeedback
from mmsa.model import MultimodalModel
from mmsa.testing.batches import make_batch, select
from mmsa.types import Batch
from tests.contracts.conftest import configuration, model_of

MISA = ["encoder=misa", "fusion=misa"]
VECTORS = ("utterance", "projected", "private", "shared")
SOURCES = [
    ["feedback=static", f"feedback.source={source}", f"feedback.source_mlp={mlp}", f"feedback.generator={generator}"]
    for source in VECTORS
    for mlp in ("false", "true")
    for generator in ("linear", "mlp")
] + [
    ["feedback=mmlatch", "feedback.source_mlp=true"],
    ["feedback=static", "feedback.source=private", "feedback.use_self=true"],
]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def model_with(overrides: list[str]) -> MultimodalModel:
    return model_of(configuration(*MISA, *overrides))


def predict(model: MultimodalModel, batch: Batch) -> torch.Tensor:
    return model(batch).predictions["sentiment"]


@pytest.mark.parametrize("overrides", SOURCES, ids=" ".join)
def test_evaluation_does_not_depend_on_the_company(overrides: list[str]) -> None:
    model, batch = model_with(overrides).eval(), make_batch(absent=[("text", 1)])
    together = predict(model, batch)
    assert torch.isfinite(together).all()
    longer = replace(batch, features={m: torch.nn.functional.pad(x, (0, 0, 0, 7)) for m, x in batch.features.items()})
    torch.testing.assert_close(predict(model, longer), together, **CLOSE)
    for row in range(len(batch.ids)):
        torch.testing.assert_close(predict(model, select(batch, [row])), together[row : row + 1], **CLOSE)


@pytest.mark.parametrize("overrides", SOURCES, ids=" ".join)
def test_everything_learns(overrides: list[str]) -> None:
    cfg = configuration(*MISA, *overrides)
    model, task, batch = model_of(cfg).train(), build_task(cfg), make_batch(lengths=(4, 9, 6))
    task.loss(model(batch), batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and 0 < parameter.grad.abs().sum() < float("inf"), name


@pytest.mark.parametrize("source", VECTORS)
def test_one_vector_per_utterance_gives_one_mask_per_utterance(source: str) -> None:
    masks = model_with(["feedback=static", f"feedback.source={source}"]).eval()(make_batch()).feedback
    for mask in masks.values():
        assert torch.equal(mask, mask[:, :1].expand_as(mask))
        assert not torch.allclose(mask[0], mask[1])


@pytest.mark.parametrize(("source", "stream"), [("private", "private"), ("shared", "shared"), ("projected", "norm")])
def test_masks_are_made_from_the_code_that_is_named(source: str, stream: str) -> None:
    """Only the named code's maps, and what lies below them, reach the masks."""
    model = model_with(["feedback=static", f"feedback.source={source}"]).train()
    sum(mask.sum() for mask in model(make_batch()).feedback.values()).backward()
    reached = {
        name.split(".")[1] for name, p in model.named_parameters() if name.startswith("fusion.") and p.grad is not None
    }
    below = {"project", "norm"}
    assert reached == below | ({stream} - {"norm"})


def test_the_utterance_source_is_the_top_layer_alone() -> None:
    model = model_with(["feedback=static", "feedback.source=utterance"])
    encoder = model.encoders["audio"]
    assert (
        model.feedback.generators["text"]["audio"].linear.in_features
        == encoder.pooled_dim
        == encoder.utterance_dim // 2
    )


def test_a_vector_needs_no_common_time_axis() -> None:
    model = model_with(["feedback=static", "feedback.source=private"]).eval()
    assert not model.feedback.requires_alignment
    batch = make_batch()
    batch.features = {**batch.features, "audio": batch.features["audio"][:, :3]}
    batch.lengths = {**batch.lengths, "audio": batch.lengths["audio"].clamp(max=3)}
    assert torch.isfinite(predict(model, batch)).all()
    assert model_with(["feedback=static"]).feedback.requires_alignment


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["feedback=mmlatch", "feedback.source=private"], "feedback.generator=linear"),
        (["feedback=static", "feedback.source=privat"], "feedback.source=sequence"),
        (["feedback=static", "fusion=concat", "feedback.source=shared"], "fusion=misa"),
    ],
)
def test_what_cannot_be_a_source_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        model_with(overrides)


def test_the_source_mlp_is_of_the_modality_and_shared_by_its_targets() -> None:
    feedback = model_with(["feedback=mmlatch", "feedback.source_mlp=true"]).feedback
    assert isinstance(feedback, MaskFeedback)
    assert {name for name, _ in feedback.transforms.named_parameters()} == {
        f"{m}.{layer}.{p}" for m in ("text", "audio", "visual") for layer in (0, 2) for p in ("weight", "bias")
    }
