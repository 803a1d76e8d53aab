"""Feature vectors that lie on a GPU, where batches are gathered."""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch import Tensor

from mmsa.data.batches import Fold
from mmsa.data.inputs import VectorInput, padded, places
from mmsa.types import sent


class ResidentInput:
    """Feature vectors of a fold on a device.

    Args:
        vectors: the same on the host.
        device: where they go, normalised.

    Shapes: padded -> (N', T, D) float32 on the device, of equal bits.
    """

    def __init__(self, vectors: VectorInput, device: torch.device) -> None:
        self.lengths = vectors.lengths
        ends = 1 + np.cumsum(self.lengths)  # step 0 is padding
        self._starts = ends - self.lengths
        self._values = torch.zeros(int(ends[-1]), vectors.width, device=device)
        done = 1
        for block in vectors.batch_blocks():
            self._values[done : done + len(block)] = torch.from_numpy(block)
            done += len(block)

    def padded(self, rows: np.ndarray, num_steps: int) -> tuple[Tensor, None]:
        lengths = self.lengths[rows]
        index = padded(places(self._starts[rows], lengths), lengths, num_steps)  # (N', T)
        taken = self._values.index_select(0, sent(torch.from_numpy(index.ravel()), self._values.device))
        return taken.unflatten(0, index.shape), None


def resident(fold: Fold, device: torch.device) -> Fold:
    """The same fold, with its feature vectors on a device."""
    other = copy(fold)
    other.streams = {m: ResidentInput(s, device) if isinstance(s, VectorInput) else s for m, s in fold.streams.items()}
    return other


def near(device: torch.device, *folds: Fold) -> list[Fold]:
    """Folds for many epochs: on a GPU resident if their feature vectors take at most half of its free memory."""
    if device.type != "cuda":
        return list(folds)
    vectors = [stream for fold in folds for stream in fold.streams.values() if isinstance(stream, VectorInput)]
    num_bytes = sum(4 * stream.width * int(stream.lengths.sum()) for stream in vectors)
    free, _ = torch.cuda.mem_get_info(device)
    return [resident(fold, device) if num_bytes <= free // 2 else fold for fold in folds]
