"""Plain containers and numpy arrays come out of a pickle as they were; a damaged one is a clear error."""

from __future__ import annotations

import collections
import pickle
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsa.errors import DataError
from mmsa.readers.restricted_pickle import load_pickle


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
    "long": np.arange(3000.0),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_as_they_were(tmp_path: Path, name: str, protocol: int) -> None:
    array = ARRAYS[name]
    path = dumped(tmp_path / "x.pkl", array, protocol)
    loaded = np.asarray(load_pickle(path))
    assert type(loaded) is np.ndarray
    assert loaded.dtype == pickle.loads(path.read_bytes()).dtype  # numpy itself turns foreign byte orders round
    np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
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


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_objects_keep_their_places(tmp_path: Path, order: str) -> None:
    array = np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object, order="F" if order == "F" else "C")
    np.testing.assert_array_equal(np.asarray(load_pickle(dumped(tmp_path / "x.pkl", array))), array)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(codec="utf-8")) | st.integers(0, 300), inner)
        | st.frozensets(st.integers(-5, 70000))
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=PLAIN, protocol=st.integers(0, 5), shortened=st.booleans())
def test_plain_data_of_every_protocol_come_back(
    tmp_path: Path, content: object, protocol: int, shortened: bool
) -> None:
    written = pickle.dumps(content, protocol)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickletools.optimize(written) if shortened else written)
    assert load_pickle(path) == content


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_dictionaries_with_a_default_come_back_without_it(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("create_dataset")
    exec("def return_unk():\n    return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "create_dataset", module)
    content = [collections.defaultdict(int, a=1), collections.defaultdict(module.return_unk, a=2)]
    path = dumped(tmp_path / "x.pkl", content, protocol)
    monkeypatch.delitem(sys.modules, "create_dataset")
    loaded = load_pickle(path)
    assert loaded == [{"a": 1}, {"a": 2}]
    assert isinstance(loaded, list) and all(type(part) is dict for part in loaded)
    assert "create_dataset" not in sys.modules


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0], dtype="<f4")
    escaped = "".join(f"\\x{byte:02x}" for byte in values.tobytes()).encode()
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
    kind = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    path = tmp_path / "x.pkl"
    path.write_bytes(b"(dS'x'\n" + head + kind + b"I00\nS'" + escaped + b"'\ntbsS'id'\nS'caf\\xe9'\ns.")
    loaded = load_pickle(path)
    assert isinstance(loaded, dict) and loaded["id"] == "caf\xe9"
    np.testing.assert_array_equal(np.asarray(loaded["x"]), values)


def test_halves_of_characters_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(b"(V\\ud83d\\ude00\nV\\ud800 and more\nt.")
    assert load_pickle(path) == ("\U0001f600", "\ufffd and more")


@pytest.mark.parametrize("make", [list, tuple])
def test_what_is_mentioned_a_few_times_is_read(tmp_path: Path, make: Callable[[list[np.ndarray]], object]) -> None:
    array = np.arange(2000.0)
    loaded = load_pickle(dumped(tmp_path / "x.pkl", make([array] * 20)))
    assert isinstance(loaded, list | tuple) and loaded[0] is loaded[19]
    np.testing.assert_array_equal(loaded[0], array)
