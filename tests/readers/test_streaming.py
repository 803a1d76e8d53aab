"""A corpus is prepared in little memory, however large: `make test-slow ARGS=tests/data` prints how little."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.ragged import Ragged
from mmsa.data.store import Store, write_store
from mmsa.errors import DataError
from mmsa.readers.computational_sequences import read_sequences
from mmsa.readers.sequence_file import write_sequence
from mmsa.readers.spool import Spool
from tests.dataset.corpora import Tiny, Video, labels, tiny_sequences, words, write_corpus

ROOT = Path(__file__).resolve().parents[2]
UTTERANCES = 7

PROGRAM = """
import json, sys, time
from pathlib import Path
from tests.dataset.corpora import Tiny

def kilobytes(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

class Made(Tiny):
    name = "made"
    def fold_of(self, source):
        return {f"v{i:04}": ("train", "valid", "test")[i % 3] for i in range(int(sys.argv[3]))}

before, begun = kilobytes("VmRSS"), time.perf_counter()
store = Made(sys.argv[1]).prepare(Path(sys.argv[2]), progress=False)
seconds = time.perf_counter() - begun
print(json.dumps({"seconds": seconds, "grown": 1024 * (kilobytes("VmHWM") - before), "store": str(store.path)}))
"""


def frames(rng: np.random.Generator, rate: float, seconds: float, width: int) -> Video:
    edges = np.arange(int(rate * seconds) + 1) / rate
    return np.stack([edges[:-1], edges[1:]], axis=1), rng.normal(size=(len(edges) - 1, width)).astype(np.float32)


def made_corpus(folder: Path, num_videos: int, seconds: float, rates: tuple[float, float]) -> int:
    """Write a corpus of MOSEI's structure, and say how many bytes it has; every third video is alike."""
    rng = np.random.default_rng(0)
    names = Tiny.sequences
    kinds: list[dict[str, Video]] = []
    for length in (0.5 * seconds, seconds, 1.5 * seconds):
        starts = np.arange(int(2 * length)) / 2
        spoken = words(*[(start, start + 0.5, "word") for start in starts])
        cuts = np.linspace(0, length, UTTERANCES + 1)
        kinds.append(
            {
                "words": spoken,
                "text": (spoken[0], rng.normal(size=(len(starts), 300)).astype(np.float32)),
                "audio": frames(rng, rates[0], length, 74),
                "visual": frames(rng, rates[1], length, 35),
                "labels": labels(*[(start, end, 1.0) for start, end in pairwise(cuts)]),
            }
        )
    folder.mkdir()
    for role in names:
        videos = {f"v{i:04}": kinds[i % 3][role] for i in range(num_videos)}
        write_sequence(folder / f"{names[role][0]}.csd", names[role][0], videos)
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture
def prepared_apart(
    tmp_path: Path,
) -> Iterator[Callable[[int, float, tuple[float, float]], tuple[int, dict[str, float]]]]:
    """Makes a corpus and prepares it in a process of its own: bytes of the sources, and what that process measured."""

    def measured(num_videos: int, seconds: float, rates: tuple[float, float]) -> tuple[int, dict[str, float]]:
        size = made_corpus(tmp_path / "source", num_videos, seconds, rates)
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "source"), str(tmp_path / "stores"), str(num_videos)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        return size, json.loads(ran.stdout)

    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from Linux's /proc")
    yield measured
    shutil.rmtree(tmp_path / "source", ignore_errors=True)  # pytest keeps the folders of three sessions
    shutil.rmtree(tmp_path / "stores", ignore_errors=True)


def test_memory_grows_by_less_than_a_fifth_of_the_sources(
    prepared_apart: Callable[..., tuple[int, dict[str, float]]],
) -> None:
    size, measured = prepared_apart(600, 20.0, (30.0, 15.0))
    store = Store.open(Path(str(measured["store"])))
    assert len(store.ids) == 600 * UTTERANCES
    assert sum(ragged.values.nbytes for ragged in store.features.values()) > size / 4  # held in memory, it would show
    assert measured["grown"] < size / 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_corpus_of_the_size_of_mosei_is_prepared_in_little_memory(
    prepared_apart: Callable[..., tuple[int, dict[str, float]]], capsys: pytest.CaptureFixture[str]
) -> None:
    size, measured = prepared_apart(3228, 72.0, (50.0, 30.0))
    store = Store.open(Path(str(measured["store"])))
    num_steps = store.features["text"].offsets[-1]
    with capsys.disabled():
        print(
            f"\n{len(store.ids)} utterances, {num_steps} words, {size / 1e9:.1f} GB of sources prepared in "
            f"{measured['seconds']:.0f} s; memory grew by {measured['grown'] / 1e6:.0f} MB, "
            f"{measured['grown'] / size:.1%} of the sources"
        )
    assert len(store.ids) == 3228 * UTTERANCES
    assert measured["grown"] < size / 5


@pytest.mark.parametrize("at_once", [1, 40, 1 << 22])
def test_where_the_steps_waited_changes_no_bit_of_a_store(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.data.ragged._BLOCK", at_once)
    files = write_corpus(tmp_path, tiny_sequences())
    mapped = read_sequences(files, fold_of={"a": "train", "b": "valid", "c": "test"}, folder=tmp_path)
    assert all(isinstance(ragged.values, np.memmap) for ragged in mapped.features.values())
    held = replace(
        mapped, features={m: Ragged(np.array(ragged.values), ragged.offsets) for m, ragged in mapped.features.items()}
    )
    for name, prepared in (("mapped", mapped), ("held", held)):
        write_store(tmp_path / name, prepared, dataset="tiny", sources={}, options={})
    assert (tmp_path / "mapped").read_bytes() == (tmp_path / "held").read_bytes()
    for modality, ragged in Store.open(tmp_path / "mapped").features.items():
        assert ragged.values.tobytes() == held.features[modality].values.tobytes()
    assert {path.name for path in tmp_path.iterdir()} == {"mapped", "held", *(path.name for path in files.values())}


def test_blocks_are_the_values_in_order_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    values[::7] = 0
    with Spool(tmp_path) as spool:
        for start in range(0, 50, 9):
            spool.append(values[start : start + 9])
        mapped = spool.array()
    for size in (1, 12, 100, 1 << 24):
        monkeypatch.setattr("mmsa.data.ragged._BLOCK", size)
        for array in (values, mapped):
            ragged = Ragged(array, np.array([0, 50]))
            assert np.concatenate(list(ragged.blocks())).tobytes() == values.tobytes()
            assert ragged.filled_steps().tolist() == values.any(axis=1).tolist()


def test_a_spool_without_a_step_is_an_empty_array(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert spool.array().shape == (0, 1)
        spool.append(np.zeros((0, 4), np.float32))
        assert spool.array().shape == (0, 4)
    assert Ragged(spool.array(), np.array([0])).filled_steps().shape == (0,)


def test_a_folder_that_takes_nothing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot take[\s\S]*type paths.data=FOLDER"):
        Spool(tmp_path / "absent")
    full = Path("/dev/full")  # a file that answers every write with "no space left"
    if not full.exists():
        pytest.skip("no /dev/full here")
    with Spool(tmp_path) as spool, open(full, "wb") as nowhere:
        spool._file.close()
        spool._file = nowhere
        with pytest.raises(DataError, match=r"2 MB so far \(No space left[\s\S]*type paths.data=FOLDER"):
            spool.append(np.zeros((100_000, 4), np.float32))
