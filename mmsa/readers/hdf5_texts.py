"""Texts of any length in HDF5, looked at before HDF5 reads them.

An array of texts holds references: a length and a place in a heap. HDF5 believes both: a length that is too large takes
the process down or fills the memory, and an object of a heap that ends where it begins is read without end.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path
from struct import Struct

import h5py
import numpy as np

REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_SIGNATURE = b"GCOL\1"  # with its version
_HEAP = Struct("<8sQ")
_OBJECT = Struct("<HHIQ")  # number, 0 for free room; references; reserved; bytes


def text_bytes(dataset: h5py.Dataset) -> int:
    """How many bytes all texts of an array come to, each mention counted.

    Raises:
        ValueError: a reference leads nowhere, or to less than it says.
    """
    found = _references(dataset).ravel()
    found = found[(found["length"] > 0) & (found["heap"] > 0)]
    start = dataset.file.userblock_size
    with open(Path(dataset.file.filename), "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = np.sort(found, order="heap")
        heaps, firsts = np.unique(found["heap"], return_index=True)
        for heap, mentions in zip(heaps.tolist(), np.split(found, firsts[1:]), strict=False):
            sizes = _objects(data, start + heap)
            numbers, place = np.unique(mentions["number"], return_inverse=True)
            held = np.array([sizes.get(number, -1) for number in numbers.tolist()])
            if (mentions["length"] > held[place]).any():
                raise ValueError("a text is longer than its place in the file")
    return int(found["length"].sum(dtype=np.int64))


def _objects(data: mmap.mmap, start: int) -> dict[int, int]:
    """Bytes of every object of a heap, by its number."""
    if start + _HEAP.size > len(data) or data[start : start + len(_SIGNATURE)] != _SIGNATURE:
        raise ValueError("a text has no place in the file")
    end = start + _HEAP.unpack_from(data, start)[1]
    if end > len(data):
        raise ValueError("a heap of texts is larger than the file")
    sizes = {}
    at = start + _HEAP.size
    while at + _OBJECT.size <= end:
        number, _, _, size = _OBJECT.unpack_from(data, at)
        step = size if number == 0 else _OBJECT.size + -(-size // 8) * 8
        if not 0 < step <= end - at:
            raise ValueError("a heap of texts is damaged")
        if number:
            sizes[number] = size
        at += step
    return sizes


def _references(dataset: h5py.Dataset) -> np.ndarray:
    """The references that the file holds instead of texts, in the shape of the array."""
    if dataset.file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("addresses of other than 8 bytes are not admitted")
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None or offset + dataset.size * REFERENCE.itemsize > Path(dataset.file.filename).stat().st_size:
            raise ValueError("texts have to be stored contiguous or in chunks")
        return np.fromfile(dataset.file.filename, REFERENCE, dataset.size, offset=offset)
    found = np.zeros(dataset.shape, REFERENCE)
    places: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda piece: places.append(piece.chunk_offset))
    for place in places:
        region = tuple(slice(at, at + step) for at, step in zip(place, dataset.chunks, strict=True))
        within = tuple(slice(0, length) for length in found[region].shape)
        found[region] = _piece(dataset, place)[within]
    return found


def _piece(dataset: h5py.Dataset, place: tuple[int, ...]) -> np.ndarray:
    skipped, piece = dataset.id.read_direct_chunk(place)
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    size = int(np.prod(dataset.chunks)) * REFERENCE.itemsize
    for place_of_filter, code in reversed(list(enumerate(filters))):
        if skipped >> place_of_filter & 1:  # as HDF5 does with the shuffling of texts
            continue
        if code == h5py.h5z.FILTER_FLETCHER32:
            piece = piece[:-4]
        elif code == h5py.h5z.FILTER_DEFLATE:
            piece = zlib.decompressobj().decompress(piece, size + 1)
        else:
            raise ValueError("texts are read if they are compressed by gzip, or not at all")
    if len(piece) != size:
        raise ValueError("a piece of texts is damaged")
    return np.frombuffer(piece, REFERENCE).reshape(dataset.chunks)
