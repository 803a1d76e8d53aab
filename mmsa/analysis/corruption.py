"""Missing inputs for robustness: modalities absent, steps dropped, the same ones for every run."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mmsa.types import Batch, Output

DrawnWay = Literal["zero", "repeat", "stretch"]
Way = Literal["present", "zero", "repeat", "stretch"]

WAYS: tuple[DrawnWay, ...] = get_args(DrawnWay)
RATES = (0.2, 0.4, 0.6, 0.8)
DRAW_SEED = 0
"""Of every mask; it is no option, so that two evaluations are comparable."""


@dataclass(frozen=True)
class Condition:
    """One way to remove inputs.

    Args:
        way: "present": only `modalities` are there; else how the steps of `modalities` are dropped: "zero" and "repeat"
            scatter the drops, "stretch" drops one stretch.
        modalities: in the order of the model.
        rate: share of the steps that is dropped, in [0, 1]; 0 where way is "present".
    """

    way: Way
    modalities: tuple[str, ...]
    rate: float = 0.0

    @property
    def label(self) -> str:
        """The condition in a table of its way."""
        names = "+".join(self.modalities)
        return names if self.way == "present" else f"{names} {100 * self.rate:.0f} %"


def conditions(modalities: Sequence[str], droppable: Iterable[str]) -> list[Condition]:
    """Everything that is probed; the first is clean: every modality is present.

    Args:
        modalities: of the model.
        droppable: those of them whose features are steps, not word pieces.
    """
    subsets = [kept for n in range(len(modalities), 0, -1) for kept in itertools.combinations(modalities, n)]
    steps = tuple(m for m in modalities if m in set(droppable))
    targets = [(m,) for m in steps] + ([steps] if len(steps) > 1 else [])
    dropped = [Condition(way, target, rate) for way in WAYS for target in targets for rate in RATES]
    return [*(Condition("present", kept) for kept in subsets), *dropped]


class Corrupted(nn.Module):
    """A model that sees changed batches.

    Features change after standardisation: a zero step equals a step without frames, and the mean of the train fold
    where features are standardised. Padding and targets stay as they are.

    Args:
        model: Batch -> Output.
        condition: the change of the batches.
    """

    def __init__(self, model: nn.Module, condition: Condition) -> None:
        super().__init__()
        self.model, self.condition = model, condition

    def forward(self, batch: Batch) -> Output:
        output: Output = self.model(corrupt(batch, self.condition))
        return output


def corrupt(batch: Batch, condition: Condition) -> Batch:
    """A changed copy of a batch; the batch itself stays as it is."""
    if condition.way == "present":
        kept = partial(_only, condition.modalities)
        return replace(batch, features=kept(batch.features), lengths=kept(batch.lengths), pieces=kept(batch.pieces))
    features = dict(batch.features)
    for m in condition.modalities:
        dropped = dropped_steps(batch, m, condition.way, condition.rate)
        features[m] = _repeated(features[m], dropped) if condition.way == "repeat" else _zeroed(features[m], dropped)
    return replace(batch, features=features)


def dropped_steps(batch: Batch, modality: str, way: Way, rate: float) -> Tensor:
    """(B, T) bool, True where a step is dropped; False at padding.

    They depend on DRAW_SEED, the utterance, the modality, the step, the way (scattered or a stretch) and the rate
    alone, and those of a smaller rate are among those of a larger one.
    """
    lengths = batch.lengths[modality].tolist()
    dropped = np.zeros(batch.features[modality].shape[:2], dtype=bool)
    for row, (name, num_steps) in enumerate(zip(batch.ids, lengths, strict=True)):
        place, levels = _draw(name, modality, num_steps)
        if way == "stretch":
            length = round(rate * num_steps)
            start = int(place * (num_steps - length + 1))
            dropped[row, start : start + length] = True
        else:
            dropped[row, :num_steps] = levels < rate
    return torch.from_numpy(dropped).to(batch.features[modality].device)


@lru_cache(maxsize=2**16)
def _draw(name: str, modality: str, num_steps: int) -> tuple[float, np.ndarray]:
    """Where in an utterance its stretch lies, in [0, 1), and one level in [0, 1) per step."""
    digest = hashlib.sha256(f"{modality}\n{name}".encode()).digest()
    rng = np.random.default_rng(np.random.SeedSequence([DRAW_SEED, int.from_bytes(digest, "big")]))
    return float(rng.random()), rng.random(num_steps)


def _only(present: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros where a modality is absent: no length, no feature, no piece of any word."""
    return {m: x if m in present else torch.zeros_like(x) for m, x in tensors.items()}


def _zeroed(features: Tensor, dropped: Tensor) -> Tensor:
    """(B, T, D) or (B, T) ids, (B, T) -> the features with zeros at dropped steps."""
    return features.masked_fill(dropped.reshape(*dropped.shape, *(1,) * (features.ndim - 2)), 0)


def _repeated(features: Tensor, dropped: Tensor) -> Tensor:
    """(B, T, D) or (B, T) ids, (B, T) -> the features with the last kept step, or else zeros, at dropped steps."""
    steps = torch.arange(dropped.shape[1], device=dropped.device).expand_as(dropped)
    source = steps.masked_fill(dropped, -1).cummax(dim=1).values  # (B, T), -1 before the first kept step
    rows = torch.arange(len(features), device=features.device)[:, None]
    return _zeroed(features[rows, source.clamp(min=0)], source < 0)
