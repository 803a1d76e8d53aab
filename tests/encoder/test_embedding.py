"""What a table of word vectors that learns promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.encoder.embedding import WordEmbedding
from mmsa.encoder.misa import MisaEncoder
from mmsa.types import Embedded

TABLE = torch.cat([torch.zeros(1, 6), torch.randn(4, 6, generator=torch.Generator().manual_seed(0))])
IDS = torch.tensor([[1, 2, 4], [2, 0, 0], [0, 0, 0]])
LENGTHS = torch.tensor([3, 1, 0])


@pytest.fixture(params=["recurrent", "misa"])
def encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return RecurrentEncoder(6, 4) if request.param == "recurrent" else MisaEncoder(6)


def test_it_is_its_encoder_on_the_words_vectors(encoder: Any) -> None:
    words = WordEmbedding(encoder, TABLE).eval()
    embedded = words.embed(IDS)
    assert torch.equal(embedded, TABLE[IDS])
    encoded = words(Embedded(embedded, LENGTHS))
    expected = encoder(Embedded(TABLE[IDS], LENGTHS))
    assert torch.equal(encoded.sequence, expected.sequence) and torch.equal(encoded.utterance, expected.utterance)
    assert not encoded.utterance[2].any(), "an utterance without text is zeros"
    for width in ("input_dim", "sequence_dim", "utterance_dim", "pooled_dim"):
        assert getattr(words, width, None) == getattr(encoder, width, None)


def test_the_table_learns_and_padding_stays_zeros(encoder: nn.Module) -> None:
    words = WordEmbedding(encoder, TABLE)
    words.embed(IDS).sum().backward()
    assert words.table.weight.grad[0].tolist() == [0.0] * 6 and words.table.weight.grad[1:3].all()
    optimizer = torch.optim.AdamW(words.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        words(Embedded(words.embed(IDS), LENGTHS)).utterance.square().sum().backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in words.parameters())
        optimizer.step()
    learned = words.table.weight.detach()
    assert not learned[0].any()
    assert (learned[[1, 2, 4]] - TABLE[[1, 2, 4]]).abs().min() > 1e-3
    torch.testing.assert_close(TABLE[3], learned[3], rtol=0.02, atol=0.02)  # never read: only the weight decay
    assert not torch.equal(TABLE, learned), "the given table is copied, not trained"


def test_a_mask_acts_on_the_vectors(encoder: nn.Module) -> None:
    words = WordEmbedding(encoder, TABLE).eval()
    mask = torch.rand(3, 3, 6, requires_grad=True)
    text = Embedded(words.embed(IDS), LENGTHS)
    masked = words(text.masked(mask))
    assert torch.equal(masked.utterance, words.encoder(Embedded(TABLE[IDS] * mask, LENGTHS)).utterance)
    masked.utterance.sum().backward()
    assert mask.grad is not None and mask.grad[0].any()
