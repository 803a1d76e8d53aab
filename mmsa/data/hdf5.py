"""The door to every HDF5 file: no link is followed, no array lies elsewhere or is larger than the file can hold.

Text of any length and attributes are never read by HDF5: `hdf5_raw.py`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from mmsa.data.allowance import FACTOR, FLOOR, Allowance
from mmsa.data.hdf5_raw import REFERENCE, texts_of

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
_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)  # numpy's truth values are the last
_LARGE_CHUNK = 1 << 18
_OBJECT = 64  # bytes of memory of a Python string, about, without its text


def opened(path: Path, locking: bool | None = None) -> h5py.File:
    """A file, to be read by the functions below.

    Args:
        path: of a file; a pipe would be waited for.
        locking: whether it is locked; None as HDF5 decides.

    Raises:
        OSError: it cannot be read, or is no whole HDF5 file.
    """
    return h5py.File(path, "r", locking=locking)


def entry(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """An entry of a group that lies in it, not elsewhere.

    Raises:
        KeyError, ValueError: there is none, or it is a link.
    """
    if not isinstance(group, h5py.Group):
        raise ValueError(f"a group that holds {name} is required")
    if "/" in name or name in ("", "."):  # which would be a way to another place
        raise ValueError(f"{name!r} is no name")
    encoded = name.encode("utf-8", "surrogateescape")
    if group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link, not an array")
    return group[name]


def array(group: h5py.Group, name: str) -> h5py.Dataset:
    """An array of a group, or of groups in it, of numbers or text, which lies in the file and is no larger than that.

    Raises:
        KeyError, ValueError: it is none.
    """
    *groups, name = name.split("/")
    for inner in groups:
        group = entry(group, inner)
    dataset = entry(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    name = f"{group.name}/{name}".lstrip("/")
    properties, kind = dataset.id.get_create_plist(), dataset.id.get_type()
    # Before its shape, for which HDF5 would open the files of a virtual one.
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise ValueError(f"{name} lies in another file")
    if kind.get_class() not in _PLAIN:  # before numpy's type, which may be nested without end
        raise ValueError(f"{name} holds neither numbers nor text")
    shape, stored = dataset.shape, dataset.id.get_storage_size()
    size = num_elements(dataset) * dataset.dtype.itemsize
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


def num_elements(dataset: h5py.Dataset) -> int:
    """Elements of an array, 0 of one without a shape; beyond 64 bits too."""
    return 0 if dataset.shape is None else math.prod(dataset.shape)


def read(dataset: h5py.Dataset, allowance: Allowance) -> np.ndarray:
    """The content of what `array` has returned; text as bytes.

    Raises:
        DataError: it is larger than is allowed.
        OSError, ValueError: it is damaged.
    """
    if not dataset.dtype.hasobject or not num_elements(dataset):
        allowance.pay(num_elements(dataset) * dataset.dtype.itemsize)
        return np.asarray(dataset[()])
    texts = read_texts([dataset], allowance)
    content = np.empty(len(texts), dtype=object)
    content[:] = texts
    return content.reshape(dataset.shape)


def read_texts(datasets: Sequence[h5py.Dataset], allowance: Allowance) -> list[bytes]:
    """The texts of arrays of texts of any length, one array after the other.

    Raises:
        DataError: they are larger than is allowed.
        ValueError: they are damaged.
    """
    allowance.pay(_OBJECT * sum(map(num_elements, datasets)))
    texts = texts_of(datasets)
    allowance.pay(texts.num_bytes)
    return texts.read()


def is_in_one_piece(dataset: h5py.Dataset) -> bool:
    """Whether its elements lie in the file one after the other, as numpy has them in memory."""
    properties = dataset.id.get_create_plist()
    contiguous = properties.get_layout() == h5py.h5d.CONTIGUOUS and not properties.get_nfilters()
    kind = dataset.id.get_type()
    written = dataset.id.get_storage_size() == num_elements(dataset) * kind.get_size() > 0
    return bool(contiguous and written and kind.equal(h5py.h5t.py_create(dataset.dtype)))


def in_one_piece(dataset: h5py.Dataset) -> range:
    """The bytes of the file that are the elements of an array, one after the other.

    Raises:
        ValueError: they are in pieces, packed, or not all there.
    """
    properties, size = dataset.id.get_create_plist(), num_elements(dataset) * dataset.id.get_type().get_size()
    name = dataset.name.lstrip("/")
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_nfilters():
        raise ValueError(f"{name} is not in one piece")
    start = dataset.id.get_offset() if size else 0
    if start is None or start + size > Path(dataset.file.filename).stat().st_size:
        raise ValueError(f"{name} is not wholly in the file")
    return range(start, start + size)


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
