"""Files of named arrays, and stores given as a source, that are damaged or made to harm."""

from __future__ import annotations

import io
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsa.data.store import Store
from mmsa.dataset.custom import Custom
from mmsa.errors import DataError
from tests.dataset.corpora import Tiny, tiny_sequences, write_corpus
from tests.dataset.test_custom import arrays, hdf5, npz
from tests.fuzzing import mutations


def prepare(path: Path) -> Store:
    return Custom(str(path)).settled().prepare(path.parent / "stores", progress=False)


def with_header(shape: str, descr: str = "'<f8'", more: str = "") -> bytes:
    """An .npy of nothing but this header."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{more}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


MEMBERS: dict[str, tuple[str, bytes, str]] = {
    "a call": ("features/x.npy", with_header("__import__('os').system('touch made')"), "cannot be read as arrays"),
    "brackets without end": ("features/x.npy", with_header("(" * 3000), "cannot be read as arrays"),
    "lists in lists": ("features/x.npy", with_header("(2,)", "[" * 90 + "]" * 90), "cannot be read as arrays"),
    "no axis after the other": ("features/x.npy", with_header("(" + "1," * 2000 + ")"), "x has 2000 axes"),
    "negative axes": ("features/x.npy", with_header("(-3, -1, 2)"), "no shape of numpy's"),
    "digits": ("features/x.npy", with_header(f"({'9' * 5000},)"), "cannot be read as arrays"),
    "objects": ("features/x.npy", with_header("(3,)", "'|O'"), "features/x"),
    "nothing without end": ("features/x.npy", with_header("(99999999999,)", "'|V0'"), "features/x"),
    "no array": ("readme.txt", b"read me", "readme.txt is no array"),
    "folder": ("features/", b"", "features/ is no array"),
    "second of its name": ("target.npy", array_bytes(np.zeros(12)), "two of its name"),
    "second, of another name": ("target", array_bytes(np.zeros(12)), "target is no array"),
    "absolute": ("/etc/x.npy", array_bytes(np.zeros(12)), "the array /etc/x is none of"),
    "above": ("../../x.npy", array_bytes(np.zeros(12)), "the array ../../x is none of"),
    "that moves the cursor": (
        "f\x1b[2J" + "y" * 9000 + ".npy",
        array_bytes(np.zeros(12)),
        r"the array f\\x1b\[2Jy+ is",
    ),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_is_no_array_is_refused_in_two_lines(tmp_path: Path, name: str) -> None:
    member, content, said = MEMBERS[name]
    path = npz(tmp_path / "own", arrays())
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "a") as archive:  # names that are twice
        archive.writestr(member, content)
    with pytest.raises(DataError, match=said) as refused:
        prepare(path)
    assert len(str(refused.value).splitlines()) == 2
    assert len(str(refused.value).replace(str(tmp_path), "")) < 600
    assert {place.suffix for place in tmp_path.rglob("*") if place.is_file()} <= {".npz", ".json", ".lock"}


def large(path: Path) -> Path:
    np.savez_compressed(path, **arrays(), **{"features/x": np.zeros((12, 10**5, 40)), "lengths/x": np.full(12, 3)})
    return path


def large_hdf5(path: Path) -> Path:
    path = hdf5(path, arrays())
    with h5py.File(path, "a") as file:
        for name in "abcdefgh":
            file[f"lengths/{name}"] = np.full(12, 3)
            stored = {"data": np.zeros((12, 10**4, 100), "f4"), "compression": "gzip", "chunks": (12, 1000, 100)}
            file.create_dataset(f"features/{name}", **stored)
    return path


@pytest.mark.parametrize("write", [large, large_hdf5])
def test_all_arrays_together_are_in_proportion_to_the_file(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path / "own.npz")
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match="far more memory"):
        prepare(path)


def test_another_compression_than_numpy_s_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays().items():
            archive.writestr(f"{name}.npy", array_bytes(array))
    with pytest.raises(DataError, match="compressed in another way"):
        prepare(path)


@pytest.mark.parametrize("dtype", ["u8", "u1", "i1"])
def test_offsets_that_fall_are_refused_in_every_type(tmp_path: Path, dtype: str) -> None:
    falling = np.array([0, 100, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 24])
    falling[2] = -100 if dtype == "i1" else 3  # the differences of either wrap round
    with pytest.raises(DataError, match="whole numbers from 0 to 24 that never fall"):
        prepare(npz(tmp_path / "own", arrays() | {"offsets/gaze": falling.astype(dtype)}))


@pytest.mark.parametrize(("text", "said"), [("a\0b", "zero character"), ("\ud800", "surrogates not allowed")])
def test_text_that_no_store_can_hold_is_refused(tmp_path: Path, text: str, said: str) -> None:
    ids = np.array([f"{text}{row}" for row in range(12)])
    with pytest.raises(DataError, match=said):
        prepare(npz(tmp_path / "own", arrays() | {"id": ids}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_corpus(folder / "source", tiny_sequences())
    return Tiny(str(folder / "source")).prepare(folder / "stores", progress=False).path


def replaced(place: str, **stored: object) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[place]
        file.create_dataset(place, **stored)

    return edit


def set_at(place: str, row: int, value: float) -> Callable[[h5py.File], None]:
    return lambda file: file[place].__setitem__(row, value)


TEXT = h5py.string_dtype()
DAMAGED: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "ids elsewhere": (
        lambda file: (file.pop("ids"), file.update({"ids": h5py.ExternalLink("other.h5", "/ids")})),
        "ids is a link",
    ),
    "version": (lambda file: file.attrs.update(schema_version=np.zeros(3)), "damaged store"),
    "older": (lambda file: file.attrs.update(schema_version=0), "schema version 0"),
    "no dataset": (lambda file: file.attrs.pop("dataset"), "damaged store"),
    "numbers as ids": (replaced("ids", data=np.zeros(6)), "damaged store"),
    "too few ids": (replaced("ids", data=["a"], dtype=TEXT), "ids, videos and folds do not fit"),
    "another fold": (replaced("folds", data=["dev"] * 6, dtype=TEXT), "damaged store"),
    "folds in disorder": (
        replaced("folds", data=["test"] * 2 + ["train"] * 2 + ["valid"] * 2, dtype=TEXT),
        "do not fit",
    ),
    "labels as text": (replaced("targets/sentiment", data=[b"good"] * 6), "targets/sentiment is "),
    "too few labels": (replaced("targets/sentiment", data=np.zeros(3, "f4")), "target sentiment"),
    "terabytes": (replaced("targets/sentiment", shape=(10**12,), chunks=(10**6,), dtype="f4"), "claims"),
    "offset beyond": (set_at("features/audio/offsets", 3, 10**9), "features of audio and their offsets"),
    "offset below 0": (set_at("features/audio/offsets", 3, -5), "features of audio and their offsets"),
    "offset of words beyond": (set_at("words/offsets", 3, 10**9), "its words"),
    "step without width": (
        replaced("features/audio/values", data=np.zeros(12, "f4")),
        "features/audio/values is float32",
    ),
    "doubles": (replaced("features/audio/values", data=np.zeros((12, 3))), "features/audio/values is float64"),
    "compressed": (replaced("features/audio/values", data=np.zeros((12, 3), "f4"), compression="gzip"), "in one piece"),
    "not finite": (set_at("features/audio/values", 3, np.nan), "audio holds values that are not finite"),
    "no report": (replaced("report", data="[]", dtype=TEXT), "damaged store"),
    "another report": (replaced("report", data='{"dropped": 1}', dtype=TEXT), "its report"),
    "lists in lists": (replaced("report", data="[" * 100_000, dtype=TEXT), "damaged store"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_store_is_no_source_and_is_not_to_be_removed(tmp_path: Path, made: Path, name: str) -> None:
    edit, said = DAMAGED[name]
    path = shutil.copy(made, tmp_path / "own.h5")
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(DataError, match=said) as refused:
        prepare(path)
    assert "rm " not in str(refused.value) and str(refused.value).splitlines()[1].startswith("  type dataset.source=")


@pytest.mark.parametrize("count", [80, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_damaged_npz_is_read_or_refused(tmp_path: Path, count: int) -> None:
    path = npz(tmp_path / "own", arrays())
    refused = 0
    for i, changed in enumerate(mutations(path.read_bytes(), count, seed=0)):
        path.write_bytes(changed)
        try:
            Custom(str(path)).settled().prepare(tmp_path / f"stores{i}", progress=False)
        except DataError as error:
            assert len(str(error).splitlines()) <= 4
            refused += 1
    assert refused > count / 3
