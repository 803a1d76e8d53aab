"""Texts of any length and attributes of HDF5, read from the file's bytes.

Both are references: a length and a place in a heap. HDF5 believes them: a length that is too large fills the memory,
and an object of a heap that ends where it begins is walked without end.
"""

from __future__ import annotations

import math
import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

import h5py
import numpy as np

REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_HEAP = np.dtype([("signature", "S4"), ("version", "u1"), ("", "V3"), ("size", "<i8")])
_OBJECT = np.dtype([("number", "<u2"), ("mentions", "<u2"), ("", "V4"), ("size", "<i8")])  # number 0 is free room
_MOST_OBJECTS = 1 << 16  # of a heap: their numbers have two bytes
_HEADER = Struct("<BxHII4x")  # version, messages, mentions, bytes
_MESSAGE = Struct("<HHB3x")  # kind, bytes, flags
_CONTINUED, _ATTRIBUTE = 0x10, 0xC
_TEXT = 0x19  # version 1, class 9: of any length
_MOST_MESSAGES = 1000


@dataclass(frozen=True)
class Texts:
    """Texts of any length, not yet read.

    Args:
        references: (N,) of `REFERENCE`; one without text has the length 0.
        places: (N,) int64, where in the file each begins.
        path: the file.
    """

    references: np.ndarray
    places: np.ndarray
    path: Path

    @property
    def num_bytes(self) -> int:
        """Bytes of all, each mention counted."""
        return int(self.references["length"].sum(dtype=np.int64))

    def read(self) -> list[bytes]:
        """All of them."""
        ends = self.places + self.references["length"]
        with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [data[start:end] for start, end in zip(self.places.tolist(), ends.tolist(), strict=True)]


def texts_of(datasets: Sequence[h5py.Dataset]) -> Texts:
    """The texts of one or more arrays of a file, of texts of any length; those of the first come first.

    Raises:
        ValueError: a reference leads nowhere, or to less than it says.
    """
    file = datasets[0].file
    references = np.concatenate([_references(dataset).ravel() for dataset in datasets])
    return _found(references, Path(file.filename), file.userblock_size)


def root_texts(file: h5py.File) -> dict[str, str]:
    """The attributes of a file that are one text each.

    Raises:
        ValueError: its header or one of them is damaged.
    """
    _check_addresses(file)
    path, start = Path(file.filename), file.userblock_size
    content = np.memmap(path, np.uint8, "r")
    held = {}
    for kind, flags, body in _messages(content, start + h5py.h5o.get_info(file.id).addr, start):
        if kind == _ATTRIBUTE and not flags & 2:  # another object's
            name, reference = _attribute(body)
            if reference is not None:
                held[name] = reference
    references = np.array([*held.values()], REFERENCE)
    return dict(zip(held, [text.decode() for text in _found(references, path, start).read()], strict=True))


def _messages(content: np.ndarray, at: int, base: int) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and body of every message of an object's header, where it is one of version 1."""
    version, _, _, size = _HEADER.unpack(_piece(content, at, _HEADER.size))
    if version != 1:  # written in another way than a store is
        return
    blocks, seen = [(at + _HEADER.size, size)], 0
    for start, size in blocks:
        at = start
        while at + _MESSAGE.size <= start + size:
            kind, length, flags = _MESSAGE.unpack(_piece(content, at, _MESSAGE.size))
            body = _piece(content, at + _MESSAGE.size, length)
            at += _MESSAGE.size + length
            seen += 1
            if seen > _MOST_MESSAGES:
                raise ValueError("the header of the file has no end")
            if kind == _CONTINUED:
                blocks.append((base + int.from_bytes(body[:8], "little"), int.from_bytes(body[8:16], "little")))
            yield kind, flags, body


def _attribute(body: bytes) -> tuple[str, tuple[int, int, int] | None]:
    """Name of an attribute, and its reference if it is one text of any length."""
    version, sizes = body[0], [int.from_bytes(body[i : i + 2], "little") for i in (2, 4, 6)]
    if version not in (1, 3) or (version == 3 and body[1]):  # 3: without padding, of a character set
        return "", None
    parts, at = [], 8 if version == 1 else 9
    for size in sizes:
        parts.append(body[at : at + size])
        at += -(-size // 8) * 8 if version == 1 else size
    name, kind, space = parts
    one = len(space) >= 2 and space[1] == 0 and not (space[0] == 2 and space[3] == 2)
    if not one or len(kind) < 2 or kind[0] != _TEXT or kind[1] & 15 != 1:
        return "", None
    found = np.frombuffer(body[at : at + REFERENCE.itemsize].ljust(REFERENCE.itemsize, b"\0"), REFERENCE)[0]
    return name.rstrip(b"\0").decode(errors="replace"), found.item()


def _piece(content: np.ndarray, at: int, size: int) -> bytes:
    if not 0 <= at <= at + size <= len(content):
        raise ValueError("the header of the file is damaged")
    return content[at : at + size].tobytes()


def _found(references: np.ndarray, path: Path, base: int) -> Texts:
    """Look up references.

    Args:
        references: (N,) as they stand in the file.
        base: where HDF5 begins in it.
    """
    references = references.copy()
    references["length"][references["heap"] == 0] = 0
    filled = references["length"] > 0
    places = np.zeros(len(references), np.int64)
    if filled.any():
        content = np.memmap(path, np.uint8, "r")
        heaps, of_heap = np.unique(references["heap"][filled], return_inverse=True)
        keys, starts, sizes = _objects(content, heaps, base)
        asked = of_heap * _MOST_OBJECTS + references["number"][filled]
        place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        wrong = (keys[place] != asked) | (references["number"][filled] >= _MOST_OBJECTS)
        if (wrong | (references["length"][filled] > sizes[place])).any():
            raise ValueError("a text is longer than its place in the file")
        places[filled] = starts[place]
    return Texts(references, places, path)


def _objects(content: np.ndarray, heaps: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys (of heap i from i * 65536), sorted, places and sizes of the objects of heaps, which are walked at once."""
    size_of_file = len(content)
    if heaps[-1] > size_of_file - base - _HEAP.itemsize:
        raise ValueError("a text has no place in the file")
    at = heaps.astype(np.int64) + base
    heads = _anywhere(content, _HEAP)[at]
    if ((heads["signature"] != b"GCOL") | (heads["version"] != 1)).any():
        raise ValueError("a text has no place in the file")
    ends = at + np.clip(heads["size"], 0, size_of_file)
    if ((heads["size"] < 0) | (ends > np.append(at[1:], size_of_file))).any():
        raise ValueError("a heap of texts is larger than the file, or than its place")
    objects = _anywhere(content, _OBJECT)
    numbers, sizes = objects["number"], objects["size"]
    found: list[tuple[np.ndarray, ...]] = []
    heap, at, last = np.arange(len(at)), at + _HEAP.itemsize, ends - _OBJECT.itemsize
    inside = at <= last
    while count := np.count_nonzero(inside):
        if count < len(at):
            heap, at, last = heap[inside], at[inside], last[inside]
        number, size = numbers[at], sizes[at]
        found.append((heap, number, at, size))
        step = (size + 7 & -8) + _OBJECT.itemsize * (number > 0)  # free room states its own header as well
        if len(found) > _MOST_OBJECTS or np.count_nonzero(step <= 0):
            raise ValueError("a heap of texts is damaged")
        at = at + step
        inside = at <= last
    if not found:
        raise ValueError("a heap of texts is damaged")
    heap, number, at, size = (np.concatenate(part) for part in zip(*found, strict=True))
    if ((size < 0) | (size > ends[heap] - at)).any():
        raise ValueError("a heap of texts is damaged")
    keys = heap * _MOST_OBJECTS + number
    order = np.argsort(keys, kind="stable")
    return keys[order], at[order] + _OBJECT.itemsize, size[order]


def _anywhere(content: np.ndarray, dtype: np.dtype[np.void]) -> np.ndarray:
    """The bytes as a structure that begins at each of them."""
    return np.ndarray((max(0, len(content) - dtype.itemsize + 1),), dtype, content, strides=(1,))


def _check_addresses(file: h5py.File) -> None:
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("addresses of other than 8 bytes are not admitted")


def _references(dataset: h5py.Dataset) -> np.ndarray:
    """The references that the file holds instead of texts, in the shape of the array."""
    _check_addresses(dataset.file)
    if dataset.chunks is None:
        offset, count = dataset.id.get_offset(), math.prod(dataset.shape)
        if not count:  # HDF5 allocates nothing
            return np.zeros(0, REFERENCE)
        if offset is None or offset + count * REFERENCE.itemsize > Path(dataset.file.filename).stat().st_size:
            raise ValueError("texts have to be stored contiguous or in chunks")
        return np.fromfile(dataset.file.filename, REFERENCE, count, offset=offset)
    found = np.zeros(dataset.shape, REFERENCE)
    places: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda piece: places.append(piece.chunk_offset))
    for place in places:
        region = tuple(slice(at, at + step) for at, step in zip(place, dataset.chunks, strict=True))
        within = tuple(slice(0, length) for length in found[region].shape)
        found[region] = _unpacked(dataset, place)[within]
    return found


def _unpacked(dataset: h5py.Dataset, place: tuple[int, ...]) -> np.ndarray:
    skipped, piece = dataset.id.read_direct_chunk(place)
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    size = math.prod(dataset.chunks) * REFERENCE.itemsize
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
