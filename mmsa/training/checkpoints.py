"""Checkpoints: written under a temporary name and renamed, read without running anything that is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmsa.errors import DataError
from mmsa.files import written


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers and plain containers; a killed writer leaves the old file.

    Raises:
        OSError: the disk is full, say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # on a full disk torch speaks of an "unexpected pos"
                raise error.__context__ from None
            raise


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
