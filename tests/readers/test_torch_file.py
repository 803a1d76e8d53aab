"""Torch's files come out as arrays, in both of its formats, and what is not data is refused and not run."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mmsa.errors import DataError
from mmsa.readers.torch_file import load_torch
from tests.readers.test_hostile_pickles import MANIFOLD, Calls, short, whole

ZIP = pytest.mark.parametrize("present", [True, False], ids=["present", "old"])


def saved(path: Path, content: object, present: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=present)
    return path


@ZIP
def test_vectors_and_the_table_of_words_come_back(
    tmp_path: Path, present: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("create_dataset")
    exec("def return_unk():\n    return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "create_dataset", module)
    words: collections.defaultdict[str, int] = collections.defaultdict(module.return_unk, {"<unk>": 0, "film": 1})
    vectors = torch.arange(12.0).reshape(2, 6)
    path = saved(tmp_path / "x.pt", (vectors, words), present)
    monkeypatch.delitem(sys.modules, "create_dataset")
    loaded = load_torch(path)
    assert isinstance(loaded, tuple) and type(loaded[0]) is np.ndarray
    np.testing.assert_array_equal(loaded[0], vectors.numpy())
    assert loaded[1] == {"<unk>": 0, "film": 1}


@ZIP
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool])
def test_numbers_of_every_kind_and_views_come_back(tmp_path: Path, present: bool, kind: torch.dtype) -> None:
    whole = torch.tensor([[1, 0, 1], [0, 1, 1]]).to(kind)
    content = {
        "whole": whole,
        "row": whole[1],
        "other": torch.ones(4),
        "none": whole[:0],
        "no numbers": torch.ones(0),
        "one": torch.tensor(2.0),
    }
    loaded = load_torch(saved(tmp_path / "x.pt", content, present))
    assert isinstance(loaded, dict)
    for name, tensor in content.items():
        np.testing.assert_array_equal(loaded[name], tensor.numpy())
        assert loaded[name].dtype == tensor.numpy().dtype


@ZIP
def test_a_call_is_named_and_not_made(tmp_path: Path, present: bool) -> None:
    made = tmp_path / "made"
    path = saved(tmp_path / "x.pt", (torch.ones(2), Calls(os.system, f"touch {made}")), present)
    with pytest.raises(DataError, match=r"posix\.system"):
        load_torch(path)
    assert not made.exists()


@ZIP
def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path: Path, present: bool) -> None:
    path = saved(tmp_path / "x.pt", torch.ones(1).expand(100_000, 100_000), present)
    with pytest.raises(DataError, match="larger than its numbers"):
        load_torch(path)
    saved(path, torch.ones(3, 2).t(), present)
    with pytest.raises(DataError, match="contiguous"):
        load_torch(path)


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "a key of type tuple"),
        (b"\x80\x02X" + struct.pack("<I", 1 << 26) + bytes(1 << 26) + b".", "compressed"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "objects would be larger"),
        (b"\x80\x02cos\nsystem\n.", "os.system"),
        (b"\x80\x02X\x02\x00\x00\x00idQ.", "storage is damaged"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + b"N" * 1000 + b"tR.", "1001 were given"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + b"N" * 1000 + b"tR.", "1001 were given"),
    ],
)
def test_hostile_archives_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    compression = zipfile.ZIP_DEFLATED if said == "compressed" else zipfile.ZIP_STORED
    with pytest.raises(DataError, match=said):
        load_torch(archive(tmp_path / "x.pt", content, compression))


def storage(key: str = "0") -> bytes:
    """The instructions of ten float32 that lie elsewhere."""
    kind = b"ctorch\nFloatStorage\n"
    return b"(" + short("storage") + kind + short(key) + short("cpu") + b"K\x0atQ"


def tensor(offset: int, shape: bytes, stride: bytes, key: str = "0") -> bytes:
    """The instructions of a view of them."""
    start = b"\x8a\x08" + struct.pack("<q", offset)
    head, tail = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(", b"\x89ccollections\nOrderedDict\n)RtR."
    return head + storage(key) + start + shape + stride + tail


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tensor(0, whole(-2, -5), whole(5, 1)), "a tensor is damaged"),
        (tensor(-4, whole(2), whole(1)), "a tensor is damaged"),
        (tensor(8, whole(4), whole(1)), "larger than its numbers"),
        (tensor(0, whole(2, 2), whole(1000, 1)), "no contiguous block"),
        (tensor(0, whole(2, 2), whole(2)), "a tensor is damaged"),
        (tensor(0, whole(*[2**62] * 100_000), whole(*[1] * 100_000)), "a tensor is damaged"),
        (tensor(0, whole(2), whole(1), key="../../../../etc/passwd"), "no item named"),
    ],
)
def test_a_tensor_lies_within_its_numbers(tmp_path: Path, content: bytes, said: str) -> None:
    path = archive(tmp_path / "x.pt", content)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", bytes(40))
    with pytest.raises(DataError, match=said):
        load_torch(path)


def test_numbers_that_are_mentioned_often_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "x.pt", b"\x80\x02(" + storage()[:-1] + b"q\x00Q0" + b"h\x00Q0" * 500 + b"t.")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/data/0", bytes(40))
    read, names = zipfile.ZipFile.read, []

    def noted(file: zipfile.ZipFile, name: str) -> bytes:
        names.append(name)
        return read(file, name)

    monkeypatch.setattr(zipfile.ZipFile, "read", noted)
    assert load_torch(path) == ()
    assert names == ["archive/data.pkl", "archive/data/0"]


OLD_START = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (b")" + b"\x85" * 90_000, "nested more than"),
        (b"]q\x01" + b"](h\x01h\x01eq\x01" * 60, "far more memory"),
        (b"K\x00", "none of those that are mentioned"),
        (short("0"), "none of those that are mentioned"),
    ],
    ids=["deep", "wide", "number", "unknown"],
)
def test_keys_of_the_old_format_are_texts_that_are_mentioned(tmp_path: Path, key: bytes, said: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(OLD_START + b"N." + b"](" + key + b"e." + bytes(64))
    with pytest.raises(DataError, match=said):
        load_torch(path)


ONE = pickle.dumps(["0"], 2) + struct.pack("<q", 10) + bytes(40)
"""The numbers of one storage in the old format."""


@pytest.mark.parametrize(
    ("described", "numbers", "said"),
    [
        (storage(), pickle.dumps([], 2), "are missing"),
        (storage(), pickle.dumps(["0"], 2), "too early"),
        (storage(), ONE[:-1], "too early"),
        (storage(), pickle.dumps(["0"], 2) + struct.pack("<q", 9) + bytes(40), "too early"),
        (storage(), pickle.dumps(["0", "0"], 2) + ONE[-48:] * 2, "none of those that are mentioned"),
        (storage().replace(b"K\x0at", b"J\xf6\xff\xff\xfft"), ONE, "damaged"),
        (storage().replace(b"K\x0at", b"J\xff\xff\xff\x7ft"), ONE, "far more memory"),
        (MANIFOLD + storage().replace(b"ctorch\nFloatStorage\n", b"h\x14"), ONE, "damaged"),
    ],
)
def test_storages_of_the_old_format_are_there_as_described(
    tmp_path: Path, described: bytes, numbers: bytes, said: str
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(OLD_START + described + b"0N." + ONE)
    if described == storage():
        assert load_torch(path) is None
    path.write_bytes(OLD_START + described + b"0N." + numbers)
    with pytest.raises(DataError, match=said):
        load_torch(path)


@ZIP
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, present: bool) -> None:
    path = saved(tmp_path / "x.pt", (torch.arange(6.0).reshape(2, 3), {"a": 0, "b": 1}), present)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for place in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(0, len(whole)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged if place % 3 else damaged[: int(rng.integers(0, len(whole)))])
        try:
            load_torch(path)
        except DataError as error:
            assert len(str(error).replace(str(path), "").splitlines()) == 1
            refused += 1
    assert refused > 100
