"""However a preparation ends, there is the old store or none, and the next one works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import pytest

from mmsa.data.store import Store
from mmsa.readers.sequence_file import SequenceFile
from tests.dataset.corpora import Tiny, labels, tiny_sequences, write_corpus

ROOT = Path(__file__).resolve().parents[2]

# Is killed when the preparation calls one of its functions for the n-th time.
KILLED = """
import os, signal, sys
from pathlib import Path
import h5py
from mmsa.data import prepare, store
from mmsa.readers import computational_sequences as reader
from mmsa.readers.sequence_file import SequenceFile
from mmsa.readers.spool import Spool
from tests.dataset.corpora import Tiny

owner, name, count = {
    "hashing": (prepare, "_sha256", 3),
    "keeping a hash": (prepare.os, "replace", 2),
    "opening the sources": (SequenceFile, "__init__", 4),
    "the first video": (reader._Aligner, "add", 1),
    "the last video": (reader._Aligner, "add", 3),
    "the middle of a video": (Spool, "append", 5),
    "the rows of the store": (h5py.Group, "create_dataset", 4),
    "the features of the store": (h5py.Dataset, "__setitem__", 2),
    "before the store has its name": (store.os, "replace", 6),
}[sys.argv[3]]
whole = getattr(owner, name)

def killed(*arguments, **options):
    global count
    count -= 1
    if not count:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)

setattr(owner, name, killed)
Tiny(sys.argv[1]).prepare(Path(sys.argv[2]), progress=False)
"""
POINTS = (
    "hashing",
    "keeping a hash",
    "opening the sources",
    "the first video",
    "the last video",
    "the middle of a video",
    "the rows of the store",
    "the features of the store",
    "before the store has its name",
)

ONCE = """
import sys
from pathlib import Path
from tests.dataset.corpora import Tiny
store = Tiny(sys.argv[1], keep_pauses=sys.argv[3] == "True").prepare(Path(sys.argv[2]), progress=False)
print(store.path, len(store.ids), sum(len(ragged.values) for ragged in store.features.values()))
"""


def started(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(source: Path, stores: Path, points: Sequence[str] = POINTS) -> None:
    """Preparations that are killed, each at another point, all at once but in folders of their own."""
    running = {}
    for point in points:
        folder = stores / point
        folder.mkdir(parents=True, exist_ok=True)
        running[point] = started(KILLED, source, folder, point)
    for point, process in running.items():
        _, error = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, f"{point}: {error[-1000:]}"


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but locks, which stay."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".lock"}


def test_a_killed_preparation_leaves_no_store_and_nothing_that_the_next_does_not_clear(
    source: Path, tmp_path: Path
) -> None:
    expected = content(Tiny(str(source)).prepare(tmp_path / "undisturbed", progress=False).path.parent)
    killed(source, tmp_path / "killed")
    for point in POINTS:
        folder = tmp_path / "killed" / point
        assert not list(folder.glob("*.h5")), point
        Tiny(str(source)).prepare(folder, progress=False)
        assert content(folder) == expected, point


def test_a_killed_preparation_leaves_the_old_store_as_it_was(source: Path, tmp_path: Path) -> None:
    stores = tmp_path / "killed"
    points = ("the middle of a video", "the features of the store", "before the store has its name")
    old = Tiny(str(source)).prepare(tmp_path / "old", progress=False)
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.0, 3.0))
    shutil.rmtree(source)
    write_corpus(source, sequences)
    for point in points:
        (stores / point).mkdir(parents=True)
        shutil.copy(old.path, stores / point)
    killed(source, stores, points)
    for point in points:
        assert [path.name for path in (stores / point).glob("*.h5")] == [old.path.name]
        assert (stores / point / old.path.name).read_bytes() == old.path.read_bytes()
        made = Tiny(str(source)).prepare(stores / point, progress=False)
        assert made.path.name != old.path.name
        assert made.ids[:2] == ["a[0]", "b[0]"]
        assert not list((stores / point).glob(".*.tmp"))


def test_preparations_at_once_make_whole_stores_of_every_option(source: Path, stores: Path) -> None:
    running = [started(ONCE, source, stores, keep) for keep in (False, True) * 3]
    said = set()
    for process in running:
        output, error = process.communicate(timeout=120)
        assert process.returncode == 0, error[-1000:]
        said.add(output.strip())
    assert len(said) == 2
    for path in stores.glob("*.h5"):
        assert len(Store.open(path).ids) == 6
    assert not list(stores.glob(".*.tmp"))


def test_a_second_preparation_opens_no_source_and_writes_nothing(
    source: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tiny(str(source)).prepare(stores, progress=False)
    before = {path: path.stat().st_mtime_ns for path in [stores, *stores.iterdir()]}
    monkeypatch.setattr(SequenceFile, "__init__", lambda *_: pytest.fail("a source is opened"))
    monkeypatch.setattr("mmsa.data.prepare._sha256", lambda *_: pytest.fail("a source is hashed"))
    monkeypatch.setattr(h5py.Group, "create_dataset", lambda *_, **__: pytest.fail("a store is written"))
    Tiny(str(source)).prepare(stores, progress=False)
    assert {path: path.stat().st_mtime_ns for path in [stores, *stores.iterdir()]} == before


def test_a_file_that_changed_but_kept_its_size_and_time_makes_another_store(source: Path, stores: Path) -> None:
    first = Tiny(str(source)).prepare(stores, progress=False)
    path = source / "TINY_Labels.csd"
    stat = path.stat()
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.0, 0.5), (2.0, 4.0, -2.0))
    shutil.rmtree(source)
    write_corpus(source, sequences)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    second = Tiny(str(source)).prepare(stores, progress=False)
    assert second.path != first.path
    assert second.targets["sentiment"][0] == 0.5
