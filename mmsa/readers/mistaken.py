"""Descriptions of files that cannot be read: damaged, hostile, or a web page, a pointer, an archive."""

from __future__ import annotations

import pickle
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsa.errors import DataError
from mmsa.readers.unpickler import RefusedError

# What a damaged or hostile pickle makes the unpickler and numpy raise; a broken stream can reach any instruction.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_LOOKED_AT = 512
_WEB_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(?:!doctype html|html|head)\b", re.I | re.S
)
_POINTER = b"version https://git-lfs"
HDF5_START, ZIP_START = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
"""The first bytes of these files."""
_PACKED = {b"\x1f\x8b": ("gzip", ".gz"), b"BZh": ("bzip2", ".bz2"), b"\xfd7zXZ\0": ("xz", ".xz")}
_OTHER = {
    HDF5_START: "an HDF5 file. Computational sequences are HDF5 and end in .csd; your own features",
    b"\x93NUMPY": "one array of numpy's. Arrays with names",
}
_TAR, _TAR_AT = b"ustar", 257


def mistaken(path: Path, expected: bytes = b"") -> str | None:
    """The true kind of a file that cannot be read, and if one helps, a second line with a command; None if unknown.

    Args:
        path: any file.
        expected: the first bytes of a sound file, if among these.
    """
    with open(path, "rb") as file:
        start = file.read(_LOOKED_AT)
    if expected and start.startswith(expected):
        return None
    if not start:
        return f"{path} is empty. Download it again."
    if _WEB_PAGE.match(start):
        return (
            f"{path} is a web page and not the data: the host asked a question or refused, and its answer was saved. "
            "Open the address in a browser, download the file itself and put it there."
        )
    if start.startswith(_POINTER):
        return f"{path} is a pointer of git-lfs and not the data.\n  type git lfs pull in the folder that was cloned"
    quoted = shlex.quote(str(path))
    if start.startswith(ZIP_START) and start[30:200].split(b"PK")[0].find(b".npy") > 0:
        return f"{path} is a file of named arrays (.npz).\n  type dataset=custom dataset.source={quoted}"
    if start.startswith(ZIP_START) or start[_TAR_AT:].startswith(_TAR):
        kind, command = ("zip", "unzip") if start.startswith(ZIP_START) else ("tar", "tar xf")
        return f"{path} is a {kind} archive and has to be unpacked.\n  type {command} {quoted}"
    for signature, (kind, suffix) in _PACKED.items():
        if start.startswith(signature):
            renamed = "" if path.suffix == suffix else f"mv {quoted} {shlex.quote(str(path) + suffix)} && "
            named = shlex.quote(str(path).removesuffix(suffix) + suffix)
            return f"{path} is compressed by {kind} and has to be unpacked.\n  type {renamed}{kind} -d {named}"
    for signature, kind in _OTHER.items():
        if start.startswith(signature):
            return f"{path} is {kind} are read by dataset=custom (docs/custom_data.md)."
    return None


def no_file(path: Path) -> str:
    """The description of a path that is not the needed file."""
    return "is no file" if path.exists() else "does not exist"


@contextmanager
def clear_errors(path: Path, expected: bytes = b"") -> Iterator[None]:
    """Turn the exceptions of a damaged or hostile file into a DataError.

    Args:
        path: the file.
        expected: the first bytes of a sound one, if that is no pickle.
    """
    try:
        yield
    except _PICKLE_ERRORS as error:
        raise DataError(
            mistaken(path, expected)
            or f"{path} cannot be read as a pickle: {str(error)[:200] or type(error).__name__}. "
            "It is cut short or not a pickle of arrays; download it again."
        ) from error
    except RefusedError as refused:
        raise DataError(
            mistaken(path, expected)
            or f"{path} was not loaded: it names {refused}, and only plain containers and numpy arrays are "
            "admitted. Nothing of it was run; get the file from its publisher."
        ) from refused
