"""Damage to what an HDF5 file holds, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def bent(file: h5py.File, other: Path, rng: np.random.Generator) -> None:
    """Change one thing in an HDF5 file: a type, a shape, a layout, a value, a link, a name or an attribute.

    Args:
        file: open for writing.
        other: another HDF5 file, to refer to.
        rng: which, and how.
    """
    places: list[str] = []
    file.visit(places.append)
    bend = _one((_retyped, _reshaped, _laid_out, _valued, _linked, _renamed, _attributed), rng)
    if bend not in (_linked, _renamed, _attributed):
        places = [place for place in places if isinstance(file[place], h5py.Dataset)]
    with suppress(*_REFUSED_BY_HDF5):  # what HDF5 itself does not write
        bend(file, _one(places, rng), other, rng)


_REFUSED_BY_HDF5 = (KeyError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
_ODD_TEXTS = [
    "",
    "{",
    "[]",
    "null",
    "[" * 3000,
    '{"dropped": 1}',
    '{"a": "\\ud800"}',
    "a\x1b[2Jb",
    "x" * 70_000,
    "é",
    "1" * 9999,
]
_ODD_NUMBERS = [-1, 0, 1, 2, 10**9, 2**31, 2**62, -(2**63), 1e300, -1e300, float("nan"), float("inf"), 0.5]
_ODD_NAMES = ["a\x1b[2J", "a\nb", "..", ".", "é", "x" * 300, "words", "values", "data", "ids", "a b", "-rf", "<b>"]


def _one(choices: Sequence[Any], rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(0, len(choices)))]


def _types() -> list[Any]:
    nested = h5py.h5t.NATIVE_FLOAT
    for _ in range(200):
        nested = h5py.h5t.array_create(nested, (1,))
    custom = h5py.h5t.IEEE_F32LE.copy()
    custom.set_ebias(20)
    wrapped = [h5py.Datatype(kind) for kind in (nested, custom)]
    vlen = [h5py.vlen_dtype(np.dtype("f4")), h5py.string_dtype(), h5py.string_dtype("ascii"), h5py.ref_dtype]
    plain = ["f4", ">f4", "f2", "f8", "i1", "u8", "i8", ">i8", "?", "c8", "S1", "S300", "V4", "V8"]
    compound = np.dtype([("a", "f4"), ("b", "i4", (2,))])
    return [*wrapped, *vlen, *map(np.dtype, plain), compound, h5py.enum_dtype({"a": 0, "b": 1}), np.dtype("(3,)f4")]


def _shape(file: h5py.File, place: str) -> tuple[int, ...]:
    return getattr(file[place], "shape", None) or (3,)


def _stored(file: h5py.File, place: str, shape: tuple[int, ...], dtype: Any, **layout: Any) -> None:
    del file[place]
    file.create_dataset(place, shape, dtype, **layout)


def _retyped(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    shape, dtype = _shape(file, place), _one(_types(), rng)
    if isinstance(dtype, h5py.Datatype):
        del file[place]
        space = h5py.h5s.create_simple(shape)
        group, _, name = place.rpartition("/")
        stored = h5py.h5d.create((file[group] if group else file).id, name.encode(), dtype.id, space)
        if dtype.id.get_class() == h5py.h5t.FLOAT:
            stored.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(4 * int(np.prod(shape)), "u1"), dtype.id)
        return
    _stored(file, place, shape, dtype, fillvalue=None)
    if rng.random() < 0.2:
        name = f"{place}_type"
        file[name] = np.dtype("f4")
        del file[place]
        file.create_dataset(place, shape, file[name])
    elif dtype.kind in "fiu":
        file[place][...] = rng.integers(0, 100, shape)


def _reshaped(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    shape, dtype = _shape(file, place), getattr(file[place], "dtype", np.dtype("f4"))
    first, rest = (shape or (1,))[0], shape[1:]
    shapes: list[Any] = [(), (0,), (0, *rest), (first, 0), (first + 1, *rest), (max(0, first - 1), *rest), (*shape, 2)]
    shapes += [(10**9, *rest), (2**33, 2**33), (first, 10**12), (2**62,), (1,) * 32]
    if rng.random() < 0.1:
        del file[place]
        file[place] = h5py.Empty(dtype)
        return
    chosen = _one(shapes, rng)
    chunks = tuple(max(1, min(side, 100)) for side in chosen) if chosen and rng.random() < 0.5 else None
    _stored(file, place, chosen, dtype, chunks=chunks)


def _laid_out(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    content = file[place][()]
    shape, dtype = _shape(file, place), file[place].dtype
    packed: list[dict[str, Any]] = [{"chunks": True}, *({"compression": kind} for kind in ("gzip", "lzf"))]
    packed += [
        {"shuffle": True, "compression": "gzip"},
        {"fletcher32": True},
        {"scaleoffset": 2},
        {"maxshape": (None,)},
    ]
    kind = rng.integers(0, 5)
    del file[place]
    if kind == 0:
        file.create_dataset(place, shape, dtype, external=[(str(other), 0, 10**6)])
    elif kind == 1:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(other), place, shape)
        file.create_virtual_dataset(place, layout)
    elif kind == 2:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, place.encode(), h5py.h5t.py_create(dtype, logical=True), space, properties)
    else:
        file.create_dataset(place, data=content, dtype=dtype, **_one(packed, rng))


def _valued(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    dataset = file[place]
    odd = _one(_ODD_TEXTS if dataset.dtype.hasobject else _ODD_NUMBERS, rng)
    where = tuple(int(rng.integers(0, side)) for side in dataset.shape)
    with np.errstate(all="ignore"):
        dataset[where] = odd if dataset.dtype.kind in "OS" else np.array(odd).astype(dataset.dtype)


def _linked(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    places: list[str] = []
    file.visit(places.append)
    targets = [h5py.ExternalLink(str(other), place), h5py.ExternalLink("/dev/zero", place), h5py.SoftLink(f"/{place}")]
    targets += [file[_one(places, rng)], file["/"], h5py.SoftLink(_one(places, rng)), np.dtype("f4")]
    del file[place]
    file[place] = _one(targets, rng)


def _renamed(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    kind = rng.integers(0, 3)
    group = place.rpartition("/")[0]
    if kind == 0:
        del file[place]
    elif kind == 1:
        file.move(place, f"{group}/{_one(_ODD_NAMES, rng)}")
    else:
        file.copy(place, f"{_one(['', group, place], rng)}/{_one(_ODD_NAMES, rng)}")


def _attributed(file: h5py.File, place: str, other: Path, rng: np.random.Generator) -> None:
    holder = file if len(file.attrs) else file[place]
    name = _one([*holder.attrs, "format", "x"], rng)
    values = [
        *_ODD_TEXTS,
        *_ODD_NUMBERS,
        b"bytes",
        np.zeros(3),
        np.zeros(7000),
        ["a", "b"],
        np.bool_(True),
        h5py.Empty("f4"),
    ]
    values += [np.zeros(2, [("a", "f4")]), file.ref, np.array([file.ref] * 2, h5py.ref_dtype), np.bytes_(b"mmsa store")]
    if rng.random() < 0.2:
        del holder.attrs[name]
    else:
        holder.attrs[name] = _one(values, rng)
