"""Sequences of different lengths in one array, which may be mapped from a file larger than the memory."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths, end to end in one array.

    Args:
        values: (total steps, D) float32, in memory or mapped from a file.
        offsets: (N+1,) int64; sequence i is values[offsets[i]:offsets[i+1]].
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def join(cls, sequences: Sequence[np.ndarray]) -> Ragged:
        """N arrays (T_i, D) -> one Ragged."""
        return cls(np.concatenate(sequences).astype(np.float32, copy=False), offsets_of(list(map(len, sequences))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64 steps of every sequence."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        """Features per step."""
        return int(self.values.shape[1])

    def blocks(self) -> Iterator[np.ndarray]:
        """The values in blocks (n, D) of about 4 MiB; a mapped array is never in memory as a whole meanwhile."""
        num_steps = self.steps_per_block
        for start in range(0, len(self.values), num_steps):
            yield self.values[start : start + num_steps]
            self.release()

    @property
    def steps_per_block(self) -> int:
        """Steps that fill a block."""
        return max(1, _BLOCK // max(1, self.values[:1].nbytes))

    def release(self) -> None:
        """As of `release`."""
        release(self.values)

    def touched(self, marked: np.ndarray) -> np.ndarray:
        """(N,) bool: whether a sequence has a step that is marked in (total steps,) bool."""
        return np.diff(np.searchsorted(np.flatnonzero(marked), self.offsets)) > 0

    def filled_steps(self) -> np.ndarray:
        """(total steps,) bool: whether a step has a value other than 0."""
        return np.concatenate([np.zeros(0, dtype=bool), *(block.any(axis=1) for block in self.blocks())])


def release(values: np.ndarray) -> None:
    """Let go of the memory that reading a mapped array has taken; its file has it again."""
    mapped: object = values
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def offsets_of(lengths: ArrayLike) -> np.ndarray:
    """(N,) lengths -> (N+1,) int64: where sequences of these lengths begin and end, end to end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
