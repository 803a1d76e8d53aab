"""HDF5 that others hand over: it is read, or refused in a few lines, and nothing else happens."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmsa.data.prepare import build_once
from mmsa.data.store import Store, is_store
from mmsa.errors import DataError
from tests.conftest import ROOT
from tests.data.test_store import prepared, write

FORMER = next((ROOT / "tests" / "former" / "outputs" / "data").glob("*.h5"))
VALUES, OFFSETS, SHAPE = "features/audio/values", "features/audio/offsets", (11, 2)
TEXT = h5py.string_dtype()
SECRET = "canary"
Edit = Callable[[h5py.File, Path], object]
"""Changes a store; the path is that of another HDF5 file with the same arrays."""


def stored(place: str, **content: Any) -> Edit:
    """An array in the place of another."""

    def edit(file: h5py.File, other: Path) -> None:
        del file[place]
        file.create_dataset(place, **content)

    return edit


def linked(place: str, link: Callable[[h5py.File, Path], object]) -> Edit:
    def edit(file: h5py.File, other: Path) -> None:
        target = link(file, other)
        del file[place]
        file[place] = target

    return edit


def of_type(kind: h5py.h5t.TypeID, compact: bool = False) -> Edit:
    """Values of a type or layout that h5py does not write by itself."""

    def edit(file: h5py.File, other: Path) -> None:
        del file[VALUES]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.COMPACT if compact else h5py.h5d.CONTIGUOUS)
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file["features/audio"].id, b"values", kind, space, properties)

    return edit


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[...] = h5py.VirtualSource(str(other), VALUES, SHAPE)
    del file[VALUES]
    file.create_virtual_dataset(VALUES, layout)


def state(**attributes: object) -> Edit:
    return lambda file, other: file.attrs.update(attributes)


def odd_float() -> h5py.h5t.TypeID:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(20)
    return kind


def nested(depth: int = 2000) -> h5py.h5t.TypeID:
    kind = h5py.h5t.IEEE_F32LE
    for _ in range(depth):
        kind = h5py.h5t.array_create(kind, (1,))
    return kind


NO_VALUES = rf"{VALUES} (is|holds)"
BENT: dict[str, tuple[Edit, str]] = {
    "texts as values": (stored(VALUES, data=[[b"a" * 8] * 2] * 11, dtype=TEXT), NO_VALUES),
    "lists as values": (stored(VALUES, shape=SHAPE, dtype=h5py.vlen_dtype(np.dtype("f4"))), NO_VALUES),
    "references as values": (stored(VALUES, shape=SHAPE, dtype=h5py.ref_dtype), NO_VALUES),
    "records as values": (stored(VALUES, shape=SHAPE, dtype=[("a", "f4")]), NO_VALUES),
    "doubles as values": (stored(VALUES, data=np.ones(SHAPE)), NO_VALUES),
    "values of the other byte order": (stored(VALUES, data=np.ones(SHAPE, ">f4")), NO_VALUES),
    "floats of a kind of their own": (of_type(odd_float()), NO_VALUES),
    "types in types": (of_type(nested()), NO_VALUES),
    "values without a shape": (stored(VALUES, data=h5py.Empty("f4")), NO_VALUES),
    "values without width": (stored(VALUES, shape=(11, 0), dtype="f4"), "the features of audio"),
    "values of one axis": (stored(VALUES, data=np.ones(22, "f4")), NO_VALUES),
    "fewer values": (stored(VALUES, data=np.ones((10, 2), "f4")), "the features of audio"),
    "values packed": (stored(VALUES, data=np.ones(SHAPE, "f4"), compression="gzip"), "not in one piece"),
    "values in pieces": (stored(VALUES, data=np.ones(SHAPE, "f4"), chunks=(2, 2)), "not in one piece"),
    "values in the header": (of_type(h5py.h5t.IEEE_F32LE, compact=True), "not in one piece"),
    "values never written": (stored(VALUES, shape=(2**33, 2**33), dtype="f4"), "claims"),
    "few values never written": (stored(VALUES, shape=SHAPE, dtype="f4"), "not wholly in the file"),
    "values of another file": (
        lambda file, other: stored(VALUES, shape=SHAPE, dtype="f4", external=[(str(other), 0, 88)])(file, other),
        "lies in another file",
    ),
    "values of another file, virtually": (virtual, "lies in another file"),
    "a link to another file": (linked(VALUES, lambda _, other: h5py.ExternalLink(str(other), VALUES)), "is a link"),
    "a link to a group of another file": (
        linked("features", lambda _, other: h5py.ExternalLink(str(other), "features")),
        "features is a link",
    ),
    "a link to words of another file": (
        linked("words", lambda _, other: h5py.ExternalLink(str(other), "words")),
        "words is a link",
    ),
    "a link within": (linked(VALUES, lambda *_: h5py.SoftLink("/features/text/values")), "is a link"),
    "one array twice": (linked(VALUES, lambda file, _: file["features/text/values"]), "the same bytes"),
    "a group in itself": (lambda file, _: file["features"].update(text2=file["/"]), "too deep"),
    "a type for an array": (linked(VALUES, lambda *_: np.dtype("f4")), "values is no array"),
    "offsets that fall": (stored(OFFSETS, data=[0, 9, 4, 11]), "the features of audio"),
    "offsets beyond": (stored(OFFSETS, data=[0, 3, 4, 2**62]), "the features of audio"),
    "offsets from elsewhere": (stored(OFFSETS, data=[-(2**62), 3, 4, 11]), "the features of audio"),
    "offsets of 4 bytes": (stored(OFFSETS, data=np.array([0, 3, 4, 11], "i4")), f"{OFFSETS} is int32"),
    "offsets that are fractions": (stored(OFFSETS, data=[0, 3.0, 4, 11]), f"{OFFSETS} is float64"),
    "offsets of more rows": (stored(OFFSETS, data=[0, 3, 4, 5, 11]), "the features of audio"),
    "no offsets": (lambda file, _: file.pop(OFFSETS), f"it has no {OFFSETS}"),
    "no ids": (lambda file, _: file.pop("ids"), "it has no ids"),
    "no target": (lambda file, _: file["targets"].clear(), "it has no target"),
    "words without offsets": (lambda file, _: file.pop("words/offsets"), "it has no words/offsets"),
    "words of other rows": (stored("words/offsets", data=[0, 3, 4, 11]), "its words"),
    "folds of rows that are not": (stored("folds", data=["train"] * 4, dtype=TEXT), "ids, videos and folds"),
    "an unknown fold": (stored("folds", data=["train", "dev", "test"], dtype=TEXT), "ids, videos and folds"),
    "ids that are numbers": (stored("ids", data=np.arange(3)), "ids is int64"),
    "ids in a table": (stored("ids", data=[["a", "b", "c"]], dtype=TEXT), "ids is object"),
    "a target of other rows": (stored("targets/sentiment", data=np.ones(4, "f4")), "the target sentiment"),
    "a name that clears the screen": (lambda f, _: f.move("targets/sentiment", "targets/\x1b[2J"), "is no part"),
    "another array": (lambda file, _: file.update(notes=np.ones(3)), "notes is no part of a store"),
    "a report that is a list": (stored("report", data="[]", dtype=TEXT), "a table is required"),
    "a report without end": (stored("report", data="[" * 100_000, dtype=TEXT), "recursion"),
    "half a character": (stored("report", data='{"a": "\\ud800"}', dtype=TEXT), "surrogates not allowed"),
    "a report of other kinds": (stored("report", data='{"files": [1]}', dtype=TEXT), "one of ours: files"),
    "a report without a range": (
        stored("report", data='{"beyond_nominal": {"count": 1, "nominal_range": [1], "largest": 2}}', dtype=TEXT),
        "one of ours: beyond_nominal",
    ),
    "no data set": (lambda file, _: file.attrs.pop("dataset"), "it states no dataset"),
    "a data set that clears the screen": (state(dataset="\x1b[2J"), "not named as ours"),
    "sources that are a list": (state(sources="[]"), "a table is required"),
    "sources that are numbers": (state(sources='{"a": 1}'), "not named as ours"),
    "options that are references": (lambda file, _: file.attrs.update(options=file.ref), "it states no options"),
    "large options": (state(options=np.zeros(7000)), "it states no options"),
    "versions": (state(schema_version=np.ones(3, "i8")), "schema version is no number"),
    "a version in words": (state(schema_version="1"), "schema version is no number"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "s.h5"
    write(path, replace(prepared(), report={"dropped": {}}))
    return path.read_bytes()


@pytest.mark.parametrize("name", BENT)
def test_a_bent_store_is_named_and_refused_in_two_lines(tmp_path: Path, whole: bytes, name: str) -> None:
    edit, said = BENT[name]
    path, other = tmp_path / "s.h5", tmp_path / SECRET
    for each in (path, other):
        each.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        edit(file, other)
    with pytest.raises(DataError, match=said) as refused:
        Store.open(path)
    first, second = str(refused.value).splitlines()
    assert first.startswith(f"{path} is a damaged store: ") and second.startswith(f"  type rm {path} and prepare")
    assert SECRET not in first and first.isprintable() and len(first) < len(str(path)) + 350


def test_a_damaged_store_is_made_again_as_its_refusal_says(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a store.h5"
    path.write_bytes(whole[:-1])
    options: Any = {"dataset": "tiny", "sources": {}, "options": {}}
    with pytest.raises(DataError) as refused:
        build_once(path, prepared, **options)
    subprocess.run(
        re.findall(r"type (rm '.*') and prepare the data again", str(refused.value))[0], shell=True, check=True
    )
    assert build_once(path, prepared, **options).ids == prepared().ids


def test_texts_and_attributes_are_as_long_as_their_place_and_their_heap_ends(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    whole = FORMER.read_bytes()
    at = next(k for k in range(whole.find(b"options\0"), len(whole)) if whole[k : k + 4] == struct.pack("<I", 2))
    heap = int.from_bytes(whole[at + 4 : at + 12], "little")
    assert whole[heap : heap + 4] == b"GCOL"
    for place, content, said in (
        (at, b"\xff" * 4, "longer than its place"),
        (at + 4, b"\xff" * 8, "no place in the file"),
        (at + 4, struct.pack("<Q", len(whole)), "no place in the file"),
        (at + 12, b"\xff\xff\1\0", "longer than its place"),
        (heap + 8, b"\xff" * 8, "larger than the file"),
        (heap + 8, struct.pack("<Q", 1 << 40), "larger than the file"),
        (heap + 16, bytes(16), "heap of texts is damaged"),
        (heap + 24, b"\xf0" + b"\xff" * 7, "heap of texts is damaged"),
    ):
        path.write_bytes(whole[:place] + content + whole[place + len(content) :])
        assert not is_store(path)
        with pytest.raises(DataError, match=said):
            Store.open(path)


def test_what_is_no_store_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a store.h5"
    path.mkdir()
    with pytest.raises(DataError, match="No store at"):
        Store.open(path)
    path.rmdir()
    path.write_text("notes")
    with pytest.raises(DataError, match=r"damaged store: .*signature"):
        Store.open(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match=r"not a store .*\n  type (mv .*)") as refused:
        Store.open(path)
    subprocess.run(str(refused.value).split("type ")[1], shell=True, check=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a store.h5.other"]
    write(path, prepared())
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 2
    with pytest.raises(DataError, match=r"newer mmsa wrote it \(schema version 2, this one reads 1\).\n  update mmsa"):
        Store.open(path)

    def refuse(error: OSError) -> None:
        raise error

    monkeypatch.setattr("mmsa.data.store.opened", lambda _: refuse(PermissionError(13, "Permission denied")))
    with pytest.raises(DataError, match=r"may not be read.\n  type (chmod .*)") as refused:
        Store.open(path)
    subprocess.run(str(refused.value).split("type ")[1], shell=True, check=True)
    monkeypatch.setattr("mmsa.data.store.opened", lambda _: refuse(BlockingIOError(11, "unable to lock file")))
    with pytest.raises(DataError, match="open in a program that writes to it"):
        Store.open(path)


def test_hdf5_is_opened_for_reading_in_one_place() -> None:
    opening = {
        (path.name, how)
        for path in (ROOT / "mmsa").rglob("*.py")
        for how in re.findall(r"h5py\.File\((.*)\)", path.read_text())
        if '"w"' not in how and '"r+"' not in how
    }
    assert opening == {("hdf5.py", 'path, "r", locking=locking')}


def test_a_former_store_opens_with_the_same_bits(tmp_path: Path) -> None:
    store = Store.open(FORMER)
    with h5py.File(FORMER) as file:
        assert (
            store.ids == file["ids"].asstr()[:].tolist() and store.folds.tolist() == file["folds"].asstr()[:].tolist()
        )
        assert [word for words in store.words or [] for word in words] == file["words/values"].asstr()[:].tolist()
        assert list(store.features) == list(file["features"]) and list(store.targets) == list(file["targets"])
        for name, ragged in store.features.items():
            assert ragged.values.tobytes() == file[f"features/{name}/values"][:].tobytes()
            assert ragged.offsets.tolist() == file[f"features/{name}/offsets"][:].tolist()
        assert all(target.tobytes() == file[f"targets/{name}"][:].tobytes() for name, target in store.targets.items())


def test_a_store_may_begin_with_a_block_of_another_program(tmp_path: Path) -> None:
    write(tmp_path / "s.h5", prepared())
    with h5py.File(tmp_path / "s.h5") as plain, h5py.File(tmp_path / "b.h5", "w", userblock_size=512) as file:
        for name in plain:
            plain.copy(name, file)
        file.attrs.update(plain.attrs)
    plainly, store = Store.open(tmp_path / "s.h5"), Store.open(tmp_path / "b.h5")
    assert (store.ids, store.words, store.fingerprint) == (plainly.ids, plainly.words, plainly.fingerprint)
    assert store.features["text"].values.tobytes() == plainly.features["text"].values.tobytes()


WATCHED = """
import io, mmap, resource, shutil, sys
from pathlib import Path
import h5py, numpy as np
from mmsa.data.prepare import describe, silent
from mmsa.data.store import Store, is_store
from mmsa.errors import DataError
from mmsa.readers.arrays import read_arrays
from mmsa.readers.sequence_file import SequenceFile, write_sequence
from tests.data.test_store import prepared, write
from tests.bending import bent
from tests.fuzzing import mutations

folder, count = Path(sys.argv[1]), int(sys.argv[2])

def store(path):
    is_store(path)
    held = Store.open(path)
    for part in held.features.values():
        for row in range(len(part)):
            part[row].tobytes()
    return describe(held, {name: "number" for name in held.targets})

def sequence(path):
    with SequenceFile(path) as held:
        for video in held.videos:
            (held.words if path.stem == "words" else held.frames)(video)

def named(path):
    return read_arrays(path, (), silent)

times = np.array([[0, 0.4], [0.4, 1], [1, 2.5]])
write_sequence(folder / "words.csd", "Words", {video: (times, np.array([[b"a"], [b"sp"], [b"bc"]])) for video in "abc"})
with h5py.File(folder / "words.csd", "a") as file:
    del file["Words/data/a/features"]
    file.create_dataset("Words/data/a/features", data=[["it"], ["is"], ["x"]], dtype=h5py.string_dtype(), chunks=(2, 1),
        compression="gzip", shuffle=True)
write_sequence(folder / "frames.csd", "Frames", {video: (times, np.ones((3, 7), "f4")) for video in "abc"})
with h5py.File(folder / "own.h5", "w") as file:
    for name, column in {"fold": ["train", "valid", "test"] * 2, "id": [f"v_{k}" for k in range(6)]}.items():
        file.create_dataset(name, data=column, dtype=h5py.string_dtype())
    file["target"], file["features/gaze"] = np.arange(6.0), np.ones((12, 2))
    file["offsets/gaze"] = np.arange(7) * 2
    file["features/pulse"], file["lengths/pulse"] = np.ones((6, 4, 2)), [1, 2, 3] * 2
small = prepared()
small.report = {"dropped": {"no words": ["a[1]"]}, "non_finite": {"text": 0}, "files": {"words": "w.csd"}}
write(folder / "s.h5", small)
DOORS = {
    folder / "s.h5": (store, named),
    folder / "words.csd": (sequence,),
    folder / "frames.csd": (sequence,),
    folder / "own.h5": (named,),
}
other = Path(shutil.copy(folder / "s.h5", folder / "other.h5"))
watching, seen, at = False, [], None
ALARMING = {"os", "subprocess", "exec", "compile", "import", "socket", "ctypes", "shutil", "pickle"}
QUIET = ("os.listdir", "os.scandir")

def watch(event, arguments):
    writes = event == "open" and arguments[1] not in (None, "r", "rb")
    if watching and event not in QUIET and (writes or event.split(".")[0] in ALARMING):
        seen.append((event, str(arguments)[:200]))

def tried(path, doors):
    global watching
    refused = 0
    for door in doors:
        watching = True
        try:
            door(path)
        except DataError as error:
            said = str(error)
            refused += 1
            assert str(path) in said, said[:500]
            assert len(said.splitlines()) <= 4 and len(said) < 1500, (len(said), said[:500])
            assert all(line.isprintable() for line in said.splitlines()), ascii(said)
            assert "does not expect" not in said
        watching = False
    return refused

for path, doors in DOORS.items():
    tried(path, doors)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert tried(path, doors) == len(doors)
    path.write_bytes(whole)
sys.addaudithook(watch)
resource.setrlimit(resource.RLIMIT_CPU, (30 + count // 5,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused, place = 0, folder / "at"
log = open(place, "wb", buffering=0)
for path, doors in DOORS.items():
    whole = path.read_bytes()
    each = count // len(DOORS)
    damaged = mutations(whole, each, seed=1)
    rng = np.random.default_rng(2)
    for i in range(each):
        log.seek(0), log.write(b"%s %9d" % (path.name.encode(), i))
        if i % 2:
            path.write_bytes(next(damaged))
        else:
            path.write_bytes(whole)
            with h5py.File(path, "r+") as file:
                bent(file, other, rng)
        try:
            refused += tried(path, doors) > 0
        except BaseException:
            shutil.copy(path, folder / f"failed-{i}-{path.name}")
            raise
    path.write_bytes(whole)
assert not seen, seen[:5]
assert refused > count / 3, refused
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 300 << 10, f"{grown} KiB"
print("done")
"""


@pytest.mark.parametrize("count", [240, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_hdf5_is_read_or_refused_and_never_ends_the_interpreter(count: int, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path), str(count)], cwd=ROOT, capture_output=True, text=True
    )
    at = (tmp_path / "at").read_text() if (tmp_path / "at").exists() else "before the first"
    assert (finished.returncode, finished.stdout) == (0, "done\n"), f"{at}: {finished.stderr[-2000:]}"
