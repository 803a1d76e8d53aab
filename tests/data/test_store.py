"""A store gives back the bits that were written, or refuses to open."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmsa.data.ragged import Ragged
from mmsa.data.store import Prepared, Store, write_store
from mmsa.errors import DataError
from tests.warm import CONTEXT


def prepared(seed: int = 0) -> Prepared:
    rng = np.random.default_rng(seed)
    lengths = (3, 1, 7)
    return Prepared(
        ids=["a[0]", "b[3]", "ü[12]"],
        videos=["a", "b", "ü"],
        folds=["train", "valid", "test"],
        targets={
            "sentiment": np.array([1.4, -3, 10 / 3], dtype=np.float32),
            "emotions": rng.random((3, 6)).astype(np.float32),
        },
        features={
            m: Ragged.join([rng.normal(size=(n, d)).astype(np.float32) for n in lengths])
            for m, d in {"text": 5, "audio": 2}.items()
        },
        words=[["it's", "sp", "naïve"], [], ["x"] * 7],
        report={"dropped": {"no words": ["a[1]"]}, "many": ["a rather long id"] * 10_000},
    )


def write(path: Path, content: Prepared) -> None:
    write_store(path, content, dataset="tiny", sources={"words": "ab" * 32}, options={"keep_pauses": False})


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    content = prepared()
    write(tmp_path / "s.h5", content)
    store = Store.open(tmp_path / "s.h5")
    assert (store.dataset, store.options, store.sources) == ("tiny", {"keep_pauses": False}, {"words": "ab" * 32})
    assert (store.ids, store.videos, store.folds.tolist()) == (content.ids, content.videos, content.folds)
    assert (store.words, store.report) == (content.words, content.report)
    assert list(store.features) == ["text", "audio"]
    for name, target in content.targets.items():
        assert store.targets[name].tobytes() == target.tobytes()
    for name, ragged in content.features.items():
        assert store.features[name].values.tobytes() == ragged.values.tobytes()
        assert store.features[name].offsets.tolist() == [0, 3, 4, 11]
    assert store.features["text"].width == 5
    assert len(store.features["text"]) == 3


def test_features_are_mapped_read_only_and_aligned(tmp_path: Path) -> None:
    write(tmp_path / "s.h5", prepared())
    for ragged in Store.open(tmp_path / "s.h5").features.values():
        assert isinstance(ragged.values, np.memmap)
        assert ragged.values.offset % 64 == 0
        assert not ragged.values.flags.writeable


def test_words_may_be_absent(tmp_path: Path) -> None:
    content = prepared()
    content.words = None
    write(tmp_path / "s.h5", content)
    assert Store.open(tmp_path / "s.h5").words is None


def test_the_fingerprint_follows_sources_and_options_only(tmp_path: Path) -> None:
    fingerprints = []
    for i, (sources, options) in enumerate(
        [({"a": "1"}, {"k": 1}), ({"a": "1"}, {"k": 1}), ({"a": "2"}, {"k": 1}), ({"a": "1"}, {"k": 2})]
    ):
        write_store(tmp_path / f"{i}.h5", prepared(seed=i), dataset="tiny", sources=sources, options=options)
        fingerprints.append(Store.open(tmp_path / f"{i}.h5").fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_truncated_store_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "s.h5"
    write(path, prepared())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=rf"damaged[\s\S]*rm {path}"):
        Store.open(path)


def test_what_is_not_a_store_of_this_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with pytest.raises(DataError, match="No store"):
        Store.open(path)
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="not a store"):
        Store.open(path)
    write(path, prepared())
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(DataError, match="schema version 99"):
        Store.open(path)
    write(path, prepared())
    with h5py.File(path, "a") as file:
        del file["ids"]
    with pytest.raises(DataError, match="damaged"):
        Store.open(path)


def test_a_writer_that_fails_leaves_the_old_store_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path, prepared())
    before = path.read_bytes()
    broken = prepared()
    broken.report["x"] = object()
    with pytest.raises(TypeError):
        write(path, broken)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def write_until_replaced(path: Path) -> None:
    os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
    write(path, prepared(seed=1))


def test_a_writer_that_is_killed_leaves_the_old_store_or_none(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"

    def killed() -> None:
        writer = CONTEXT.Process(target=write_until_replaced, args=(path,))
        writer.start()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL

    killed()
    assert not path.exists()
    write(path, prepared())
    before = path.read_bytes()
    killed()
    assert path.read_bytes() == before
    assert Store.open(path).ids == prepared().ids
