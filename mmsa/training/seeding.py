"""Seeded generators: one per purpose, so that a change of one does not move the others."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose of a run."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator of its own for each purpose of a run."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose))


@contextmanager
def initialisation(seed: int) -> Iterator[None]:
    """Parameters made inside are drawn from the seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "initialisation"))
        yield
