"""Checkpoints: written under a temporary name and renamed, read without running anything that is in them, and each
with a hash of its own content."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch

from mmsa.errors import DataError
from mmsa.files import written

FORMAT = 1
"""Version of the file; one that states none was written before there were versions."""
_ANOTHER = "name the folder of another run, or leave trainer.resume out"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers and plain containers; a killed writer leaves the old file.

    Raises:
        OSError: the disk is full, say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path, _num_bytes(content)) as file:
        try:
            torch.save({**_alone(content), "format": FORMAT, "hash": content_hash(content)}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # on a full disk torch speaks of an "unexpected pos"
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        DataError: there is none, it is damaged, or a newer mmsa wrote it.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is not a checkpoint: there is no such file.\n  name a run's folder, as in outputs/runs"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                raise ValueError("compressed, as torch never writes one")
            if (part := archive.testzip()) is not None:  # torch itself does not look
                raise ValueError(f"{part} has another checksum")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        written_by, expected = content.pop("format", None), content.pop("hash", None)
        if written_by is None and expected is not None:
            raise ValueError("a hash without a version")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f"{path} is damaged: it is no checkpoint that can be read.\n  {_ANOTHER}") from error
    if expected is None and written_by is None:
        logging.getLogger("mmsa").warning("%s is of a former mmsa, without a hash: its content is not checked.", path)
    elif written_by != FORMAT:
        raise DataError(
            f"{path}: a newer mmsa wrote it (version {written_by}, this one reads {FORMAT}).\n  update mmsa"
        )
    elif content_hash(content) != expected:
        raise DataError(f"{path} is damaged: its content has another hash than when it was written.\n  {_ANOTHER}")
    return content


def restore_weights(path: Path, model: torch.nn.Module) -> str:
    """Load the weights of a checkpoint into a model; returns the hash of the checkpoint's content.

    Raises:
        DataError: it is damaged, or not of this model.
    """
    content = load_checkpoint(path)
    with restoring(path):
        model.load_state_dict(content["model"])
    return content_hash(content)


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Around the use of a checkpoint's content: content that does not fit becomes a DataError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()
        raise DataError(f"{path} does not fit the run: {' '.join(why)[:200]}\n  {_ANOTHER}") from error


def content_hash(content: Mapping[str, Any]) -> str:
    """SHA-256 of tensors, numbers, texts and plain containers: of names, order, types, shapes and every bit."""
    digest = hashlib.sha256()
    for part in _parts(content):
        digest.update(part)
    return digest.hexdigest()


def _alone(value: Any) -> Any:
    """The same; of a tensor that is a part of a larger one a copy, as a file would hold all of that."""
    if isinstance(value, dict):
        found = copy(value)  # with the attribute of a module's state that has the versions of its parts
        found.update({key: _alone(inner) for key, inner in value.items()})
        return found
    is_part = isinstance(value, torch.Tensor) and value.untyped_storage().nbytes() > value.nbytes
    return value.clone() if is_part else value


def _num_bytes(value: Any) -> int:
    """Bytes of the tensors in it."""
    if isinstance(value, torch.Tensor):
        return int(value.nbytes)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_num_bytes, inner))


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield f"tensor {value.dtype} {tuple(value.shape)};".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key, inner in value.items():
            yield f"{key!r}:".encode()
            yield from _parts(inner)
    elif isinstance(value, list | tuple):
        yield f"sequence {len(value)};".encode()
        for inner in value:
            yield from _parts(inner)
    else:
        yield f"{value!r};".encode()
