"""A data set is prepared once per content and options, and refuses what it does not state."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.batches import Data
from mmsa.data.loading import Loading
from mmsa.data.prepare import add_integrity, build_once, describe, hash_files
from mmsa.data.ragged import Ragged
from mmsa.data.store import FOLDS, Prepared, Store
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.dataset import Dataset
from mmsa.doctor.examination import examine
from mmsa.doctor.page import page
from mmsa.errors import ConfigError, DataError
from mmsa.readers.families import READING
from tests.data.test_store import prepared
from tests.dataset.corpora import Tiny, labels, tiny_sequences, write_corpus
from tests.readers.test_mmsa_pickle import content, write
from tests.warm import CONTEXT


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.h5"))


def test_preparing_twice_does_nothing_the_second_time(
    source: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Tiny(str(source)).prepare(stores)
    written = first.path.stat().st_mtime_ns
    monkeypatch.setattr("mmsa.data.prepare._sha256", lambda *_: pytest.fail("a known file is hashed again"))
    read = "mmsa.dataset.sequences.read_sequences"
    monkeypatch.setattr(read, lambda *_, **__: pytest.fail("the source is read again"))
    again = Tiny(str(source)).prepare(stores)
    assert (again.path, again.path.stat().st_mtime_ns) == (first.path, written)
    assert first.path.name == f"tiny-{first.fingerprint}.h5"
    assert again.ids == first.ids == ["a[0]", "a[1]", "b[0]", "b[1]", "c[0]", "c[1]"]


def test_a_changed_option_makes_another_store_and_normalisation_is_none(source: Path, stores: Path) -> None:
    store = Tiny(str(source)).prepare(stores)
    assert Tiny(str(source), loading=Loading("none")).prepare(stores).path == store.path
    assert Tiny(str(source), keep_pauses=True).prepare(stores).features["text"].lengths[0] == 3
    assert len(kept(stores)) == 2


def test_a_changed_source_makes_another_store_and_a_moved_one_does_not(source: Path, stores: Path) -> None:
    store = Tiny(str(source)).prepare(stores)
    moved = source.rename(source.with_name("moved"))
    assert Tiny(str(moved)).prepare(stores).path == store.path
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.0, 3.0))
    write_corpus(moved, sequences)
    assert Tiny(str(moved)).prepare(stores).path != store.path


def test_without_a_source_the_store_of_these_options_is_used(source: Path, stores: Path) -> None:
    old = Tiny(str(source)).prepare(stores)
    Tiny(str(source), keep_pauses=True).prepare(stores)
    assert Tiny().prepare(stores).path == old.path
    (stores / "tiny-000000000000.h5").write_bytes(b"damaged")
    assert Tiny().prepare(stores).path == old.path
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.0, 3.0))
    write_corpus(source, sequences)
    new = Tiny(str(source)).prepare(stores)
    assert Tiny().prepare(stores).path == new.path


@pytest.mark.parametrize("dataset", [CmuMosi(), CmuMosei()])
def test_with_neither_source_nor_store_the_error_says_what_to_get_and_type(dataset: Dataset, stores: Path) -> None:
    with pytest.raises(DataError) as missing:
        dataset.prepare(stores)
    said = str(missing.value)
    for role in ("words", "text", "audio", "visual", "labels"):
        assert f"{dataset.sequences[role][0]}.csd" in said
    assert f"mmsa prepare {dataset.name} --source" in said
    assert "aligned_50.pkl" in said
    assert "CMU-MultimodalSDK" in said
    assert len(said.splitlines()) <= 8


def test_labels_beyond_the_nominal_range_are_reported_and_beyond_the_bound_refused(source: Path, stores: Path) -> None:
    sequences = tiny_sequences()
    sequences["labels"]["a"] = labels((0.0, 2.0, 10 / 3), (2.0, 4.0, 5.0))
    write_corpus(source, sequences)
    store = Tiny(str(source)).prepare(stores)
    assert store.report["beyond_nominal"] == {"count": 2, "nominal_range": [-3.0, 3.0], "largest": 5.0}
    assert any("labels beyond [-3, 3]: 2, the largest 5" in line for line in describe(store, {}))
    sequences["labels"]["b"] = labels((0.0, 2.0, 6.5))
    write_corpus(source, sequences)
    with pytest.raises(DataError, match=r"outside \[-6, 6\].*6\.5 of b\[0\]"):
        Tiny(str(source)).prepare(stores)


def test_mosi_refuses_what_mosei_reports(tmp_path: Path, stores: Path) -> None:
    made = content()
    made["train"]["regression_labels"][0] = 10 / 3
    path = write(tmp_path, made)
    with pytest.raises(DataError, match="CMU-MOSI"):
        CmuMosi(str(path)).prepare(stores)
    assert CmuMosei(str(path)).prepare(stores).report["beyond_nominal"]["count"] == 1


def test_an_empty_fold_is_refused_by_its_name_where_it_is_read(source: Path, stores: Path) -> None:
    for videos, fold in (("ac", "valid"), ("ab", "test"), ("bc", "train")):
        write_corpus(source, tiny_sequences(videos=videos))
        store = Tiny(str(source)).prepare(stores)
        assert store.report["utterances"][fold] == 0
        diagnosis = examine(store, Tiny())
        assert f"no utterance is in the fold {fold}." in {finding.text for finding in diagnosis.of("error")}
        assert f">{fold}<" in page(diagnosis)
        data = Data(store, ["text"], Loading("none"))
        assert all(len(data.fold(other)) == 2 for other in FOLDS if other != fold)
        with pytest.raises(DataError, match=f"the {fold} fold of .* has no utterance"):
            data.fold(fold)
    with pytest.raises(DataError, match=r"dev: there is no such fold; choose from train, valid, test"):
        data.fold("dev")
    with pytest.raises(DataError, match=r"the train fold of .* has no utterance"):
        Data(store, ["text"])  # which normalises by it


def test_a_source_without_an_utterance_is_refused(source: Path, stores: Path) -> None:
    write_corpus(source, tiny_sequences(videos="xy"))
    with pytest.raises(DataError, match="none of 2 videos is in the published folds: x, y"):
        Tiny(str(source)).prepare(stores)
    assert kept(stores) == []


def test_sources_of_the_wrong_kind_are_refused_with_a_way_on(source: Path, stores: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    for wrong, said in (
        (tmp_path / "nowhere", "does not exist"),
        (empty, "holds no Tiny sequence"),
        (source / "TINY_Words.csd", f"dataset.source={source}"),
        (text, "neither a folder nor a pickle"),
    ):
        with pytest.raises(DataError, match=said):
            Tiny(str(wrong)).prepare(stores)
    pickled = write(empty, content())
    with pytest.raises(DataError, match=f"Did you mean dataset.source={pickled}"):
        Tiny(str(empty)).prepare(stores)


def test_a_source_without_pauses_makes_one_store_whether_or_not_they_are_kept(
    tmp_path: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pickled = write(tmp_path, content())
    store = Tiny(str(pickled)).prepare(stores)
    assert "no pauses" not in capsys.readouterr().err
    for source in (str(pickled), None):
        assert Tiny(source, keep_pauses=True).prepare(stores).path == store.path
        assert "this source holds no pauses" in capsys.readouterr().err


def test_a_pickle_is_known_by_its_content_whatever_its_name(tmp_path: Path, stores: Path) -> None:
    path = write(tmp_path, content()).rename(tmp_path / "mosi.bin")
    assert len(Tiny(str(path)).prepare(stores).ids) == 6
    path.write_bytes(pickle.dumps(os.system))
    with pytest.raises(DataError, match="system"):
        Tiny(str(path)).prepare(stores)


def test_a_file_is_read_again_where_readers_have_changed(
    source: Path, tmp_path: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, content())
    sequences, before = Tiny(str(source)).prepare(stores), Tiny(str(path)).prepare(stores)
    with pytest.raises(DataError, match="2 prepared stores of Tiny"):
        Tiny().prepare(stores)
    monkeypatch.setattr("mmsa.readers.families.READING", READING + 1)
    assert Tiny().prepare(stores).path == sequences.path, "sequences are read as before"
    after = Tiny(str(path)).prepare(stores)
    assert after.fingerprint != before.fingerprint
    assert Tiny(str(source)).prepare(stores).fingerprint == sequences.fingerprint


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ConfigError, match="train, utterance or none"):
        Tiny(loading=Loading("minmax"))  # type: ignore[arg-type]


def test_the_summary_is_short_and_nothing_else_is_printed(
    source: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Tiny(str(source)).prepare(stores)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) <= 2
    lines = describe(store, {})
    assert len(lines) <= 12
    assert "widths: text 4, audio 3, visual 2" in lines
    assert any(line.split() == ["train", "2", "utterances", "of", "1", "videos"] for line in lines)
    shutil.rmtree(stores)
    Tiny(str(source)).prepare(stores, progress=False)
    assert capsys.readouterr() == ("", "")


def name_of_store(source: Path, stores: Path, names: Any) -> None:
    names.put(Tiny(str(source)).prepare(stores).path.name)


def test_three_processes_at_once_make_one_whole_store(source: Path, stores: Path) -> None:
    names = CONTEXT.Queue()
    started = [CONTEXT.Process(target=name_of_store, args=(source, stores, names)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert {names.get(timeout=10) for _ in started} == set(kept(stores))
    assert len(Store.open(stores / kept(stores)[0]).ids) == 6


def test_who_waits_for_a_store_that_is_being_made_does_not_make_it_again(tmp_path: Path) -> None:
    begun, made = threading.Event(), []

    def build() -> Prepared:
        made.append(threading.get_ident())
        begun.set()
        time.sleep(0.3)
        return prepared()

    def once() -> Store:
        return build_once(tmp_path / "s.h5", build, dataset="tiny", sources={}, options={})

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(once)
        assert begun.wait(10)
        second = threads.submit(once)
        assert first.result().ids == second.result().ids
    assert len(made) == 1


def test_what_a_killed_process_left_is_cleared(source: Path, stores: Path) -> None:
    store = Tiny(str(source)).prepare(stores)
    store.path.unlink()
    leftover = stores / f".{store.path.name}.123.tmp"
    leftover.write_bytes(b"half")
    Tiny(str(source)).prepare(stores)
    assert not leftover.exists()


@pytest.mark.parametrize("age", [1.0, 3600.0])
def test_without_locks_only_what_no_living_process_can_be_writing_is_cleared(
    age: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    leftover = tmp_path / ".s.h5.123.tmp"
    leftover.write_bytes(b"half")
    os.utime(leftover, (time.time() - age, time.time() - age))
    build_once(tmp_path / "s.h5", prepared, dataset="tiny", sources={}, options={})
    assert leftover.exists() == (age < 600)


def test_sequences_without_steps_or_values_are_counted_as_all_zero() -> None:
    rows = prepared()
    steps = [np.zeros((0, 2)), np.ones((2, 2)), np.zeros((0, 2)), np.ones((1, 2)), np.zeros((3, 2)), np.zeros((0, 2))]
    rows.features["audio"] = Ragged.join(steps)
    add_integrity(rows, nominal_range=(-3.0, 3.0))
    assert rows.report["all_zero"]["audio"] == 4


def test_hashes_are_read_again_only_when_a_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    first = hash_files({"x": path}, tmp_path)
    (tmp_path / "source-hashes.json").write_text("{cut short")
    assert hash_files({"x": path}, tmp_path) == first
    path.write_bytes(b"two")
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert hash_files({"x": path}, tmp_path) != first

    def read_only(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("mmsa.data.prepare._keep_hash", read_only)
    (tmp_path / "source-hashes.json").unlink()
    assert hash_files({"x": path}, tmp_path) != first
    assert first["x"] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


def test_the_shared_folder_and_pickle_prepare(csd_folder: Path, mmsa_pickle: Path, stores: Path) -> None:
    store = CmuMosi(str(csd_folder)).prepare(stores)
    assert store.report["utterances"] == {"train": 1283, "valid": 229, "test": 686}
    assert store.report["videos"] == {"train": 52, "valid": 10, "test": 31}
    assert store.report["all_zero"] == {"text": 0, "audio": 0, "visual": 2}
    assert np.isfinite(store.features["audio"].values).all()
    assert CmuMosi(str(mmsa_pickle)).prepare(stores).report["utterances"] == {"train": 131, "valid": 53, "test": 45}


def test_preparing_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "source", tiny_sequences())
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network is asked for something"))
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("the network is asked for something"))
    assert len(Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False).ids) == 6
    (tmp_path / "source" / "TINY_Visual.csd").unlink()
    with pytest.raises(DataError, match="lacks visual"):
        Tiny(str(tmp_path / "source")).prepare(tmp_path / "stores", progress=False)
