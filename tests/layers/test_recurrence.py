"""The recurrence without packing equals PyTorch's packed one on valid steps, in outputs, states and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmsa.layers.attention import Attention, SymmetricAttention
from mmsa.layers.attentive import AttentiveRNN
from mmsa.layers.recurrence import CELLS, Recurrence, last_states
from mmsa.layers.reversal import Reversal
from mmsa.types import padding_mask

LENGTHS = torch.tensor([3, 7, 1, 5])


def packed_like(recurrence: Recurrence, cell: str, num_layers: int, bidirectional: bool) -> nn.RNNBase:
    """PyTorch's layer with the same parameters."""
    rnn = CELLS[cell](4, 6, num_layers=num_layers, bidirectional=bidirectional, batch_first=True)
    state = {}
    for name, value in recurrence.state_dict().items():
        _, layer, direction, parameter = name.split(".")
        suffix = "_reverse" if direction == "1" else ""
        state[f"{parameter.removesuffix('_l0')}_l{layer}{suffix}"] = value
    rnn.load_state_dict(state)
    return rnn


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_packed(cell: str, num_layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    ours = Recurrence(4, 6, cell=cell, num_layers=num_layers, bidirectional=bidirectional).double()
    theirs = packed_like(ours, cell, num_layers, bidirectional).double()
    x = torch.randn(4, 7, 4, dtype=torch.float64)
    ours_x, theirs_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    states = ours(ours_x, LENGTHS)
    outputs = [part.masked_fill(padding_mask(LENGTHS, 7)[:, :, None], 0.0) for part in states]
    packed, finals = theirs(pack_padded_sequence(theirs_x, LENGTHS, batch_first=True, enforce_sorted=False))
    expected = pad_packed_sequence(packed, batch_first=True)[0]
    torch.testing.assert_close(torch.cat(outputs, dim=-1), expected)
    hidden = finals[0] if cell == "lstm" else finals
    torch.testing.assert_close(
        torch.cat(last_states(states, LENGTHS), dim=-1), torch.cat(list(hidden[-len(outputs) :]), dim=-1)
    )
    torch.cat(outputs, dim=-1).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours_x.grad, theirs_x.grad)


def test_under_autocast_of_a_gpu_the_library_reads_float32() -> None:
    """It would read in float16; autocast of a GPU, which this test turns on, changes nothing on a CPU."""
    recurrence, read = Recurrence(4, 6, num_layers=2), []
    for module in recurrence.modules():
        if isinstance(module, nn.LSTM):
            module.register_forward_pre_hook(lambda _, x: read.append((x[0].dtype, torch.is_autocast_enabled("cuda"))))
    x = torch.randn(4, 7, 4)
    expected = recurrence(x, LENGTHS)
    torch.set_autocast_enabled("cuda", True)
    try:
        found = recurrence(x, LENGTHS)
        recurrence(x.bfloat16(), LENGTHS)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert read == 12 * [(torch.float32, False)]
    assert all(map(torch.equal, found, expected))


def test_reversal_within_lengths_undoes_itself_and_leaves_padding() -> None:
    x = torch.arange(56.0).view(4, 7, 2).requires_grad_()
    reversal = Reversal(LENGTHS, 7)
    reversed_once = reversal.reversed(x)
    assert torch.equal(reversal.undone(reversed_once), x)
    assert torch.equal(reversed_once[0, :3], x[0, :3].flip(0))
    assert torch.equal(reversed_once[0, 3:], x[0, 3:])
    weights = torch.arange(56.0).view(4, 7, 2)
    (gradient,) = torch.autograd.grad((reversed_once * weights).sum(), x)
    assert torch.equal(gradient, reversal.undone(weights))


@pytest.mark.parametrize("attention", [False, True])
def test_an_empty_sequence_and_padding_give_zeros(attention: bool) -> None:
    lengths = torch.tensor([0, 3])
    sequence, last = AttentiveRNN(2, 3, attention=attention)(torch.randn(2, 4, 2), lengths)
    assert not sequence[0].any() and not sequence[1, 3:].any()
    assert (last is None) == attention
    assert sequence[1, :3].all() and (last is None or (last[1].all() and not last[0].any()))


def test_attention_ignores_padding_and_silence() -> None:
    torch.manual_seed(0)
    attention = Attention(4)
    x = torch.randn(2, 5, 4)
    padding = torch.tensor([[False, False, True, True, True], [True] * 5])
    attended = attention(x, padding)
    assert not attended[0, 2:].any() and not attended[1].any()
    torch.testing.assert_close(attended[:1, :2], attention(x[:1, :2], padding[:1, :2]))


def test_symmetric_attention_is_symmetric() -> None:
    torch.manual_seed(0)
    pair, swapped = SymmetricAttention(4), SymmetricAttention(4)
    swapped.over_first.load_state_dict(pair.over_second.state_dict())
    swapped.over_second.load_state_dict(pair.over_first.state_dict())
    x, y, padding = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    torch.testing.assert_close(pair(x, y, padding, padding), swapped(y, x, padding, padding))
