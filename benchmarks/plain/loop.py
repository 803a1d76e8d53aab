"""The plain data path and the plain loop."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from mmsa.data.batches import Fold

EPOCH = 2
"""Number of the epoch that is trained: Self-MM moves no label in the first."""
Item = dict[str, Tensor]
"""One utterance: (T, D) features per modality, its label, and its row for a model that remembers utterances."""


def items(fold: Fold, target: str) -> list[Item]:
    """The utterances of a fold, one by one, as a repository keeps them in memory."""
    found = []
    for row in range(len(fold)):
        batch = fold.batch(torch.tensor([row]).numpy())
        found.append({m: x[0].clone() for m, x in batch.features.items()} | {"label": batch.targets[target][0]})
    return found


def keep(path: Path, utterances: list[Item]) -> None:
    """Write utterances as a repository's cache does: a pickle of a list of arrays."""
    path.write_bytes(pickle.dumps([{name: x.numpy() for name, x in each.items()} for each in utterances]))


def kept(path: Path) -> list[Item]:
    """Those of such a file, which this program wrote."""
    return [{name: torch.as_tensor(x) for name, x in each.items()} for each in pickle.loads(path.read_bytes())]


def collate(utterances: list[Item], true_lengths: bool = False) -> tuple[Any, ...]:
    """Features (B, T, D) padded to the longest of the batch, lengths (B,), labels (B,), and where they have them rows.

    Args:
        utterances: of the batch.
        true_lengths: the longest comes first, and lengths are true; without, lengths are all T.
    """
    modalities = [name for name, x in utterances[0].items() if x.dim()]
    numbers = [name for name in utterances[0] if name not in modalities]
    if true_lengths:
        utterances = sorted(utterances, key=lambda each: len(each[modalities[0]]), reverse=True)
    features = {m: pad_sequence([each[m] for each in utterances], batch_first=True) for m in modalities}
    lengths = torch.tensor([len(each[modalities[0]]) for each in utterances])
    if not true_lengths:
        lengths = torch.full_like(lengths, features[modalities[0]].shape[1])
    return features, lengths, *(torch.stack([each[name] for each in utterances]) for name in numbers)


def loader(model: nn.Module, utterances: list[Item], batch_size: int, shuffle: bool) -> DataLoader[Any]:
    """Batches of utterances for a model, without workers."""
    make = partial(collate, true_lengths=getattr(model, "true_lengths", False))
    return DataLoader(utterances, batch_size, shuffle, collate_fn=make)  # type: ignore[arg-type]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Any],
    clip_value: float | None = None,
    accumulate: int = 1,
) -> float:
    """One optimiser step per group of `accumulate` batches, whose gradients add up; the mean of the batches' losses."""
    model.train()
    losses = []
    for number, batch in enumerate(batches):
        if number % accumulate == 0:
            optimizer.zero_grad()
        loss = model.loss(*batch)  # type: ignore[operator]
        loss.backward()
        losses.append(loss.item())
        if len(losses) % accumulate == 0:
            if clip_value is not None:
                nn.utils.clip_grad_value_(model.parameters(), clip_value)
            optimizer.step()
    return sum(losses) / len(losses)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Any]) -> list[float]:
    """The prediction of every utterance."""
    model.eval()
    found: list[float] = []
    for features, lengths, *_ in batches:
        found += model(features, lengths).tolist()
    return found
