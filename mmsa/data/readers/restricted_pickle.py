"""Unpickling of files from strangers: plain containers and numpy arrays, admitted by exact name, and nothing else.

numpy's own reconstruction is not safe on hostile input either: it takes an object array over raw bytes, whose
elements are then addresses that the file chose. The names are therefore bound to the guarded forms below, which build
arrays from checked parts only.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.errors import DataError

# What a damaged or hostile pickle makes the unpickler raise; a broken stream can reach any of its instructions.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def load_pickle(path: Path) -> object:
    """The content of a pickle of plain containers and numpy arrays.

    Raises:
        DataError: it is empty, cut short, not a pickle, or names any other object; nothing of it was run.
    """
    with open(path, "rb") as file:
        try:
            return _RestrictedUnpickler(file).load()
        except _PICKLE_ERRORS as error:
            if path.stat().st_size == 0:
                raise DataError(f"{path} is empty. Download it again.") from error
            raise DataError(
                f"{path} cannot be read as a pickle: {str(error) or type(error).__name__}. "
                "It is cut short or not a pickle of arrays; download it again."
            ) from error
        except _Refused as refused:
            raise DataError(
                f"{path} was not loaded: it names {refused}, and only plain containers and numpy arrays are admitted. "
                "Nothing of it was run; get the file from its publisher."
            ) from refused


class _Refused(Exception):
    """The file names an object that is not admitted."""


class _DType:
    """Stands for numpy.dtype: a plain type with its byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        made = np.dtype(code) if isinstance(code, str) else None
        if made is None or made.kind not in "biufcSUO":
            raise pickle.UnpicklingError(f"array type {code!r} is not admitted")
        self.value: np.dtype[Any] = made

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"byte order {order!r} is not admitted")
        self.value = self.value.newbyteorder(order)


class _Array(np.ndarray):
    """Stands for numpy.ndarray: filled only by a state whose parts fit together."""

    def __new__(cls, *parts: object, **named: object) -> _Array:
        raise pickle.UnpicklingError("an array that does not come with its own state is not admitted")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, content = state
        values = _array(content, dtype, shape, "F" if fortran_order else "C")
        flat = list(values.flat) if values.dtype.hasobject else values.tobytes()
        checked: Any = (1, values.shape, values.dtype, False, flat)
        super().__setstate__(checked)


def _array(content: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """An array of checked parts; objects arrive as a list, everything else as bytes."""
    if not isinstance(dtype, _DType):
        raise pickle.UnpicklingError("an array's type is damaged")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError("an array's shape is damaged")
    kind, count = dtype.value, math.prod(shape)
    if kind.hasobject:
        if not isinstance(content, list) or len(content) != count:
            raise pickle.UnpicklingError("an array of objects needs a list of them")
        values = np.empty(count, dtype=object)
        for i, element in enumerate(content):  # one by one: lists among them are elements, not axes
            values[i] = element
    else:
        if not isinstance(content, bytes | bytearray) or len(content) != count * kind.itemsize:
            raise pickle.UnpicklingError("an array's content does not fill its shape")
        values = np.frombuffer(content, kind) if count else np.empty(0, kind)
    return values.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(array_type: object, shape: object, code: object) -> _Array:
    """Stands for numpy's function of this name: an empty array that its state fills."""
    if array_type is not _Array:
        raise pickle.UnpicklingError("an array of another class is not admitted")
    return np.ndarray.__new__(_Array, (0,), np.uint8)


def _frombuffer(content: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Stands for numpy's function of this name, which pickle protocol 5 calls."""
    return _array(content, dtype, shape, order).copy()


def _scalar(dtype: object, content: object) -> object:
    """Stands for numpy's function of this name: one number or string."""
    return _array(content, dtype, (), "C")[()]


_ADMITTED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that resolves the names of `_ADMITTED` and refuses every other."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise _Refused(f"{module}.{name}")
        return _ADMITTED[module, name]
