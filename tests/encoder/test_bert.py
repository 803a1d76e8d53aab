"""What a transformer encoder of text promises."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmsa.config import check_options
from mmsa.encoder.bert import TransformerEncoder
from mmsa.errors import ConfigError
from mmsa.types import Embedded
from tests.encoder.tiny import UTTERANCES, embedded, save_model

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"pad_token_id": 1},
    "DistilBert": {"dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 20},
    "Albert": {"embedding_size": 8},
    "Electra": {"embedding_size": 8},
    "DebertaV2": {"position_biased_input": True},
    "ModernBert": {"max_position_embeddings": 64, **dict.fromkeys(("pad_token_id", "cls_token_id"), 0)}
    | {"sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "MPNet": {"pad_token_id": 1},
}


@pytest.fixture
def encoder(bert: str) -> TransformerEncoder:
    return TransformerEncoder(bert, freeze="none").eval()


@pytest.fixture
def frozen(bert: str) -> TransformerEncoder:
    return TransformerEncoder(bert, freeze="all").train()


@pytest.fixture
def calls(frozen: TransformerEncoder) -> Iterator[list[int]]:
    """How many utterances each pass through the frozen model had."""
    sizes: list[int] = []
    hook = frozen.transformer.register_forward_pre_hook(
        lambda module, args, options: sizes.append(len(options["inputs_embeds"])), with_kwargs=True
    )
    yield sizes
    hook.remove()


def text_of(
    encoder: TransformerEncoder, bert: str, words: Sequence[Sequence[str]] = UTTERANCES, more: int = 0
) -> Embedded:
    return embedded(encoder, TransformerEncoder.tokenizer(bert), words, more)


def ones(text: Embedded) -> Tensor:
    return torch.ones(len(text.values), text.num_steps, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_and_types_are_added_once_and_every_parameter_learns(family: str, tmp_path: Path) -> None:
    """What goes in as embeddings comes out as what goes in as ids; a mask of ones changes nothing; padding neither."""
    folder = save_model(tmp_path, family, **FAMILIES[family])
    encoder = TransformerEncoder(folder).eval()
    pad = encoder.pad_id
    ids = torch.tensor([[2, 4, 5, 6, 9, 3], [2, 7, 8, 3, pad, pad], [2, 14, 3, pad, pad, pad]])
    words = torch.tensor([[-1, 0, 1, 2, 2, -1], [-1, 0, 1, -1, -1, -1], [-1, 0, -1, -1, -1, -1]])
    pieces = words[:, None, :] == torch.arange(3)[None, :, None]
    text = Embedded(encoder.embed(ids), torch.tensor([3, 2, 1]), pieces, ids)
    states = encoder.transformer(input_ids=ids, attention_mask=(ids != pad).long()).last_hidden_state
    for given in (text, text.masked(ones(text))):
        encoded = encoder(given)
        torch.testing.assert_close(encoded.utterance[0], states[0].mean(dim=0), **CLOSE)
        torch.testing.assert_close(encoded.utterance[1], states[1, :4].mean(dim=0), **CLOSE)
        torch.testing.assert_close(encoded.sequence[0, 2], states[0, 3:5].mean(dim=0), **CLOSE)
    alone = Embedded(encoder.embed(ids[1:2, :4]), torch.tensor([2]), pieces[1:2, :2, :4], ids[1:2, :4])
    torch.testing.assert_close(encoder(alone).utterance, encoder(text).utterance[1:2], **CLOSE)

    encoder.train()(Embedded(encoder.embed(ids), text.lengths, pieces, ids)).utterance.square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_word_is_the_mean_of_its_pieces(encoder: TransformerEncoder, bert: str) -> None:
    words = [["the", "unwatchable", "", "film"], ["good"]]
    text = text_of(encoder, bert, words)
    states = encoder.transformer(inputs_embeds=text.values[:1]).last_hidden_state[0]  # the first fills its row
    encoded = encoder(text)
    assert (encoder.input_dim, encoder.sequence_dim, encoder.utterance_dim, encoder.pooled_dim) == (12, 12, 12, 12)
    assert encoded.sequence.shape == (2, 4, 12) and encoded.utterance.shape == encoded.pooled.shape == (2, 12)
    torch.testing.assert_close(encoded.sequence[0, 0], states[1], **CLOSE)
    torch.testing.assert_close(encoded.sequence[0, 1], states[2:5].mean(dim=0), **CLOSE)  # un ##watch ##able
    assert not encoded.sequence[0, 2].any(), "a word without a piece is zeros"
    torch.testing.assert_close(encoded.sequence[0, 3], states[5], **CLOSE)
    torch.testing.assert_close(encoded.utterance[0], states.mean(dim=0), **CLOSE)  # with [CLS] and [SEP]
    torch.testing.assert_close(encoded.pooled[0], states[1:-1].mean(dim=0), **CLOSE)
    assert not encoded.sequence[1, 1:].any()


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_an_utterance_may_be_its_first_piece(bert: str, freeze: Any) -> None:
    """[CLS] of the last layer, without BERT's pooler; the words are read as before."""
    encoder = TransformerEncoder(bert, freeze=freeze, pooling="first").eval()
    text = text_of(encoder, bert, more=2)
    states = encoder.transformer(inputs_embeds=text.values, attention_mask=(text.ids != 0).long()).last_hidden_state
    mean = TransformerEncoder(bert, freeze=freeze).eval()(text)
    for given in (text, text.masked(ones(text)), replace(text, lengths=torch.tensor([4, 0, 3, 5]), ids=None)):
        encoded = encoder(given)
        present = given.lengths > 0
        torch.testing.assert_close(encoded.utterance[present], states[present, 0], **CLOSE)
        assert not encoded.utterance[~present].any()
        torch.testing.assert_close(encoded.sequence[present], mean.sequence[present], **CLOSE)
        torch.testing.assert_close(encoded.pooled[present], mean.pooled[present], **CLOSE)


@pytest.mark.parametrize("freeze", ["none", "all"])
def test_company_and_padding_do_not_matter(bert: str, freeze: Any) -> None:
    encoder = TransformerEncoder(bert, freeze=freeze).eval()
    text = text_of(encoder, bert)
    together = encoder(text)
    fresh = copy.deepcopy(encoder)
    wider = fresh(text_of(encoder, bert, more=4))
    torch.testing.assert_close(wider.sequence, together.sequence, **CLOSE)
    for row, words in enumerate(UTTERANCES):
        alone = copy.deepcopy(encoder)(text_of(encoder, bert, [words]))
        torch.testing.assert_close(alone.sequence[0], together.sequence[row, : len(words)], **CLOSE)
        torch.testing.assert_close(alone.utterance[0], together.utterance[row], **CLOSE)
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], **CLOSE)
    again = encoder(text)
    assert torch.equal(again.sequence, together.sequence) and torch.equal(again.utterance, together.utterance)


@pytest.mark.parametrize("freeze", ["none", "all"])
@pytest.mark.parametrize("width", [8, 0])
def test_absent_text_is_zeros(bert: str, freeze: Any, width: int) -> None:
    """Whether its row holds [CLS] and [SEP], padding, or nothing at all."""
    encoder = TransformerEncoder(bert, freeze=freeze).train()
    ids = torch.zeros(2, width, dtype=torch.int64)
    ids[0, :2] = torch.tensor([2, 3])[:width]
    text = Embedded(
        encoder.embed(ids), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3, width, dtype=torch.bool), ids
    )
    for given in (text, text.masked(ones(text))):
        encoded = encoder(given)
        for part in (encoded.sequence, encoded.utterance, encoded.pooled):
            assert not part.any() and part.shape[-1] == 12
    text = text_of(encoder, bert)
    present = encoder(replace(text, lengths=torch.tensor([4, 0, 3, 5]), ids=None))
    assert not present.utterance[1].any() and not present.sequence[1].any() and present.utterance[2].any()
    if freeze == "none":
        present.utterance.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_attention_always_has_a_key(encoder: TransformerEncoder, bert: str) -> None:
    """Without one, what an attention kernel returns depends on the kernel: zeros, a mean, or NaN."""
    seen: list[Tensor] = []
    encoder.transformer.register_forward_pre_hook(
        lambda module, args, options: seen.append(options["attention_mask"]), with_kwargs=True
    )
    text = text_of(encoder, bert)
    encoder(replace(text, lengths=torch.tensor([4, 0, 3, 5])))
    assert seen[0].tolist()[:2] == [[1] * 8 + [0], [1] + [0] * 8]


def test_masked_words_leave_special_pieces_and_the_reading_of_padding(encoder: TransformerEncoder, bert: str) -> None:
    text = text_of(encoder, bert, more=2)
    masked = text.masked(torch.zeros(4, text.num_steps, 12))
    values = torch.where(((text.ids == 2) | (text.ids == 3))[:, :, None], text.values, 0.0)
    assert torch.equal(masked.values, values)
    states = encoder.transformer(inputs_embeds=values, attention_mask=(text.ids != 0).long()).last_hidden_state
    torch.testing.assert_close(encoder(masked).utterance[1], states[1, :3].mean(dim=0), **CLOSE)
    torch.testing.assert_close(encoder(masked).utterance[0], states[0, :8].mean(dim=0), **CLOSE)


def test_what_is_frozen_gets_no_gradient(bert: str) -> None:
    def trainable(**options: Any) -> set[str]:
        encoder = TransformerEncoder(bert, **options).train()
        encoder(text_of(encoder, bert)).utterance.square().sum().backward()
        names = {name.removeprefix("transformer.") for name, p in encoder.named_parameters() if p.requires_grad}
        received = {name.removeprefix("transformer.") for name, p in encoder.named_parameters() if p.grad is not None}
        assert names == received
        return {name.rpartition(".layer.")[2].partition(".")[0] for name in names}

    assert trainable() == {"embeddings", "0", "1"}
    assert trainable(freeze=1) == {"embeddings", "1"}
    assert trainable(freeze=2) == {"embeddings"}
    assert trainable(freeze=1, freeze_embeddings=True) == {"1"}
    assert trainable(freeze_embeddings=True) == {"0", "1"}
    frozen = TransformerEncoder(bert, freeze="all")
    assert not any(p.requires_grad for p in frozen.parameters())


def test_a_frozen_model_does_not_drop_out(frozen: TransformerEncoder, bert: str) -> None:
    assert frozen.training and not any(part.training for part in frozen.transformer.modules())
    plain = TransformerEncoder(bert).eval()
    torch.testing.assert_close(frozen(text_of(frozen, bert)).utterance, plain(text_of(plain, bert)).utterance, **CLOSE)
    assert not torch.equal(plain.train()(text_of(plain, bert)).utterance, frozen(text_of(frozen, bert)).utterance)


def test_a_frozen_model_reads_each_utterance_once(frozen: TransformerEncoder, bert: str, calls: list[int]) -> None:
    text = text_of(frozen, bert)
    first = frozen(text)
    assert torch.equal(frozen(text_of(frozen, bert)).sequence, first.sequence)
    assert sum(calls) == 4
    other = frozen(text_of(frozen, bert, [UTTERANCES[1], ["bad"], UTTERANCES[0]], more=3))
    assert calls == [1] * 5, "only the new one, however it is padded and whoever its batch mates are"
    assert torch.equal(other.utterance[[0, 2]], first.utterance[[1, 0]])


def test_masked_inputs_are_computed_anew_and_the_mask_gets_its_gradient(
    frozen: TransformerEncoder, bert: str, calls: list[int]
) -> None:
    text = text_of(frozen, bert)
    plain = frozen(text)
    mask = torch.full((4, text.num_steps, 12), 0.5, requires_grad=True)
    for _ in range(2):
        encoded = frozen(text.masked(mask))
        assert not torch.allclose(encoded.utterance, plain.utterance, atol=1e-3)
    assert calls == [1, 1, 1, 1, 4, 4]
    assert torch.equal(frozen(text).utterance, plain.utterance), "and what is masked is never kept"
    encoded.utterance.square().sum().backward()
    valid = torch.arange(text.num_steps)[None, :] < text.lengths[:, None]
    assert mask.grad is not None and torch.equal(mask.grad.any(dim=2), valid)
    assert all(p.grad is None for p in frozen.parameters())


def test_kept_states_are_no_part_of_the_module(frozen: TransformerEncoder, bert: str) -> None:
    before = len(pickle.dumps(frozen))
    expected = frozen(text_of(frozen, bert))
    assert len(pickle.dumps(frozen)) == before
    assert set(frozen.state_dict()) == {f"transformer.{name}" for name in frozen.transformer.state_dict()}
    for copied in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):
        assert not copied._known
        assert torch.equal(copied(text_of(copied, bert)).utterance, expected.utterance)
    with torch.no_grad():
        changed = {name: value * 1.5 for name, value in frozen.state_dict().items()}
    frozen.load_state_dict(changed)
    assert not torch.allclose(frozen(text_of(frozen, bert)).utterance, expected.utterance), "they were of other weights"


def test_kept_states_of_an_evaluation_serve_training(frozen: TransformerEncoder, bert: str) -> None:
    with torch.inference_mode():
        frozen(text_of(frozen, bert))
    head = torch.nn.Linear(12, 1)
    head(frozen(text_of(frozen, bert)).utterance).sum().backward()
    assert head.weight.grad is not None


def test_save_and_load_give_equal_bits(encoder: TransformerEncoder, bert: str, tmp_path: Path) -> None:
    saved = io.BytesIO()
    torch.save(encoder.state_dict(), saved)
    saved.seek(0)
    other = TransformerEncoder(save_model(tmp_path, initializer_range=0.5)).eval()
    other.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(other(text_of(other, bert)).utterance, encoder(text_of(encoder, bert)).utterance)


def test_dropout_is_the_models_own_or_the_given(bert: str, tmp_path: Path) -> None:
    rates = {part.p for part in TransformerEncoder(bert).modules() if isinstance(part, torch.nn.Dropout)}
    assert rates == {0.1}
    given = TransformerEncoder(bert, dropout=0.0).train()
    assert {part.p for part in given.modules() if isinstance(part, torch.nn.Dropout)} == {0.0}
    assert torch.equal(given(text_of(given, bert)).utterance, given.eval()(text_of(given, bert)).utterance)


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"freeze": 3}, "has 2 layers"),
        ({"freeze": "all", "dropout": 0.2}, "the model does not train"),
        ({"freeze": "all", "lr": 1e-5}, "the model does not train"),
        ({"freeze": 2, "freeze_embeddings": True}, "leaves nothing to train"),
    ],
)
def test_options_that_would_do_nothing_are_refused(bert: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        TransformerEncoder(bert, **options)
    assert "\n  type encoder.text." in str(refusal.value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "some"])
def test_freeze_is_a_word_or_a_number_of_layers(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.text\.freeze"):
        check_options({"name": "x", "freeze": value}, TransformerEncoder, "encoder.text")
    for fine in ("none", "all", 9):
        check_options({"name": "x", "freeze": fine}, TransformerEncoder, "encoder.text")


def test_layers_that_share_weights_cannot_be_frozen_one_by_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no layers that could be frozen one by one"):
        TransformerEncoder(save_model(tmp_path, "Albert", embedding_size=8), freeze=1)
