"""Pooling and modality weights see valid steps only."""

from __future__ import annotations

import pytest
import torch

from mmsa.layers.modality_weights import ModalityWeights
from mmsa.layers.pooling import Pooling, pool
from mmsa.layers.recurrence import Recurrence
from mmsa.types import padding_mask

LENGTHS = torch.tensor([3, 1, 0])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("sum", [-6.0, -4.0, 0.0]), ("mean", [-2.0, -4.0, 0.0]), ("max", [-1.0, -4.0, 0.0])],
)
def test_pooling_is_over_valid_steps(pooling: Pooling, expected: list[float]) -> None:
    sequence = torch.tensor([[-1.0, -2.0, -3.0, 0.0], [-4.0, 0.0, 0.0, 0.0], [0.0] * 4])[:, :, None]
    for longer in (0, 5):
        padded = torch.nn.functional.pad(sequence, (0, 0, 0, longer))
        torch.testing.assert_close(pool(padded, LENGTHS, pooling), torch.tensor(expected)[:, None])


def test_weights_are_a_softmax_over_the_modalities_that_have_the_step() -> None:
    torch.manual_seed(0)
    layer = ModalityWeights(2)
    lengths = {"text": torch.tensor([4, 2, 0]), "audio": torch.tensor([4, 4, 3])}
    padding = {modality: padding_mask(steps, 4) for modality, steps in lengths.items()}
    x = {m: torch.randn(3, 4, 2).masked_fill(padding[m][:, :, None], 0.0) for m in lengths}
    weighted = layer(x, padding)
    scores = {m: (x[m] @ layer.score.weight[0]).exp() for m in x}
    share = scores["text"] / (scores["text"] + scores["audio"])
    torch.testing.assert_close(weighted["text"][0], x["text"][0] * share[0, :, None])
    torch.testing.assert_close(weighted["audio"][0], x["audio"][0] * (1 - share[0, :, None]))
    torch.testing.assert_close(weighted["audio"][1, 2:], x["audio"][1, 2:]), "alone at these steps"
    torch.testing.assert_close(weighted["audio"][2], x["audio"][2])
    assert not weighted["text"][2].any() and not weighted["audio"][2, 3].any()


def test_dropout_acts_between_recurrent_layers() -> None:
    """In the originals a stack of layers gets no dropout between them."""
    torch.manual_seed(0)
    x, lengths = torch.randn(2, 5, 3), torch.tensor([5, 4])
    for num_layers, equal in ((1, True), (2, False)):
        recurrence = Recurrence(3, 4, num_layers=num_layers, dropout=0.5).train()
        assert torch.equal(recurrence(x, lengths)[0], recurrence(x, lengths)[0]) == equal
        recurrence.eval()
        assert torch.equal(recurrence(x, lengths)[0], recurrence(x, lengths)[0])
