"""The names of data and of their targets wherever people read of them."""

from __future__ import annotations

EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""The columns of the target `emotions`, in the order of CMU-MOSEI's labels."""


def data_name(dataset: str, source: str | None) -> str:
    """The data set, and the file or folder that it was read from, where there is one."""
    return f"{dataset} ({source})" if source else dataset
