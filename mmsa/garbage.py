"""The garbage collector of a process of ours, which has nothing to find among what imports make."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Around the imports of a process of ours: neither during them nor later does the collector look at what they make.

    PyTorch and MLflow make hundreds of thousands of objects, which live as long as the process: the collector's passes
    over them are a quarter of the time of their imports. Not for a process of the user's, whose objects would be left
    out too.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
