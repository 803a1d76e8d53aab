"""What the recurrent encoder promises of its utterance vector."""

from __future__ import annotations

import pytest
import torch

from mmsa.encoder.bilstm import RecurrentEncoder
from mmsa.types import Embedded

LENGTHS = torch.tensor([3, 0, 5, 1])


def encoder(**options: object) -> RecurrentEncoder:
    torch.manual_seed(0)
    return RecurrentEncoder(4, 6, **options).eval()  # type: ignore[arg-type]


def inputs() -> Embedded:
    return Embedded(torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(0)), LENGTHS)


@pytest.mark.parametrize("pooling", ["mean", "sum", "last"])
def test_a_map_acts_on_the_utterance_alone(pooling: str) -> None:
    options = {"pooling": pooling, "attention": pooling != "last"}
    plain, mapped = encoder(**options)(inputs()), encoder(**options, utterance_dim=3)
    encoded = mapped(inputs())
    assert (mapped.sequence_dim, mapped.utterance_dim) == (6, 3) and mapped.map is not None
    assert torch.equal(encoded.sequence, plain.sequence)
    present = LENGTHS > 0
    torch.testing.assert_close(encoded.utterance[present], mapped.map(plain.utterance)[present])
    assert not encoded.utterance[~present].any(), "an absent modality is zeros, in spite of the map's bias"


def test_the_map_reads_what_dropout_left() -> None:
    mapped = encoder(pooling="last", attention=False, bidirectional=False, dropout=0.5, utterance_dim=6).train()
    assert mapped.map is not None
    with torch.no_grad():
        mapped.map.weight.copy_(torch.eye(6))
        mapped.map.bias.zero_()
    dropped = mapped(inputs()).utterance[0]
    assert (dropped == 0).any() and (dropped != 0).any()
