"""A file of named arrays, .npz or HDF5, whose names and shapes are known before an array is read."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsa.errors import DataError

_ZIP_SIGNATURE = b"PK"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_COMPRESSED = 1100
"""Deflate makes at most 1032 bytes of one: an array that claims more is a lie that would fill the memory."""
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile, numpy and h5py raise on a damaged file."""


@dataclass(frozen=True)
class Header:
    """What is said of an array without reading it.

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

    Raises:
        DataError: the file is missing, damaged or another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"dataset.source={path}: no such file.\n  type dataset.source=FILE.npz or FILE.h5")
        with open(path, "rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
        self._zipped = start.startswith(_ZIP_SIGNATURE)
        if not self._zipped and start != _HDF5_SIGNATURE:
            raise DataError(
                f"dataset.source={path} is neither .npz nor HDF5.\n  type dataset.source=FILE.npz or FILE.h5"
            )
        try:
            self.headers = self._headers_of_zip() if self._zipped else self._headers_of_hdf5()
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def read(self, name: str) -> np.ndarray:
        """One array; strings as str.

        Raises:
            DataError: it is damaged.
        """
        try:
            return self._read(name)
        except _DAMAGE as error:
            raise self._damaged(error, name) from error

    def _read(self, name: str) -> np.ndarray:
        if self._zipped:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as file:
                array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        else:
            with h5py.File(self.path, "r") as hdf5:
                stored = hdf5[name]
                array = np.asarray(stored.asstr()[()] if _is_text(stored.dtype) else stored[()])
        if array.dtype.kind == "S":
            return np.char.decode(array, "utf-8")
        return array.astype(str) if array.dtype.kind == "O" else array

    def _headers_of_zip(self) -> dict[str, Header]:
        headers = {}
        with zipfile.ZipFile(self.path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    version = np.lib.format.read_magic(file)
                    of_version: Any = {
                        (1, 0): np.lib.format.read_array_header_1_0,
                        (2, 0): np.lib.format.read_array_header_2_0,
                    }[version]
                    shape, _, dtype = of_version(file)
                _check_size(entry.filename, shape, dtype, entry.file_size, entry.compress_size)
                headers[entry.filename.removesuffix(".npy")] = Header(shape, _kind(dtype))
        return headers

    def _headers_of_hdf5(self) -> dict[str, Header]:
        headers = {}
        with h5py.File(self.path, "r") as file:
            places = [(name, file) for name in file]
            while places:
                name, group = places.pop(0)
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name} is a link, not an array")
                entry = group[name]
                if isinstance(entry, h5py.Group):
                    if group is not file:
                        raise ValueError(f"{entry.name[1:]} is a group in a group")
                    places = [(child, entry) for child in entry] + places
                    continue
                if entry.external or entry.is_virtual:
                    raise ValueError(f"{name} lies in another file")
                whole, stored = entry.name[1:], entry.id.get_storage_size()
                _check_size(whole, entry.shape or (), entry.dtype, math.inf, stored)
                headers[whole] = Header(entry.shape or (), _kind(entry.dtype))
        return headers

    def _damaged(self, error: BaseException, name: str = "") -> DataError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        place = f": {name}" if name else ""
        return DataError(
            f"dataset.source={self.path}{place} cannot be read as arrays ({reason}).\n"
            "  type np.savez(FILE, …) with arrays of numbers and strings, and no objects"
        )


def _check_size(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], whole: float, stored: int) -> None:
    size = math.prod(shape) * dtype.itemsize
    if size > whole or size > _MOST_COMPRESSED * stored:
        raise ValueError(f"{name} of shape {shape} claims {size} bytes, of which the file holds {stored}")


def _is_text(dtype: np.dtype[Any]) -> bool:
    return h5py.check_string_dtype(dtype) is not None


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "US" or _is_text(dtype):
        return "string"
    return "number" if dtype.kind in "fiub" else str(dtype)
