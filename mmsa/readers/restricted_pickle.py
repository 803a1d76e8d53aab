"""Unpickling of files from strangers: plain containers and numpy arrays, admitted by exact name, and nothing else.

numpy's own reconstruction is not safe on hostile input either: it takes an object array over raw bytes, whose
elements are then addresses that the file chose. The names are therefore bound to the guarded forms below, which build
arrays from checked parts only.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmsa.errors import DataError
from mmsa.readers.mistaken import clear_errors
from mmsa.readers.unpickler import Name, RefusedError, Unpickler

_ARRAY_TYPE = re.compile(r"[<>=|]?(?:b1|\?|[iu][1248]|f[248]|[SU]\d{1,8}|O[48]?)")
_DEEPEST = 24
_TEXTS = frozenset({str, bytes})
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_LARGEST_CODE_POINT = 0x10FFFF


def load_pickle(path: Path) -> object:
    """The content of a pickle of plain containers and numpy arrays.

    What comes out consists of None, bool, int of 64 bits, float, str, bytes, list, tuple, dict, set and numpy arrays of
    numbers, text or these; subclasses of dict come out as dict, numpy's scalars as Python's. Strings of Python 2 are
    read as latin-1. It is nested at most 24 deep, holds nothing within itself, and is not much larger than the file,
    however often it mentions its parts.

    Raises:
        DataError: it is empty, cut short, not a pickle, too large, or names any other object; nothing of it was run.
    """
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path} is no file. Put the pickle there.")
    with open(path, "rb") as file:
        if not path.stat().st_size:
            raise DataError(f"{path} is empty. Download it again.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, clear_errors(path):
            return ArrayUnpickler(data, len(data)).load()


class _Measure(NamedTuple):
    """The size of a container when every mention of a part counts: a reader's budget.

    Args:
        height: levels of containers.
        size: bytes, about.
        leaves: entries that are no lists themselves.
        longest: characters of the longest text; an array of text takes as much for every entry.
    """

    height: int
    size: int
    leaves: int
    longest: int


def _measure(value: object, depth: int, measures: dict[int, _Measure], room: int) -> _Measure:
    """Look at all of a container: it holds admitted kinds only, is not nested too deep, and not too large."""
    if id(value) in measures:
        return measures[id(value)]
    if depth > _DEEPEST:
        raise pickle.UnpicklingError(f"content within itself or nested more than {_DEEPEST} deep")
    entries = _entries(value)
    parts = [_measure(entry, depth + 1, measures, room) for entry in entries if type(entry) not in _SCALARS]
    measures[id(value)] = found = _measured(value, entries, parts)
    if found.height > _DEEPEST:
        raise pickle.UnpicklingError(f"content nested more than {_DEEPEST} deep")
    if max(found.size, 4 * found.leaves * found.longest) > room:
        raise pickle.UnpicklingError("its content would need far more memory than the file holds")
    return found


def _measured(value: object, entries: Collection[object], parts: Sequence[_Measure]) -> _Measure:
    """The measure of a container by its entries, and of those that are containers the measures."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _Measure(1, 8 + value.nbytes, max(1, value.size), value.itemsize if value.dtype.kind in "SU" else 0)
    texts = [len(entry) for entry in entries if type(entry) in _TEXTS]  # type: ignore[arg-type]
    height = 1 + max((part.height for part in parts), default=0)
    size = 8 * (1 + len(entries)) + sum(texts) + sum(part.size for part in parts)
    if isinstance(value, dict):
        return _Measure(height, size, 1, 0)
    leaves = len(entries) - len(parts) + sum(part.leaves for part in parts)
    return _Measure(height, size, leaves, max(texts + [part.longest for part in parts], default=0))


def _entries(value: object) -> Collection[object]:
    """The content of a container; the keys of a dict and the elements of a set have been checked on entry."""
    kind = type(value)
    if kind is list or kind is tuple:
        return value  # type: ignore[return-value]
    if isinstance(value, dict):
        return value.values()
    if kind is set or kind in _SCALARS:
        return ()
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else ()
    raise pickle.UnpicklingError("it mentions a class or an array type by itself, which is no data")


def _named(value: object) -> str:
    """A value instead of a text, for messages; of a container the type, for its text might be endless."""
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


class _ArrayType:
    """Stands for numpy.dtype: a plain type with its byte order."""

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or not _ARRAY_TYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"array type {_named(code)} is not admitted")
        self.value: np.dtype = np.dtype("O" if code.lstrip("<>=|").startswith("O") else code)

    def order(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("an array type's state is damaged")
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("a structured array type is not admitted")
        self.value = self.value.newbyteorder(state[1])


def _checked(unpickler: Unpickler, content: object, dtype: object, shape: object) -> np.dtype:
    """The type of an array whose parts fit together; objects arrive as a list, everything else as bytes."""
    if not isinstance(dtype, _ArrayType):
        raise pickle.UnpicklingError("an array's type is damaged")
    if not isinstance(shape, tuple) or len(shape) > 16 or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError("an array's shape is damaged")
    kind, count = dtype.value, math.prod(shape)
    if max((count, *shape)) > unpickler.most:
        raise pickle.UnpicklingError(f"an array of shape {shape} is larger than the file")
    unpickler.pay(array_bytes=max(1, count) * max(1, kind.itemsize))
    if kind.hasobject and (not isinstance(content, list) or len(content) != count):
        raise pickle.UnpicklingError("an array of objects needs a list of them")
    if not kind.hasobject and (not isinstance(content, bytes) or len(content) != count * kind.itemsize):
        raise pickle.UnpicklingError("an array's content does not fill its shape")
    return kind


def _check_text(array: np.ndarray) -> None:
    """Numbers that are no characters would fail only where the text is used."""
    if array.dtype.kind == "U" and array.nbytes:
        codes = np.ascontiguousarray(array).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if codes.max() > _LARGEST_CODE_POINT or ((codes >= 0xD800) & (codes <= 0xDFFF)).any():
            raise pickle.UnpicklingError("an array's text is damaged")


def _blank_array(unpickler: ArrayUnpickler, array_type: object, shape: object, code: object) -> np.ndarray:
    """Stands for numpy's _reconstruct: an empty array that its state fills."""
    if array_type != Name("numpy", "ndarray"):
        raise pickle.UnpicklingError("an array of another class is not admitted")
    array = np.empty(0, np.uint8)
    unpickler.blank[id(array)] = array
    return array


def _from_buffer(unpickler: Unpickler, content: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Stands for numpy's _frombuffer, which pickle protocol 5 calls."""
    kind = _checked(unpickler, content, dtype, shape)
    if kind.hasobject or not isinstance(content, bytes) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("an array of objects needs a list of them")
    values = np.frombuffer(content, kind) if content else np.empty(0, kind)
    array = values.reshape(shape, order="F" if order == "F" else "C")
    _check_text(array)
    return array


def _scalar(unpickler: Unpickler, dtype: object, content: object) -> object:
    """Stands for numpy's scalar: one number or string, as Python's."""
    content = content.encode("latin1") if isinstance(content, str) else content
    return _from_buffer(unpickler, content, dtype, (), "C").item()


def _encoded(unpickler: Unpickler, text: object, encoding: object = "latin1") -> bytes:
    """Stands for _codecs.encode, through which Python 3 writes bytes in the protocols of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"_codecs.encode with {_named(encoding)}")
    unpickler.pay(array_bytes=len(text))
    return text.encode("latin1")


def _pairs(unpickler: Unpickler, pairs: object = ()) -> dict[object, object]:
    """Stands for OrderedDict and dict."""
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise pickle.UnpicklingError("a dict is built from something other than pairs")
    return unpickler.mapping([part for pair in pairs for part in pair], {})


def _set(unpickler: Unpickler, elements: object = ()) -> set[object]:
    if not isinstance(elements, list | tuple):
        raise pickle.UnpicklingError("a set is built from something other than a list")
    return unpickler.elements(list(elements), set())


class ArrayUnpickler(Unpickler):
    """Unpickler of plain containers and numpy arrays."""

    makers: ClassVar[Mapping[Name, Callable[..., object] | None]] = {
        Name(module, name): maker
        for modules, names, maker in (
            ("collections", "OrderedDict", _pairs),
            ("builtins __builtin__", "dict", _pairs),
            # What it would make of an absent key is left out.
            ("collections", "defaultdict", lambda unpickler, factory=None: {}),
            ("builtins __builtin__", "set frozenset", _set),
            ("builtins __builtin__", "bytes", lambda unpickler: b""),
            # The factories of defaultdicts, and MISA's own: mentioned, never called.
            ("builtins __builtin__", "int long float str unicode bool list tuple", None),
            ("create_dataset __main__", "return_unk", None),
            ("_codecs", "encode", _encoded),
            ("numpy", "dtype", lambda unpickler, code, align=False, copy=False: _ArrayType(code)),
            ("numpy", "ndarray", None),
            ("numpy.core.multiarray numpy._core.multiarray", "_reconstruct", _blank_array),
            ("numpy.core.multiarray numpy._core.multiarray", "scalar", _scalar),
            ("numpy.core.numeric numpy._core.numeric", "_frombuffer", _from_buffer),
        )
        for module in modules.split()
        for name in names.split()
    }

    def __init__(self, file: Any, size: int) -> None:
        super().__init__(file, size)
        self.blank: dict[int, np.ndarray] = {}
        """Arrays that wait for their state, by their identity."""

    def load(self) -> object:
        """The content, which is not much larger than the file, however often it mentions its parts."""
        content = super().load()
        if self.blank:
            raise pickle.UnpicklingError("an array without its state is not admitted")
        _measure(content, 1, {}, self.room)
        return content

    def give_state(self, state: object, target: object) -> None:
        """Only array types and arrays have a state, an array once."""
        if isinstance(target, _ArrayType):
            target.order(state)
            return
        array = self.blank.pop(id(target), None)
        if array is None:
            raise pickle.UnpicklingError("a state is set on something other than an array")
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array's state is damaged")
        _, shape, dtype, fortran_order, content = state
        content = content.encode("latin1") if isinstance(content, str) else content  # of Python 2
        kind = _checked(self, content, dtype, shape)
        array.__setstate__((1, shape, kind, fortran_order is True, content))  # type: ignore[arg-type]
        _check_text(array)
