"""However a preparation ends, there is the old store or none, and the next one works."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import pytest

from mmsa.data import prepare, store
from mmsa.data.store import Store
from mmsa.readers import computational_sequences as reader
from mmsa.readers.sequence_file import SequenceFile
from mmsa.readers.spool import Spool
from tests.dataset.corpora import Tiny, labels, tiny_sequences, write_corpus
from tests.warm import CONTEXT

POINTS: dict[str, tuple[object, str, int]] = {
    "hashing": (prepare, "_sha256", 3),
    "keeping a hash": (prepare.os, "replace", 2),
    "opening the sources": (SequenceFile, "__init__", 4),
    "the first video": (reader._Aligner, "add", 1),
    "the last video": (reader._Aligner, "add", 3),
    "the middle of a video": (Spool, "append", 5),
    "the rows of the store": (h5py.Group, "create_dataset", 4),
    "the features of the store": (h5py.Dataset, "__setitem__", 2),
    "before the store has its name": (store.os, "replace", 6),
}
"""Where a preparation is killed: when it calls one of its functions for the n-th time."""


def prepare_until(source: Path, folder: Path, point: str) -> None:
    owner, name, count = POINTS[point]
    whole, calls = getattr(owner, name), itertools.count(1)

    def killed(*arguments: Any, **options: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **options)

    setattr(owner, name, killed)
    Tiny(str(source)).prepare(folder, progress=False)


def prepare_once(source: Path, folder: Path, keep_pauses: bool, said: Any) -> None:
    made = Tiny(str(source), keep_pauses=keep_pauses).prepare(folder, progress=False)
    said.put((made.path, len(made.ids), sum(len(ragged.values) for ragged in made.features.values())))


def killed(source: Path, stores: Path, points: Iterable[str] = POINTS) -> None:
    """Preparations that are killed, each at another point, all at once but in folders of their own."""
    running = {}
    for point in points:
        (stores / point).mkdir(parents=True, exist_ok=True)
        running[point] = CONTEXT.Process(target=prepare_until, args=(source, stores / point, point))
        running[point].start()
    for point, process in running.items():
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, point


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
    said = CONTEXT.Queue()
    options = [(source, stores, keep_pauses, said) for keep_pauses in (False, True) * 3]
    running = [CONTEXT.Process(target=prepare_once, args=given) for given in options]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0] * 6
    assert len({said.get(timeout=10) for _ in running}) == 2
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
