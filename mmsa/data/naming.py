"""The name of data wherever people read of them."""

from __future__ import annotations


def data_name(dataset: str, source: str | None) -> str:
    """The data set, and the file or folder that it was read from, where there is one."""
    return f"{dataset} ({source})" if source else dataset
