"""A file of named arrays, .npz or HDF5, whose names and shapes are known before an array is read."""

from __future__ import annotations

import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import h5py
import numpy as np

from mmsa.data.allowance import Allowance
from mmsa.data.hdf5 import (
    DAMAGE,
    MOST_COMPRESSED,
    array,
    arrays,
    in_one_piece,
    is_in_one_piece,
    is_text,
    num_elements,
    opened,
    read,
)
from mmsa.data.prepare import readable
from mmsa.errors import DataError, printable
from mmsa.readers.mistaken import mistaken, no_file

_ZIP_SIGNATURE = b"PK"
_HEADERS: Any = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LOCAL_HEADER = "<4s5H3I2H"  # the last two: bytes of the name, and of what stands between it and the content
_CHUNK = 1 << 16
_MAPPED = "fiu"
_MOST_AXES = 32
_LONGEST_NAME = 80
_DAMAGE = (*DAMAGE, EOFError, SyntaxError, TokenError, struct.error, zipfile.BadZipFile)  # zipfile's and numpy's too


@dataclass(frozen=True)
class Header:
    """The header of an array.

    Args:
        shape: of the array.
        kind: "number", "string", or the name of another type.
    """

    shape: tuple[int, ...]
    kind: str


class ArrayFile:
    """The named arrays of a file; no object is unpickled and no link to another file is followed.

    Args:
        path: written by numpy.savez or numpy.savez_compressed, or HDF5 of data sets and groups of data sets.
        option: stands before the path in messages.

    Raises:
        DataError: the file is missing, damaged or another format.
    """

    def __init__(self, path: Path, option: str = "dataset.source=") -> None:
        self.path, self._option = path, option
        if not path.is_file():
            raise DataError(f"{option}{path} {no_file(path)}.\n  type {option}FILE.npz or FILE.h5")
        with readable(path), open(path, "rb") as file:
            self._zipped = file.read(len(_ZIP_SIGNATURE)) == _ZIP_SIGNATURE
        if not self._zipped and not h5py.is_hdf5(path):  # which may begin with a block of another program's
            said = mistaken(path) or f"{option}{path} is neither .npz nor HDF5."
            wanted = "" if "\n" in said else f"\n  type {option}FILE.npz or FILE.h5"
            raise DataError(said + wanted)
        self._size = path.stat().st_size
        self._allowance = Allowance(path, self._size)
        try:
            self.headers = self._headers_of_zip() if self._zipped else self._headers_of_hdf5()
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def read(self, name: str) -> np.ndarray:
        """One array; strings as str. Numbers that lie in the file as they are in memory are mapped, not read.

        Raises:
            DataError: it is damaged.
        """
        try:
            if self._zipped:
                with zipfile.ZipFile(self.path) as archive:
                    return self._member(archive, archive.getinfo(f"{name}.npy"))
            with opened(self.path) as hdf5:
                found = array(hdf5, name)
                if found.dtype.kind in _MAPPED and is_in_one_piece(found):
                    return _mapped(self.path, found.dtype, in_one_piece(found).start, found.shape)
                return _as_text(read(found, Allowance(self.path, self._size)))
        except _DAMAGE as error:
            raise self._damaged(error, name) from error

    def _member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
        """An array of a zip file."""
        with archive.open(member) as file:
            shape, by_columns, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
            if member.compress_type != zipfile.ZIP_STORED or dtype.kind not in _MAPPED or not math.prod(shape):
                file.seek(0)
                return _as_text(np.lib.format.read_array(file, allow_pickle=False))
            header, size = file.tell(), math.prod(shape) * dtype.itemsize
            while file.read(_CHUNK):  # to its end, where its checksum is compared
                continue
        with open(self.path, "rb") as whole:
            whole.seek(member.header_offset)
            local = struct.unpack(_LOCAL_HEADER, whole.read(struct.calcsize(_LOCAL_HEADER)))
            start = whole.tell() + local[-2] + local[-1] + header
        if header + size > member.file_size:
            raise ValueError(f"{_shown(member.filename)} ends early")
        return _mapped(self.path, dtype, start, shape, "F" if by_columns else "C")

    def _headers_of_zip(self) -> dict[str, Header]:
        headers: dict[str, Header] = {}
        with zipfile.ZipFile(self.path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name == member.filename or name in headers:
                    raise ValueError(f"{_shown(member.filename)} is no array (.npy), or there are two of its name")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{_shown(name)} is compressed in another way than numpy's")
                with archive.open(member) as file:
                    shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
                size = math.prod(shape) * dtype.itemsize
                if len(shape) > _MOST_AXES or min(shape, default=0) < 0:
                    raise ValueError(f"{_shown(name)} has {len(shape)} axes, which is no shape of numpy's")
                if not dtype.hasobject and size > min(member.file_size, MOST_COMPRESSED * member.compress_size):
                    raise ValueError(
                        f"{_shown(member.filename)} of shape {shape} claims {size} bytes, "
                        f"of which the file holds {member.compress_size}"
                    )
                self._allowance.pay(size)
                headers[name] = Header(shape, _kind(dtype))
        return headers

    def _headers_of_hdf5(self) -> dict[str, Header]:
        headers = {}
        with opened(self.path) as file:
            for name, dataset in arrays(file, 2):
                self._allowance.pay(num_elements(dataset) * dataset.dtype.itemsize)
                kind = "string" if is_text(dataset) else _kind(dataset.dtype)
                headers[name] = Header(dataset.shape or (), kind)
        return headers

    def _damaged(self, error: BaseException, name: str = "") -> DataError:
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        place = f": {_shown(name)}" if name else ""
        return DataError(
            f"{self._option}{self.path}{place} cannot be read as arrays ({reason}).\n"
            "  type np.savez(FILE, …) with arrays of numbers and strings, and no objects"
        )


def _mapped(
    path: Path, dtype: np.dtype[Any], start: int, shape: tuple[int, ...], order: Literal["C", "F"] = "C"
) -> np.ndarray:
    """Numbers in a file; a plain array, as each row is a view of it, and numpy's own have five times the size."""
    return np.memmap(path, dtype, "r", start, shape, order).view(np.ndarray)


def _as_text(content: np.ndarray) -> np.ndarray:
    """The same, bytes as str; text that no store can hold is refused."""
    if content.dtype.kind not in "SUO":
        return content
    strings = [text.decode() if isinstance(text, bytes) else text for text in content.ravel().tolist()]
    for text in strings:
        if "\0" in text:
            raise ValueError(f"a text holds a zero character: {text[:60]!r}")
        text.encode()  # halves of characters cannot be
    texts = np.empty(content.shape, dtype=object)  # not as wide as the longest, all of them
    texts.ravel()[:] = strings
    return texts


def _shown(name: str) -> str:
    return printable(name[:_LONGEST_NAME])


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "US":
        return "string"
    return "number" if dtype.kind in "fiub" else str(dtype)[:_LONGEST_NAME]
