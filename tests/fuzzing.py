"""Files with damage in them: bytes, and what HDF5 holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The same with one to four changes: bytes, a piece cut out, doubled, moved, replaced, or the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        start = int(rng.integers(0, len(changed)))
        length = int(rng.integers(1, 12))
        piece = bytes(changed[start : start + length])
        elsewhere = int(rng.integers(0, len(changed)))
        kind = rng.integers(0, 7)
        if kind == 0:
            changed[start] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[start] = int(rng.integers(0, 256))
        elif kind == 2:
            changed[start : start + length] = rng.bytes(length)
        elif kind == 3:
            del changed[start : start + length]
        elif kind == 4:
            changed[elsewhere:elsewhere] = piece
        elif kind == 5:
            changed[elsewhere : elsewhere + length] = piece
        elif rng.random() < 0.3:
            del changed[start:]
        if not changed:
            break
    return bytes(changed)


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The same, each time with another damage: one byte where it is not empty, or as of `mutated`."""
    rng = np.random.default_rng(seed)
    filled = np.flatnonzero(np.frombuffer(content, np.uint8))
    for i in range(count):
        changed = bytearray(content)
        changed[int(rng.choice(filled))] = int(rng.integers(0, 256))
        yield bytes(changed) if i % 2 else mutated(content, rng)
