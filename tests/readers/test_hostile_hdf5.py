"""Computational sequences that refer to other files, claim what they do not hold, or would fill memory or time."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsa.data.hdf5_raw import REFERENCE
from mmsa.errors import DataError
from mmsa.readers.sequence_file import SequenceFile
from tests.dataset.corpora import Tiny, tiny_sequences, words, write_corpus
from tests.fuzzing import mutated

Edit = Callable[[h5py.Group, Path], object]
"""Changes the videos of a sequence; the path is that of another file."""
CHUNK = (40, 3)


def replaced(video: h5py.Group, name: str, **stored: object) -> h5py.Dataset:
    del video[name]
    return video.create_dataset(name, **stored)


def linked(link: Callable[[Path], object], place: str = "b/features") -> Edit:
    def edit(data: h5py.Group, other: Path) -> None:
        del data[place]
        data[place] = link(other)

    return edit


def virtual(data: h5py.Group, other: Path) -> None:
    layout = h5py.VirtualLayout(CHUNK, "f4")
    layout[:] = h5py.VirtualSource(str(other), "TINY_Audio/data/b/features", CHUNK)
    del data["b/features"]
    data["b"].create_virtual_dataset("features", layout)


def raw(place: str | None = None) -> Edit:
    """Features that are bytes of another file."""
    return lambda data, other: replaced(
        data["b"], "features", shape=CHUNK, dtype="f4", external=[(place or str(other), 0, 480)]
    )


def piece(content: bytes, *filters: int, chunk: tuple[int, int] = CHUNK) -> Edit:
    """Features of one compressed piece, stored as it is."""

    def edit(data: h5py.Group, other: Path) -> None:
        del data["b/features"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(chunk)
        for code in filters:
            properties.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (9,) if code == h5py.h5z.FILTER_DEFLATE else (1,))
        space = h5py.h5s.create_simple(CHUNK, (h5py.h5s.UNLIMITED, h5py.h5s.UNLIMITED))
        stored = h5py.h5d.create(data["b"].id, b"features", h5py.h5t.IEEE_F32LE, space, properties)
        stored.write_direct_chunk((0, 0), content)

    return edit


def claimed(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Edit:
    return lambda data, other: replaced(data["b"], "features", shape=shape, chunks=chunk, dtype="f4")


DEFLATE, UNKNOWN = h5py.h5z.FILTER_DEFLATE, 32_015
PACKED = zlib.compress(bytes(1 << 25), 9)
FROM_ELSEWHERE: dict[str, tuple[Edit, str]] = {
    "link of a file": (linked(lambda other: h5py.ExternalLink(str(other), "/TINY_Audio/data/b/features")), "is a link"),
    "link of a video": (linked(lambda other: h5py.ExternalLink(str(other), "/TINY_Audio/data/b"), "b"), "b is a link"),
    "link to itself": (linked(lambda _: h5py.SoftLink("/TINY_Audio/data/b/features")), "is a link"),
    "virtual": (virtual, "lies in another file"),
    "bytes of a file": (raw(), "lies in another file"),
    "bytes of a device": (raw("/dev/zero"), "lies in another file"),
    "group in itself": (lambda data, other: (data.pop("b"), data.update({"b": data})), "cannot be read"),
    "array as a video": (linked(lambda _: np.zeros(3), "b"), "a group that holds intervals is required"),
    "group as an array": (linked(lambda _: h5py.Empty("f4")), r"needs intervals"),
    "references": (
        lambda data, _: replaced(data["b"], "features", data=[[data.ref] * 3] * 40, dtype=h5py.ref_dtype),
        "neither numbers nor text",
    ),
    "lists": (
        lambda data, _: replaced(data["b"], "features", shape=(40,), dtype=h5py.vlen_dtype(np.float32)),
        "neither numbers nor text",
    ),
    "terabytes": (claimed((10**9, 1000), (1000, 1000)), "claims 4000000000000 bytes, of which the file holds 0"),
    "more bytes than there are numbers": (claimed((40, 2**40, 2**20), (1, 100, 100)), "claims"),
    "unwritten frames": (claimed((10**8, 3), (10**4, 3)), "claims"),
    "zeros": (
        lambda data, _: replaced(data["b"], "features", data=np.zeros((10**6, 100), "f4"), compression="gzip"),
        "far more memory",
    ),
    "filter that is not here": (piece(b"x" * 300, UNKNOWN), "compressed in a way that HDF5 does not know here"),
    "piece that grows": (piece(PACKED, DEFLATE), "larger than the 480 bytes"),
    "piece that grows within its bounds": (
        piece(zlib.compress(bytes(1 << 27), 1), DEFLATE, chunk=(1 << 10, 100)),
        "larger than the 409600 bytes",
    ),
    "pieces beyond the array": (piece(PACKED, DEFLATE, chunk=(1 << 20, 1000)), "pieces of 4194304000 bytes"),
    "compressed twice": (piece(zlib.compress(PACKED, 9), DEFLATE, DEFLATE), "more than once"),
    "moved after it was compressed": (piece(PACKED, DEFLATE, h5py.h5z.FILTER_SHUFFLE), "more than once"),
}


@pytest.mark.parametrize("name", FROM_ELSEWHERE)
def test_an_array_lies_in_its_own_file_and_is_no_larger(tmp_path: Path, name: str) -> None:
    edit, said = FROM_ELSEWHERE[name]
    other = write_corpus(tmp_path / "other", tiny_sequences())["audio"]
    files = write_corpus(tmp_path / "source", tiny_sequences())
    with h5py.File(files["audio"], "a") as file:
        edit(file["TINY_Audio/data"], other)
    with pytest.raises(DataError, match=said) as refused:
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)
    assert len(str(refused.value).replace(str(tmp_path), "")) < 400
    assert not list((tmp_path / "stores").glob("*.h5"))


@pytest.mark.parametrize("place", ["/TINY_Audio", "/TINY_Audio/data"])
def test_the_groups_lie_in_their_own_file(tmp_path: Path, place: str) -> None:
    other = write_corpus(tmp_path / "other", tiny_sequences())["audio"]
    path = tmp_path / "x.csd"
    with h5py.File(path, "w") as file:
        file[place] = h5py.ExternalLink(str(other), place)
    with pytest.raises(DataError, match="is not a computational sequence"):
        SequenceFile(path)


@pytest.mark.parametrize("content", [np.zeros(3), np.dtype("f4")], ids=["array", "type"])
def test_data_is_a_group(tmp_path: Path, content: object) -> None:
    path = tmp_path / "x.csd"
    with h5py.File(path, "w") as file:
        file["root\x1b/data"] = content
    with pytest.raises(DataError, match=r"is required, got root\\x1b\."):
        SequenceFile(path)


@pytest.mark.parametrize("role", ["words", "audio", "labels"])
def test_intervals_that_all_overlap_are_refused_before_they_are_paired(tmp_path: Path, role: str) -> None:
    sequences, count = tiny_sequences(), 50_000
    times = np.tile([[0.0, 9.0]], (count, 1))
    of_role = {
        "words": np.full((count, 1), b"w"),
        "audio": np.ones((count, 3), "f4"),
        "labels": np.ones((count, 1), "f4"),
    }
    for each in {role, "words"}:
        sequences[each] = {**sequences[each], "b": (times, of_role[each])}
    if role == "words":
        sequences["labels"]["b"] = times, of_role["labels"]
    files = write_corpus(tmp_path / "source", sequences)
    assert sum(path.stat().st_size for path in files.values()) < 10 << 20
    started = time.process_time()
    with pytest.raises(DataError, match="far more memory"):
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)
    assert time.process_time() - started < 5


def test_frames_of_millions_of_features_do_not_fill_the_disk(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    count = 5000
    timed = words(*((float(k), k + 1.0, "w") for k in range(count)))
    sequences["words"]["a"] = timed
    wide = np.zeros((1, 200_000), dtype=np.int8)
    sequences["audio"] = dict.fromkeys("abc", (np.array([[0.0, float(count)]]), wide))
    write_corpus(tmp_path / "source", sequences)
    with pytest.raises(DataError, match="far more memory"):
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)


def with_texts(folder: Path, compression: str | None = None, shuffle: bool = False) -> Path:
    """A corpus whose words are texts of any length."""
    files = write_corpus(folder, tiny_sequences())
    with h5py.File(files["words"], "a") as file:
        for video in file["TINY_Words/data"].values():
            texts = [[token.decode() or "é"] for token in video["features"][:, 0]]
            replaced(
                video, "features", data=texts, dtype=h5py.string_dtype(), compression=compression, shuffle=shuffle,
                chunks=(2, 1) if compression else None,
            )  # fmt: skip
    return files["words"]


@pytest.mark.parametrize(("compression", "shuffle"), [(None, False), ("gzip", False), ("gzip", True)])
def test_words_may_have_any_length(tmp_path: Path, compression: str | None, shuffle: bool) -> None:
    path = with_texts(tmp_path, compression, shuffle)
    with SequenceFile(path) as sequence:
        assert sequence.read("b")[1][:, 0].tolist() == [b"very", b"sp", b"good", b"not", b"bad"]


def test_texts_are_as_long_as_their_place_and_their_heap_ends(tmp_path: Path) -> None:
    path = with_texts(tmp_path)
    with h5py.File(path, "r") as file:
        reference = file["TINY_Words/data/b/features"].id.get_offset()
    whole = path.read_bytes()
    heap = int.from_bytes(whole[reference + 4 : reference + 12], "little")
    for place, content, said in (
        (reference, b"\xff\xff\xff\xff", "longer than its place"),
        (reference, b"\x09\0\0\0", "longer than its place"),
        (reference + 4, b"\1\0\0\0\0\0\0\0", "no place in the file"),
        (reference + 4, b"\xff" * 8, "no place in the file"),
        (reference + 12, b"\xee\0\0\0", "longer than its place"),
        (heap + 8, b"\xff" * 8, "larger than the file"),
        (heap + 16, bytes(16), "heap of texts is damaged"),
        (heap + 24, b"\xf0" + b"\xff" * 7, "heap of texts is damaged"),
    ):
        path.write_bytes(whole[:place] + content + whole[place + len(content) :])
        with SequenceFile(path) as sequence, pytest.raises(DataError, match=said):
            sequence.read("b")


def test_one_long_text_is_not_mentioned_without_end(tmp_path: Path) -> None:
    path = write_corpus(tmp_path, tiny_sequences())["words"]
    count = 20_000
    with h5py.File(path, "a") as file:
        video = file["TINY_Words/data/b"]
        texts = replaced(video, "features", shape=(count, 1), dtype=h5py.string_dtype(), chunks=(count, 1))
        texts[0, 0] = "y" * 60_000
        texts.id.write_direct_chunk((0, 0), texts.id.read_direct_chunk((0, 0))[1][:16] * count)
    with SequenceFile(path) as sequence, pytest.raises(DataError, match="far more memory"):
        sequence.read("b")


def test_a_word_with_a_zero_character_is_refused(tmp_path: Path) -> None:
    sequences = tiny_sequences()
    sequences["words"]["b"] = words((0.0, 1.0, "a\0b"))
    write_corpus(tmp_path / "source", sequences)
    with pytest.raises(DataError, match="a word of b holds a zero character"):
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)


@pytest.mark.parametrize("count", [30, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_damaged_sequence_is_read_or_refused(tmp_path: Path, count: int) -> None:
    with_texts(tmp_path / "source", "gzip", shuffle=True)
    files = sorted((tmp_path / "source").iterdir())
    whole = {path: path.read_bytes() for path in files}
    rng, refused = np.random.default_rng(0), 0
    for i in range(count):
        path = files[i % len(files)]
        changed = bytearray(whole[path])
        if i % 2:
            changed = bytearray(mutated(whole[path], rng))
        else:  # where it is not empty: most of HDF5 is
            filled = np.flatnonzero(np.frombuffer(whole[path], np.uint8))
            changed[int(rng.choice(filled))] = int(rng.integers(0, 256))
        path.write_bytes(changed)
        try:
            Tiny(str(tmp_path / "source")).prepare(tmp_path / f"stores{i}", progress=False)
        except DataError as error:
            assert len(str(error).splitlines()) <= 6
            refused += 1
        path.write_bytes(whole[path])
    assert refused > count / 8


def test_texts_are_paid_for_before_they_are_looked_at(tmp_path: Path) -> None:
    path, chunk, count = tmp_path / "evil.csd", 1 << 18, 64
    nothing = zlib.compress(bytes(REFERENCE.itemsize * chunk), 9)
    with h5py.File(path, "w") as file:
        group = file.create_group("W/data/a")
        group["intervals"] = np.array([[0, 1.0]])
        words = group.create_dataset("features", (count * chunk,), h5py.string_dtype(), chunks=(chunk,), compression=9)
        for place in range(count):
            words.id.write_direct_chunk((place * chunk,), nothing)
    tracemalloc.start()
    with SequenceFile(path) as sequence, pytest.raises(DataError, match="far more memory"):
        sequence.read("a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
