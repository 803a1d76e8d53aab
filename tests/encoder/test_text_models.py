"""Whole models that read text as word pieces: what every model promises, and masks that reach the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from mmsa.encoder.bert import TransformerEncoder
from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.encoder.misa import MisaEncoder
from mmsa.feedback.mmlatch import MaskFeedback
from mmsa.feedback.none import NoFeedback
from mmsa.fusion.attention import AttentionFusion
from mmsa.fusion.misa import MisaFusion
from mmsa.model import MultimodalModel
from mmsa.regularizer.m3 import M3
from mmsa.regularizer.none import NoRegularizer
from mmsa.training.regression import Regression
from mmsa.types import Batch
from tests.encoder.tiny import UTTERANCES, word_batch

WIDTHS = {"audio": 5, "visual": 4}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
Freeze = Literal["none", "all"] | int


def model_of(
    bert: str, fusion: str, feedback: str = "none", freeze: Freeze = "none", m3: bool = False
) -> MultimodalModel:
    torch.manual_seed(0)
    encoders: dict[str, Any] = {"text": TransformerEncoder(bert, freeze=freeze)}
    for m, width in WIDTHS.items():
        encoders[m] = RecurrentEncoder(width, 12) if fusion == "attention" else MisaEncoder(width)
    fused: AttentionFusion | MisaFusion
    if fusion == "attention":
        fused = AttentionFusion({m: e.sequence_dim for m, e in encoders.items()}, 6)
    else:
        fused = MisaFusion({m: e.utterance_dim for m, e in encoders.items()}, 8)
    masks: nn.Module = NoFeedback()
    if feedback != "none":
        source = "utterance" if fusion == "misa" and feedback == "static" else "sequence"
        dims = {m: e.sequence_dim if source == "sequence" else e.pooled_dim for m, e in encoders.items()}
        generator: Any = "recurrent" if feedback == "mmlatch" else "linear"
        widths = {m: e.input_dim for m, e in encoders.items()}
        masks = MaskFeedback(widths, {source: dims}, source=source, generator=generator)
    drawn = torch.Generator().manual_seed(0)
    regularizer = M3(list(encoders), drawn, p=1.0, sites=["inputs"]) if m3 else NoRegularizer()
    return MultimodalModel(encoders, masks, regularizer, fused, nn.Linear(fused.output_dim, 1), "sentiment")


def predict(model: MultimodalModel, batch: Batch) -> Tensor:
    return model(batch).predictions["sentiment"]


def words(bert: str, rows: Sequence[int] = (0, 1, 2, 3), **how: Any) -> Batch:
    return word_batch(TransformerEncoder.tokenizer(bert), [UTTERANCES[row] for row in rows], WIDTHS, **how)


@pytest.mark.parametrize("freeze", ["none", 1, "all"])
@pytest.mark.parametrize("feedback", ["none", "mmlatch", "static"])
@pytest.mark.parametrize("fusion", ["attention", "misa"])
def test_a_prediction_is_its_utterances_alone_and_every_parameter_learns(
    bert: str, fusion: str, feedback: str, freeze: Freeze
) -> None:
    model = model_of(bert, fusion, feedback, freeze).eval()
    with torch.no_grad():
        together = predict(model, words(bert, absent=[1]))
        assert torch.isfinite(together).all()
        assert torch.equal(predict(model, words(bert, absent=[1])), together)
        torch.testing.assert_close(predict(model, words(bert, num_steps=9, more=3, absent=[1])), together, **CLOSE)
        order = [2, 0, 3, 1]
        torch.testing.assert_close(predict(model, words(bert, order, absent=[3])), together[order], **CLOSE)
        for row in range(4):
            alone = predict(model, words(bert, [row], absent=[0] if row == 1 else []))
            torch.testing.assert_close(alone, together[row : row + 1], **CLOSE)

    model.train()
    weights = {"similarity": 1.0, "difference": 1.0, "reconstruction": 1.0} if fusion == "misa" else {}
    task = Regression(auxiliary=weights)
    received = {name: 0.0 for name, p in model.named_parameters() if p.requires_grad}
    for batch in (words(bert), words(bert, absent=[0, 2]), words(bert, [1])):  # the last: one utterance of one word
        model.zero_grad()
        task.loss(model(batch), batch).backward()
        for name, p in model.named_parameters():
            assert (p.grad is not None) == p.requires_grad, name
            if p.grad is not None:
                received[name] += p.grad.abs().sum().item()
    assert all(0 < total < float("inf") for total in received.values()), received


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_feedback_masks_the_words_and_leaves_special_pieces(bert: str, freeze: Freeze) -> None:
    model = model_of(bert, "attention", "mmlatch", freeze).eval()
    batch = words(bert)
    inputs = model.embed(batch)
    masked, masks = model.feedback(inputs, model.encode(inputs), model.fusion)
    text, low = masked["text"], inputs["text"]
    assert masks["text"].shape == low.steps.values.shape
    special = ~batch.pieces["text"].any(dim=1)
    assert torch.equal(text.values[special], low.values[special])
    torch.testing.assert_close(text.values[0, 4:7], low.values[0, 4:7] * masks["text"][0, 3])  # un ##watch ##able
    plain = model_of(bert, "attention", "none", freeze).eval()
    plain.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith("feedback")}
    )
    assert not torch.allclose(predict(plain, batch), predict(model, batch), atol=1e-4)
    model.feedback.mask = lambda target, sources, lengths: torch.ones(1, 1, 1)
    torch.testing.assert_close(predict(plain, batch), predict(model, batch), **CLOSE)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_hidden_words_are_really_hidden(bert: str, freeze: Freeze) -> None:
    """M3 on the inputs: where it hides a word, the word's pieces are zeros, and a frozen model does not recall them."""
    model = model_of(bert, "attention", freeze=freeze, m3=True)
    batch = words(bert)
    with torch.no_grad():
        whole = model.eval().embed(batch)
        seen = model.encode(whole)["text"].sequence
        inputs, _ = model.train().regularized(whole)
        hidden = model.eval().encode(inputs)["text"].sequence
    lost = batch.pieces["text"].any(dim=1) & ~inputs["text"].values.any(dim=2)  # (B, P)
    assert lost.any() and not lost.all()
    assert not torch.allclose(seen, hidden, atol=1e-3)
