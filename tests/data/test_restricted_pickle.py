"""Only plain containers and numpy arrays come out of a pickle; everything else is named and never run."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.readers.restricted_pickle import load_pickle
from mmsa.errors import DataError


class Calls:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def dumped(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


ARRAYS = {
    "float32": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "big endian": np.arange(3, dtype=">f8"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::3],
    "strings": np.array(["a", "längere"]),
    "bytes": np.array([[b"sp"], [b"word"]]),
    "bool": np.array([True, False]),
    "no dimension": np.array(3.5),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "float16": np.array([1.5], dtype=np.float16),
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_as_they_were(tmp_path: Path, name: str, protocol: int) -> None:
    array = ARRAYS[name]
    path = dumped(tmp_path / "x.pkl", array, protocol)
    loaded = np.asarray(load_pickle(path))
    assert type(loaded) is np.ndarray
    assert loaded.dtype == pickle.loads(path.read_bytes()).dtype  # numpy itself turns foreign byte orders round
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_containers_numbers_and_arrays_of_objects_come_back(tmp_path: Path, protocol: int) -> None:
    objects = np.empty((2, 2), dtype=object)
    objects[:] = [["a", None], [[1, 2], {"k": 3}]]
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list, x=[1])
    content = {
        "n": 1,
        "t": (1.5, b"x", True),
        "o": collections.OrderedDict(a=1),
        "d": counts,
        "s": {1, 2},
        "f": np.float32(0.1),
    }
    loaded = load_pickle(dumped(tmp_path / "x.pkl", {**content, "objects": objects}, protocol))
    assert isinstance(loaded, dict)
    assert np.asarray(loaded.pop("objects")).tolist() == objects.tolist()
    assert loaded == content


def test_the_shared_pickle_of_an_older_numpy_loads(mmsa_pickle: Path) -> None:
    loaded = load_pickle(mmsa_pickle)
    assert isinstance(loaded, dict)
    assert list(loaded) == ["train", "valid", "test"]


def test_the_older_and_the_newer_module_names_of_numpy_are_the_same(tmp_path: Path) -> None:
    for protocol in (3, 4, 5):
        content = pickletools.optimize(pickle.dumps(np.arange(3.0), protocol=3))
        assert b"numpy._core.multiarray" in content
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        np.testing.assert_array_equal(np.asarray(load_pickle(path)), np.arange(3.0))


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "(os|posix|nt).system"), (subprocess.getoutput, "subprocess.getoutput"), (eval, "builtins.eval")],
)
@pytest.mark.parametrize("inside", ["alone", "array", "nested"])
def test_a_call_is_named_and_not_made(tmp_path: Path, function: object, name: str, inside: str) -> None:
    made = tmp_path / "made"
    argument = f"open({str(made)!r}, 'w').close()" if function is eval else f"touch {made}"
    call = Calls(function, argument)
    content = {"alone": call, "array": np.array([call, None], dtype=object), "nested": {"train": [{"text": call}]}}[
        inside
    ]
    with pytest.raises(DataError, match=name):
        load_pickle(dumped(tmp_path / "x.pkl", content))
    assert not made.exists()


@pytest.mark.parametrize(
    "function", [getattr, np.load, np.fromfile, np.frombuffer, np.memmap, print, collections.Counter]
)
def test_nothing_else_is_admitted_even_from_numpy(tmp_path: Path, function: object) -> None:
    with pytest.raises(DataError, match="was not loaded"):
        load_pickle(dumped(tmp_path / "x.pkl", Calls(function)))


@pytest.mark.parametrize(
    "content",
    [
        Calls(np.ndarray, (2,), np.dtype("O"), b"\1" * 16),
        Calls(np.ndarray, (2,)),
        Calls(np.dtype, [("field", "O")]),
        Calls(np.dtype, "O,O"),
        Calls(np.ndarray((0,)).__reduce__()[0], np.dtype, (0,), b"b"),
    ],
)
def test_arrays_that_would_read_memory_of_their_choice_are_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError):
        load_pickle(dumped(tmp_path / "x.pkl", content))


def test_an_array_of_objects_over_raw_bytes_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(np.zeros(1), protocol=3)
    assert content.count(b"f8") == 1
    path = tmp_path / "x.pkl"
    path.write_bytes(content.replace(b"f8", b"O8"))
    with pytest.raises(DataError, match="array of objects"):
        load_pickle(path)


@pytest.mark.parametrize("keep", [1, 10, 50, 200, -1])
def test_a_pickle_that_is_cut_short_is_one_clear_error(tmp_path: Path, keep: int) -> None:
    path = dumped(tmp_path / "x.pkl", {"a": np.arange(100.0), "b": ["text"] * 3})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="download it again"):
        load_pickle(path)


def test_an_empty_file_and_random_bytes_are_clear_errors(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        load_pickle(path)
    rng = np.random.default_rng(0)
    for _ in range(300):
        path.write_bytes(b"\x80\x04" + rng.bytes(200))
        with pytest.raises(DataError):
            load_pickle(path)


def test_every_flipped_byte_of_an_array_gives_an_error_or_a_value(tmp_path: Path) -> None:
    whole = pickle.dumps({"id": np.array(["a", "b"], dtype=object), "x": np.arange(4.0)}, protocol=4)
    path = tmp_path / "x.pkl"
    for position in range(2, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x11
        path.write_bytes(damaged)
        try:
            load_pickle(path)
        except DataError as error:
            assert str(path) in str(error)
