"""What the optimiser is given of text encoders, and what a frozen one remembers."""

from __future__ import annotations

import pytest
import torch

from mmsa import build, learning
from mmsa.compose import compose
from mmsa.encoder.bert import TransformerEncoder
from mmsa.encoder.embedding import WordEmbedding
from mmsa.errors import ConfigError
from mmsa.testing.batches import make_batch
from mmsa.training.optimizers import adamw
from mmsa.training.schedules import plateau
from tests.contracts.conftest import composed, encoder_overrides, model_of
from tests.encoder.tiny import UTTERANCES, embedded


def test_a_transformer_learns_at_its_own_rate_and_its_map_at_the_optimizers() -> None:
    model = model_of(composed(*encoder_overrides("bert"), "encoder.text.lr=1e-5"))
    groups = learning.parameter_groups(model)
    assert [group.get("lr") for group in groups] == [None, 1e-5]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in model.encoders["text"].transformer.parameters()}
    everything = [id(p) for group in groups for p in group["params"]]
    assert len(everything) == len(set(everything)) == len(list(model.parameters()))
    optimizer = adamw(groups, lr=1e-3)
    schedule = plateau(optimizer, "min", patience=0, cooldown=0, min_factor=0.1)
    for _ in range(20):
        schedule.after_epoch(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-6])


def test_words_that_never_come_do_not_wear_off() -> None:
    model = model_of(composed())
    table = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    table[0] = 0
    model.encoders["text"] = WordEmbedding(model.encoders["text"], table)
    optimizer = adamw(learning.parameter_groups(model), lr=0.1, weight_decay=0.5)
    batch = make_batch()
    ids = torch.where(batch.features["text"].any(dim=2), 3, 0)  # one word, over and over
    batch.features = {**batch.features, "text": ids}
    model(batch).predictions["sentiment"].sum().backward()
    optimizer.step()
    moved = (model.encoders["text"].table.weight - table).abs().sum(dim=1) > 0
    assert moved.tolist() == [row == 3 for row in range(9)]


def test_what_a_frozen_model_remembers_does_not_depend_on_the_batch_it_came_in(bert: str) -> None:
    tokenizer = TransformerEncoder.tokenizer(bert)
    first, second = (TransformerEncoder(bert, freeze="all") for _ in range(2))
    together = first(embedded(first, tokenizer, UTTERANCES))
    for words in UTTERANCES:
        second(embedded(second, tokenizer, [words]))
    again = second(embedded(second, tokenizer, UTTERANCES))
    assert torch.equal(together.sequence, again.sequence) and torch.equal(together.utterance, again.utterance)


def test_an_encoder_typed_beside_a_recipe_is_of_the_text_too() -> None:
    cfg = compose(["experiment=misa_mosi", "encoder=bilstm"])
    assert cfg.encoder.text._target_ == cfg.encoder.audio._target_
    apart = compose(["experiment=misa_mosi", "encoder=bilstm", "encoder/text=bigru"])
    assert (apart.encoder.text.cell, apart.encoder.audio.get("cell", "lstm")) == ("gru", "lstm")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["dataset.word_vectors=trained"], "dataset.word_vectors=fixed"),
        (["dataset=cmu_mosi", "dataset.glove=vectors.txt"], "dataset.glove=null"),
        (["encoder.text.freeze=all", "encoder.text.freeze_embeddings=true"], "encoder.text.freeze_embeddings=false"),
    ],
)
def test_what_would_do_nothing_is_refused_before_any_data_are_read(more: list[str], message: str) -> None:
    chosen = [override for override in encoder_overrides("bert") if "dropout" not in override]
    with pytest.raises(ConfigError, match=message):
        build.check(compose([*chosen, *more]))
