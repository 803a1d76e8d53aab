"""Checkpoints: written under a temporary name and renamed, read without running anything that is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from mmsa.errors import DataError


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers and plain containers; a killed writer leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is not a checkpoint: there is no such file.\n  name a run's folder, as in outputs/runs"
        )
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(
            f"{path} is damaged: it is no checkpoint that can be read.\n"
            "  name the folder of another run, or leave trainer.resume out"
        ) from error
    return content
