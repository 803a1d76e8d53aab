"""Reading of torch's files from strangers: tensors as numpy arrays, under the same guard as pickles.

torch's own loader with weights_only runs nothing either, but it inflates a compressed file to whatever size it states,
and a key of tuples within tuples takes the process down.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmsa.errors import DataError
from mmsa.readers.mistaken import ZIP_START, clear_errors
from mmsa.readers.restricted_pickle import ArrayUnpickler
from mmsa.readers.unpickler import Name

_STORAGES = {
    Name("torch", f"{name}Storage"): np.dtype(code)
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

        def numbers(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            return np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)

        return _TorchUnpickler(io.BytesIO(archive.read(names[0])), size, numbers).load()


def _load_old(content: bytes) -> object:
    file, size = io.BytesIO(content), len(content)
    if file.read(len(_OLD_START)) != _OLD_START:
        raise pickle.UnpicklingError("it is no file of torch.save")
    ArrayUnpickler(file, size).load()  # a description of the machine that wrote it
    # Zeros stand for the numbers, which follow the pickle.
    unpickler = _TorchUnpickler(file, size, lambda key, dtype, count: np.zeros(count, dtype))
    made = unpickler.load()
    waiting = {key: storage.values for key, storage in unpickler.storages.items()}
    keys = ArrayUnpickler(file, size).load()
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in waiting:
            raise pickle.UnpicklingError("a key of a storage is none of those that are mentioned")
        values = waiting.pop(key)
        count = int.from_bytes(file.read(8), "little", signed=True)
        numbers = file.read(values.nbytes)
        if count != len(values) or len(numbers) != values.nbytes:
            raise EOFError("it ends too early")
        values[:] = np.frombuffer(numbers, values.dtype)
    if waiting:
        raise pickle.UnpicklingError("the numbers of a storage are missing")
    return made


class _TorchUnpickler(ArrayUnpickler):
    """Unpickler of tensors, whose numbers lie outside the pickle: `numbers` gives them by key, type and count."""

    def __init__(self, file: Any, size: int, numbers: Callable[[str, np.dtype, int], np.ndarray]) -> None:
        super().__init__(file, size)
        self._numbers = numbers
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: object) -> _Storage:
        """A storage by its description; its numbers are read once, however often it is mentioned."""
        match pid:
            case ("storage", Name() as kind, str(key), _, int(count), *_) if kind in _STORAGES and count >= 0:
                dtype = _STORAGES[kind]
            case _:
                raise pickle.UnpicklingError("a storage is damaged or not of plain numbers")
        if key not in self.storages:
            self.pay(array_bytes=count * dtype.itemsize)
            self.storages[key] = _Storage(self._numbers(key, dtype, count))
        if self.storages[key].values.dtype != dtype:
            raise pickle.UnpicklingError("a storage is of two types")
        return self.storages[key]

    def tensor(
        self, of: object, offset: Any, shape: Any, stride: Any, gradient: object, hooks: object, about: object = None
    ) -> np.ndarray:
        """Stands for torch's _rebuild_tensor_v2: a contiguous view of a storage."""
        numbers = (offset, *shape, *stride) if isinstance(shape, tuple) and isinstance(stride, tuple) else (None,)
        if (
            not isinstance(of, _Storage)
            or not all(type(n) is int for n in numbers)
            or not len(shape) == len(stride) <= _MOST_AXES
            or min(offset, *shape, 0) < 0
        ):
            raise pickle.UnpicklingError("a tensor is damaged")
        count = math.prod(shape)
        if max((count, *shape)) > self.most or offset + count > len(of.values):
            raise pickle.UnpicklingError(f"a tensor of shape {shape} is larger than its numbers")
        if count and any(stride[i] != math.prod(shape[i + 1 :]) for i in range(len(shape)) if shape[i] > 1):
            raise pickle.UnpicklingError("a tensor that is no contiguous block is not admitted")
        return of.values[offset : offset + count].reshape(shape)

    makers: ClassVar[Mapping[Name, Callable[..., object] | None]] = {
        **ArrayUnpickler.makers,
        **dict.fromkeys(_STORAGES),
        Name("torch._utils", "_rebuild_tensor_v2"): tensor,
        Name("torch._utils", "_rebuild_parameter"): lambda unpickler, data, gradient, hooks: data,
    }
