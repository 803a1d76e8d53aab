"""The recurrence of several runs at once, for which PyTorch's own layers have no batching rule.

Narrow ones cost mostly calls: one loop over the steps, for all runs and both directions, needs as many as one run.
On a CPU wider ones are read by the library's kernel, run by run. On a GPU all widths cost mostly calls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmsa.layers.products import product
from mmsa.layers.reversal import Reversal

WIDEST = 16
"""The largest state that the loop reads faster than the library's kernel on a CPU, by `make bench ARGS=seeds/`."""
LARGE = 1 << 15
"""Elements of one run's weights from which on its products are faster by themselves than in a batch of all runs'."""


def scanned(x: Tensor, lengths: Tensor, directions: Any) -> list[Tensor]:
    """The states of one layer, inside vmap over the runs.

    Args:
        x: (B, T, D) steps.
        lengths: (B,) of them.
        directions: one or two one-way layers, `nn.LSTM` or `nn.GRU`; the second reads each sequence reversed.

    Shapes: -> (B, T, H) per direction, of any value at padding.
    """
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = [torch.stack([getattr(layer, name) for layer in directions]) for name in names]
    states: Tensor = _OfOne.apply(x, lengths, *weights, directions[0].mode)
    return list(states.unbind(0))


class _OfOne(torch.autograd.Function):
    """A layer of one run, inside vmap."""

    @staticmethod
    def forward(
        x: Tensor, lengths: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, cell: str
    ) -> Tensor:
        raise NotImplementedError("only inside vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> tuple[Tensor, int]:
        stacked = [
            value
            if dim is None and not isinstance(value, Tensor)
            else value.expand(info.batch_size, *value.shape)
            if dim is None
            else value.movedim(dim, 0)
            for value, dim in zip(inputs, in_dims, strict=True)
        ]
        is_lstm = stacked.pop() == "LSTM"
        if stacked[3].shape[-1] > WIDEST and stacked[0].device.type == "cpu":
            return _by_library(torch.lstm if is_lstm else torch.gru, *stacked), 0
        return (_LstmScan if is_lstm else _GruScan).apply(*stacked), 0


def _by_library(read: Any, x: Tensor, lengths: Tensor, *weights: Tensor) -> Tensor:
    """x (K, B, T, D), lengths (K, B), weights (K, d, ·) -> (K, d, B, T, H), by `torch.lstm` or `torch.gru`."""
    num_runs, size, num_steps, _ = x.shape
    zeros = x.new_zeros(1, size, weights[1].shape[-1])
    start = (zeros, zeros) if read is torch.lstm else zeros
    reversal, training = Reversal(lengths.flatten(), num_steps), torch.is_grad_enabled()
    found = []
    for number, own in enumerate(zip(*(weight.unbind(1) for weight in weights), strict=True)):
        steps = x.flatten(0, 1) if number == 0 else reversal.reversed(x.flatten(0, 1))
        each = zip(steps.unflatten(0, (num_runs, size)).unbind(0), *own, strict=True)
        outputs = [read(part, start, layer, True, 1, 0.0, training, False, True)[0] for part, *layer in each]
        joined = torch.cat(outputs)
        found.append(joined if number == 0 else reversal.undone(joined))
    return torch.stack([one.unflatten(0, (num_runs, size)) for one in found], dim=1)


def _orders(lengths: Tensor, num_steps: int, both: bool) -> tuple[Tensor, Tensor]:
    """Rows (k, b, t, d) by (t, d, k, b) and back, the second direction reversed within its lengths (K, B)."""
    num_runs, size = lengths.shape
    num_directions = 2 if both else 1
    device = lengths.device
    steps = torch.arange(num_steps, device=device)[:, None, None].expand(num_steps, num_runs, size)  # (T, K, B)
    mirrored = lengths - 1 - steps
    taken = torch.stack([steps, torch.where(mirrored >= 0, mirrored, steps)][:num_directions], dim=1)  # (T, d, K, B)
    directions = torch.arange(num_directions, device=device)[:, None, None]
    sequences = torch.arange(num_runs * size, device=device).view(num_runs, size)
    there = (sequences * num_steps + taken) * num_directions + directions
    back = (taken * num_directions + directions) * sequences.numel() + sequences  # a reversal is its own way back
    return there.flatten(), back.permute(2, 3, 0, 1).flatten()


class _LstmScan(torch.autograd.Function):
    """x (K, B, T, D), lengths (K, B), weights (K, d, 4H, ·) -> (K, d, B, T, H).

    On a CPU a sigmoid takes an eighth of the time of a tanh, which is 2 sigmoid(2x) - 1; cells are kept doubled, and
    states negative, as one operation gives them so.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        hidden = w_hh.shape[3]
        doubled = x.new_ones(4, hidden)
        doubled[2] = 2
        doubled = doubled.flatten()
        gates, there, back = _projected(x, lengths, w_ih * doubled[:, None], (b_ih + b_hh) * doubled)
        num_steps, _, size, _ = gates.shape
        weight = w_hh.transpose(0, 1).flatten(0, 1)  # (d K, 4H, H)
        turned = weight.transpose(1, 2) * -doubled
        states = x.new_zeros(num_steps + 1, len(weight), size, hidden)
        cells = torch.zeros_like(states)
        squashed = torch.empty_like(states[1:])
        gates_at, h_at, c_at, s_at = gates.unbind(0), states.unbind(0), cells.unbind(0), squashed.unbind(0)
        i_at, f_at, g_at, o_at = (gate.unbind(0) for gate in gates.unflatten(3, (4, hidden)).unbind(3))
        for t in range(num_steps):
            gates_at[t].baddbmm_(h_at[t], turned).sigmoid_()
            torch.mul(f_at[t], c_at[t], out=c_at[t + 1]).addcmul_(i_at[t], g_at[t], value=4).sub_(i_at[t], alpha=2)
            torch.addcmul(o_at[t], o_at[t], torch.sigmoid(c_at[t + 1], out=s_at[t]), value=-2, out=h_at[t + 1])
        ctx.save_for_backward(x, gates, states, cells, squashed, w_ih, weight, there, back)
        found = states[1:].view(-1, hidden).index_select(0, back).neg_()
        return found.view(len(x), size, num_steps, w_hh.shape[1], hidden).permute(0, 3, 1, 2, 4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, gates, states, cells, squashed, w_ih, weight, there, back = ctx.saved_tensors
        num_runs, d, size, num_steps, hidden = gradient.shape
        by_step = gradient.permute(0, 2, 3, 1, 4).reshape(-1, hidden).index_select(0, there)
        by_step = by_step.view(num_steps, d * num_runs, size, hidden)
        i, f, g, o = gates.unflatten(3, (4, hidden)).unbind(3)
        changes = torch.addcmul(gates, gates, gates, value=-1)  # (T, d K, B, 4H), slopes first
        by_gate = changes.unflatten(3, (4, hidden))
        of_i, of_f, of_g, of_o = by_gate.unbind(3)
        squashed = 2 * squashed - 1
        of_i.mul_(2 * g - 1)
        of_f.mul_(cells[:-1]).mul_(0.5)
        of_g.mul_(i).mul_(4)
        of_o.mul_(squashed)
        to_cell = torch.addcmul(o, o * squashed, squashed, value=-1)
        h_at, a_at, f_at = by_step.unbind(0), to_cell.unbind(0), f.unbind(0)
        all_at, cell_at, state_at = changes.unbind(0), by_gate[..., :3, :].unbind(0), of_o.unbind(0)
        dc = torch.zeros_like(h_at[0])
        for t in range(num_steps - 1, -1, -1):
            dh = h_at[t] if t == num_steps - 1 else h_at[t].baddbmm_(all_at[t + 1], weight)
            dc.addcmul_(dh, a_at[t])
            cell_at[t].mul_(dc[:, :, None])
            state_at[t].mul_(dh)
            dc.mul_(f_at[t])
        d_hh, d_b = _of_recurrent(changes, states, num_runs)
        d_x, d_ih = _of_inputs(changes, x, w_ih, back, ctx.needs_input_grad[0])
        return d_x, None, d_ih, d_hh.neg_(), d_b, d_b


class _GruScan(torch.autograd.Function):
    """As `_LstmScan`, weights (K, d, 3H, ·) of the reset gate, the update gate and the new state."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lengths: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
        gates, there, back = _projected(x, lengths, w_ih, b_ih)
        num_steps, _, size, _ = gates.shape
        hidden = w_hh.shape[3]
        weight = w_hh.transpose(0, 1).flatten(0, 1)  # (d K, 3H, H)
        turned = weight.transpose(1, 2).contiguous()
        bias = b_hh.transpose(0, 1).flatten(0, 1)[:, None]  # (d K, 1, 3H)
        states = x.new_zeros(num_steps + 1, len(weight), size, hidden)
        candidates = torch.empty_like(states[1:])  # what the reset gate lets through, before it does
        open_at, n_at = gates[..., : 2 * hidden].unbind(0), gates[..., 2 * hidden :].unbind(0)
        r_at, z_at = gates[..., :hidden].unbind(0), gates[..., hidden : 2 * hidden].unbind(0)
        h_at, c_at = states.unbind(0), candidates.unbind(0)
        for t in range(num_steps):
            recurrent = torch.baddbmm(bias, h_at[t], turned)
            open_at[t].add_(recurrent[..., : 2 * hidden]).sigmoid_()
            c_at[t].copy_(recurrent[..., 2 * hidden :])
            n_at[t].addcmul_(r_at[t], c_at[t]).tanh_()
            torch.lerp(n_at[t], h_at[t], z_at[t], out=h_at[t + 1])
        ctx.save_for_backward(x, gates, states, candidates, w_ih, weight, there, back)
        found = states[1:].view(-1, hidden).index_select(0, back)
        return found.view(len(x), size, num_steps, w_hh.shape[1], hidden).permute(0, 3, 1, 2, 4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, gates, states, candidates, w_ih, weight, there, back = ctx.saved_tensors
        num_runs, d, size, num_steps, hidden = gradient.shape
        by_step = gradient.permute(0, 2, 3, 1, 4).reshape(-1, hidden).index_select(0, there)
        by_step = by_step.view(num_steps, d * num_runs, size, hidden)
        r, z, n = gates.view(num_steps, d * num_runs, size, 3, hidden).unbind(3)
        of_new = (1 - z) * (1 - n * n)
        # of the recurrent products: reset gate, update gate, candidate
        factors = torch.stack([of_new * candidates * (r - r * r), (states[:-1] - n) * (z - z * z), of_new * r], dim=3)
        h_at, z_at, f_at, all_at = by_step.unbind(0), z.unbind(0), factors.unbind(0), factors.flatten(3).unbind(0)
        inputs = torch.empty_like(of_new)  # of the new state's own product
        for t in range(num_steps - 1, -1, -1):
            dh = h_at[t]
            if t < num_steps - 1:
                dh.baddbmm_(all_at[t + 1], weight).addcmul_(h_at[t + 1], z_at[t + 1])
            f_at[t].mul_(dh[:, :, None])
            torch.mul(of_new[t], dh, out=inputs[t])
        changes = factors.flatten(3)  # (T, d K, B, 3H), of the recurrent products
        d_hh, d_b_hh = _of_recurrent(changes, states, num_runs)
        changes = torch.cat([changes[..., : 2 * hidden], inputs], dim=-1)  # of the inputs' products
        of_new = inputs.sum(dim=(0, 2)).view(d, num_runs, hidden).transpose(0, 1)
        d_b_ih = torch.cat([d_b_hh[..., : 2 * hidden], of_new], dim=-1)
        d_x, d_ih = _of_inputs(changes, x, w_ih, back, ctx.needs_input_grad[0])
        return d_x, None, d_ih, d_hh, d_b_ih, d_b_hh


def _projected(x: Tensor, lengths: Tensor, w_ih: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs' products (T, d K, B, G), by step, and the orders of `_orders`."""
    num_runs, size, num_steps, _ = x.shape
    _, d, width, _ = w_ih.shape
    there, back = _orders(lengths, num_steps, d == 2)
    rows, weights, biases = x.flatten(1, 2), w_ih.flatten(1, 2), bias.flatten(1)
    if _are_large(w_ih):
        products = torch.stack([product(*own) for own in zip(rows, weights, biases, strict=True)])
    else:
        products = torch.baddbmm(biases[:, None], rows, weights.transpose(1, 2))
    by_step = products.view(-1, width).index_select(0, there)
    return by_step.view(num_steps, d * num_runs, size, width), there, back


def _of_recurrent(changes: Tensor, states: Tensor, num_runs: int) -> tuple[Tensor, Tensor]:
    """Gradients of the recurrent weights (K, d, G, H) and biases (K, d, G), from those of their products."""
    flat = changes.transpose(0, 1).flatten(1, 2)  # (d K, T B, G)
    before = states[:-1].transpose(0, 1).flatten(1, 2)
    weights = flat.transpose(1, 2).bmm(before).unflatten(0, (-1, num_runs)).transpose(0, 1)
    return weights, flat.sum(dim=1).unflatten(0, (-1, num_runs)).transpose(0, 1)


def _of_inputs(changes: Tensor, x: Tensor, w_ih: Tensor, back: Tensor, wanted: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients of the steps, where they are wanted, and of their weights, from those of their products."""
    of_rows = changes.view(-1, changes.shape[-1]).index_select(0, back).view(len(x), x.shape[1] * x.shape[2], -1)
    if _are_large(w_ih):
        d_ih = torch.stack([product(one.t(), own.t()) for one, own in zip(of_rows, x.flatten(1, 2), strict=True)])
    else:
        d_ih = of_rows.transpose(1, 2).bmm(x.flatten(1, 2))
    return of_rows.bmm(w_ih.flatten(1, 2)).view_as(x) if wanted else None, d_ih.view_as(w_ih)


def _are_large(w_ih: Tensor) -> bool:
    """Whether the products by these weights (K, d, G, D) are faster run by run."""
    return w_ih.device.type == "cpu" and w_ih[0].numel() >= LARGE
