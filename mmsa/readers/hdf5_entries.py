"""The content of a stranger's HDF5 file: no link is followed, and no array is larger than the file can hold."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import h5py
import numpy as np

from mmsa.readers.allowance import FACTOR, FLOOR, Allowance
from mmsa.readers.hdf5_texts import REFERENCE, text_bytes

MOST_COMPRESSED = 1100
"""Deflate makes at most 1032 bytes of one, other filters as many or less: a large array that claims more is a lie, or
was hardly written to."""
DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)
"""The exceptions of h5py on a damaged file."""
_CHECKSUM = h5py.h5z.FILTER_FLETCHER32
_SIZE_KEEPING = (h5py.h5z.FILTER_SHUFFLE, _CHECKSUM)
_LARGE_CHUNK = 1 << 18
_OBJECT = 64  # bytes of memory of a Python string, about, without its text


def entry(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """An entry of a group that lies in it, not elsewhere.

    Raises:
        KeyError, ValueError: there is none, or it is a link.
    """
    if not isinstance(group, h5py.Group):
        raise ValueError(f"a group that holds {name} is required")
    encoded = name.encode("utf-8", "surrogateescape")
    if group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link, not an array")
    return group[name]


def array(group: h5py.Group, name: str) -> h5py.Dataset:
    """An array of a group, of numbers or text, which lies in the file and is no larger than the file can hold.

    Raises:
        KeyError, ValueError: it is none.
    """
    dataset = entry(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    name = f"{group.name}/{name}".lstrip("/")
    properties, dtype, shape = dataset.id.get_create_plist(), dataset.dtype, dataset.shape
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise ValueError(f"{name} lies in another file")
    if dtype.hasobject and not is_text(dataset):
        raise ValueError(f"{name} holds neither numbers nor text")
    size, stored = math.prod(shape or ()) * dtype.itemsize, dataset.id.get_storage_size()
    if shape is not None and size > max(FLOOR, MOST_COMPRESSED * stored):
        raise ValueError(f"{name} of shape {shape} claims {size} bytes, of which the file holds {stored}")
    if properties.get_nfilters():
        _check_chunks(dataset, properties, name)
    return dataset


def arrays(group: h5py.Group, deepest: int) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every array of a group and of the groups in it, as of `array`, by its whole name.

    Raises:
        ValueError: groups are nested too deep, or as `array` raises.
    """
    for name in group:
        inner = entry(group, name)
        if not isinstance(inner, h5py.Group):
            yield f"{group.name}/{name}".lstrip("/"), array(group, name)
        elif deepest == 1:
            raise ValueError(f"{name} is a group too deep")
        else:
            yield from arrays(inner, deepest - 1)


def is_text(dataset: h5py.Dataset) -> bool:
    """Whether it holds strings."""
    return h5py.check_string_dtype(dataset.dtype) is not None


def read(dataset: h5py.Dataset, allowance: Allowance) -> np.ndarray:
    """The content of what `array` has returned; text as bytes.

    Raises:
        DataError: it is larger than is allowed.
        OSError, ValueError: it is damaged.
    """
    if dataset.dtype.hasobject and dataset.size:
        allowance.pay(_OBJECT * dataset.size)
        allowance.pay(text_bytes(dataset))
    elif dataset.shape is not None:
        allowance.pay(dataset.nbytes)
    return np.asarray(dataset[()])


def _check_chunks(dataset: h5py.Dataset, properties: h5py.h5p.PropDCID, name: str) -> None:
    """Refuse compressed pieces that would grow beyond the size that the array states for them."""
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    compressing = [place for place, code in enumerate(filters) if code not in _SIZE_KEEPING]
    if not compressing:
        return
    if len(compressing) > 1 or any(code != _CHECKSUM for code in filters[compressing[0] + 1 :]):
        raise ValueError(f"{name} is compressed more than once")
    if not all(h5py.h5z.filter_avail(code) for code in filters):
        raise ValueError(
            f"{name} is compressed in a way that HDF5 does not know here, filter {filters[compressing[0]]}"
        )
    itemsize = REFERENCE.itemsize if dataset.dtype.hasobject else dataset.id.get_type().get_size()
    room = math.prod(dataset.chunks) * itemsize
    if room > FLOOR and room > FLOOR + FACTOR * dataset.file.id.get_filesize():
        raise ValueError(f"{name} is compressed in pieces of {room} bytes")
    pieces: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(pieces.append)
    deflated = filters[compressing[0]] == h5py.h5z.FILTER_DEFLATE
    large = [piece.chunk_offset for piece in pieces if deflated and piece.size > _LARGE_CHUNK]
    if any(piece.size > room + room // 8 + 1024 for piece in pieces) or any(
        _grows(dataset.id.read_direct_chunk(place)[1], room) for place in large
    ):
        raise ValueError(f"a piece of {name} is larger than the {room} bytes that it states")


def _grows(piece: bytes, room: int) -> bool:
    try:
        return len(zlib.decompressobj().decompress(piece, room + 1)) > room
    except zlib.error:  # not compressed after all, or damaged: HDF5 will say so
        return False
