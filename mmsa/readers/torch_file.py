"""Reading of torch's files from strangers: tensors as numpy arrays, under the same guard as pickles.

torch's own loader with weights_only runs nothing either, but it inflates a compressed file to whatever size it states,
and a key of tuples within tuples takes the process down.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmsa.errors import DataError
from mmsa.readers.mistaken import ZIP_START, clear_errors
from mmsa.readers.pickle_instructions import run
from mmsa.readers.pickle_machine import Machine, Name
from mmsa.readers.restricted_pickle import MAKERS, give_state, plain

_STORAGES = {
    Name("torch", f"{name}Storage"): code
    for name, code in {
        "Double": "<f8",
        "Float": "<f4",
        "Half": "<f2",
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}
# Torch before version 1.6 wrote a number, a version, the machine, the object, the keys of its storages, and these.
_OLD_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
_COUNT = struct.Struct("<q")
_MOST_AXES = 16


def load_torch(path: Path) -> object:
    """The content of a file of torch.save, in the present or the old format; tensors come as numpy arrays.

    Raises:
        DataError: it is damaged, compressed, larger than it says, or names anything but tensors and plain containers.
    """
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} is no file. Put the file of torch.save there.")
    with clear_errors(path, ZIP_START):
        with open(path, "rb") as file:
            start = file.read(len(ZIP_START))
        if start != ZIP_START:
            return _load_old(path.read_bytes())
        try:
            return _load_zip(path)
        except (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, OSError) as error:
            raise pickle.UnpicklingError(f"damaged archive: {error}") from error


class _Storage(NamedTuple):
    """The numbers that tensors are views of."""

    values: np.ndarray


def _load_zip(path: Path) -> object:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in entries):
            raise pickle.UnpicklingError("torch's files are not compressed, and this one is")
        if sum(entry.file_size for entry in entries) > size:
            raise pickle.UnpicklingError("its parts are larger than itself")
        names = [entry.filename for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError("an archive of torch holds one data.pkl")
        folder = names[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder").strip() != b"little":
            raise pickle.UnpicklingError("only numbers with the lowest byte first are read")

        def numbers_of(key: str) -> bytes:
            return archive.read(f"{folder}data/{key}")

        return _object(archive.read(names[0]), size, numbers_of)[0]


def _load_old(content: bytes) -> object:
    if not content.startswith(_OLD_START):
        raise pickle.UnpicklingError("it is no file of torch.save")
    about = Machine(content[len(_OLD_START) :], MAKERS, give_state)
    run(about)
    start = len(_OLD_START) + about.position
    wanted: dict[str, int] = {}  # bytes of a number by the key of its storage

    def none_yet(key: str, itemsize: int = 0) -> bytes:
        wanted[key] = itemsize
        return b""

    _, read = _object(content[start:], len(content), none_yet, sized=True)
    listed = Machine(content[start + read :], MAKERS, give_state)
    keys = run(listed)
    at = start + read + listed.position
    numbers: dict[str, bytes] = {}
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str):
            raise pickle.UnpicklingError("a key of a storage is no text")
        (count,) = _COUNT.unpack(content[at : at + _COUNT.size]) if at + _COUNT.size <= len(content) else (-1,)
        end = at + _COUNT.size + count * wanted.get(key, 1)
        if count < 0 or end > len(content):
            raise EOFError("it ends too early")
        numbers[key] = content[at + _COUNT.size : end]
        at = end
    return _object(content[start:], len(content), numbers.__getitem__)[0]


def _object(content: bytes, size: int, numbers_of: Callable[..., bytes], sized: bool = False) -> tuple[object, int]:
    """The object of a pickle whose storages lie elsewhere, and how many bytes the pickle takes.

    Args:
        content: begins with the pickle.
        size: bytes of the whole file.
        numbers_of: the bytes of a storage by its key.
        sized: only ask for the storages, with the bytes of a number: nothing is there yet.
    """

    made_of: dict[str, _Storage] = {}

    def storage(description: object) -> _Storage:
        if not isinstance(description, tuple) or len(description) < 5 or description[0] != "storage":
            raise pickle.UnpicklingError("a storage is damaged")
        kind, key = description[1], description[2]
        if not isinstance(kind, Name) or kind not in _STORAGES or not isinstance(key, str):
            raise pickle.UnpicklingError(f"a storage of {str(kind)[:60]} is not admitted")
        dtype = np.dtype(_STORAGES[kind])
        if sized:
            numbers_of(key, dtype.itemsize)
            return _Storage(np.empty(0, dtype))
        if key not in made_of:  # read once, however often it is mentioned
            made_of[key] = _Storage(np.frombuffer(numbers_of(key), dtype))
        if made_of[key].values.dtype != dtype:
            raise pickle.UnpicklingError("a storage is of two types")
        return made_of[key]

    def tensor(machine: Machine, of: object, offset: object, shape: Any, stride: Any, *_: object) -> np.ndarray:
        whole = isinstance(shape, tuple) and isinstance(stride, tuple) and all(type(n) is int for n in shape + stride)
        if (
            not isinstance(of, _Storage)
            or not whole
            or not len(shape) == len(stride) <= _MOST_AXES
            or type(offset) is not int
            or offset < 0
            or min(shape, default=0) < 0
        ):
            raise pickle.UnpicklingError("a tensor is damaged")
        count = math.prod(shape)
        if sized:
            return of.values
        if max((count, *shape)) > machine.most or offset + count > len(of.values):
            raise pickle.UnpicklingError(f"a tensor of shape {shape} is larger than its numbers")
        if count and any(stride[i] != math.prod(shape[i + 1 :]) for i in range(len(shape)) if shape[i] > 1):
            raise pickle.UnpicklingError("a tensor that is no contiguous block is not admitted")
        return of.values[offset : offset + count].reshape(shape)

    def parameter(machine: Machine, data: object, *_: object) -> object:
        return data

    makers: dict[Name, Callable[..., object] | None] = {
        **MAKERS,
        **dict.fromkeys(_STORAGES, None),
        Name("torch._utils", "_rebuild_tensor_v2"): tensor,
        Name("torch._utils", "_rebuild_parameter"): parameter,
    }
    machine = Machine(content, makers, give_state, storage, size)
    made = run(machine)
    return plain(made, machine.room), machine.position
