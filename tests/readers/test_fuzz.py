"""Damaged files of every family give a data set or one clear error: nothing else, nothing run, nothing written."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsa.data.prepare import silent
from mmsa.errors import DataError
from mmsa.readers.families import ReadOptions, read_file, read_folder
from tests.conftest import ROOT
from tests.dataset.corpora import Tiny
from tests.fuzzing import disarranged, mutated
from tests.readers.pickles import write
from tests.readers.test_families import MADE, misa_folder, ur_funny_folder


def file_of(name: str) -> Callable[[Path], Path]:
    return lambda folder: write(folder / "x.pkl", MADE[name][0]())


SOURCES: dict[str, Callable[[Path], Path]] = {name: file_of(name) for name in MADE} | {
    "MISA": misa_folder,
    "UR-FUNNY": ur_funny_folder,
}
QUICK, LONG = 60, 3000
SAID = 900
"""Characters of the longest error, without the path."""


def odd(rng: np.random.Generator) -> Any:
    """A value that is not where it belongs."""
    loose = np.empty(2, dtype=object)
    loose[:] = [None, {"a": 1}]
    values: list[Any] = [
        *(None, True, -1, 0, 1, 2**62, 1e300, float("nan"), float("-inf"), "", "text", "a\0b", "1_1", b"\xff", b"v_1"),
        *([], {}, (), set(), [[1.0], [2.0, 3.0]], ["a", 1], [None] * 2, {"train": {}}, [0, 1], ["v$_$1", "v$_$2"]),
        *(np.zeros(0), np.zeros(2), np.zeros((2, 0)), np.zeros((2, 6)), np.zeros((2, 6, 0)), np.zeros((0, 6, 3))),
        *(np.zeros((2, 0, 3)), np.ones((2, 6, 3)), np.ones((2, 9, 2), dtype=bool), np.array(3.0), np.array("a")),
        *(np.full((2, 6, 3), np.nan), np.full((2, 6, 3), 1e300), np.full((2, 6, 3), 2**63, dtype=np.uint64)),
        *(np.array(["a", "b"]), np.array([b"\xff", b"v"]), loose, np.arange(2, dtype=">i2"), np.zeros((2, 1, 1, 1))),
        *(np.zeros((2, 3, 6)), np.full((2, 3, 6), -np.inf), np.array([[3], [4]]), np.array([1e300, -1.0])),
    ]
    return values[int(rng.integers(0, len(values)))]


def damaged(name: str, folder: Path, count: int) -> Iterator[Path]:
    """The source of a family, each time with one of its files damaged in another way."""
    source = SOURCES[name](folder)
    files = [path for path in sorted(folder.rglob("*.p*")) if path.is_file()]
    whole = {path: path.read_bytes() for path in files}
    rng = np.random.default_rng(sorted(SOURCES).index(name))
    for i in range(count):
        path = files[int(rng.integers(0, len(files)))]
        if i % 2:
            path.write_bytes(mutated(whole[path], rng))
        elif i % 8:  # sound as a pickle
            content = disarranged(pickle.loads(whole[path]), rng, odd)
            path.write_bytes(pickle.dumps(content))
        else:
            again = pickle.dumps(pickle.loads(whole[path]), protocol=int(rng.integers(0, 6)))
            path.write_bytes(mutated(again, rng))
        yield source
        path.write_bytes(whole[path])


def outcome(source: Path) -> str:
    """Read a source; "" where that goes well, else what the error says."""
    try:
        (read_folder if source.is_dir() else read_file)(source, ReadOptions(), silent)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
def test_a_damaged_file_is_read_or_refused_in_a_few_lines(name: str, count: int, tmp_path: Path) -> None:
    said = [outcome(source) for source in damaged(name, tmp_path / "source", count)]
    refusals = [line for line in said if line]
    assert len(refusals) > count / 4
    for line in refusals:
        assert str(tmp_path) in line
        assert len(line.splitlines()) <= 4, line
        assert len(line.replace(str(tmp_path), "")) < SAID, line


@pytest.mark.parametrize("name", ["MMSA unaligned", "MultiBench", "UR-FUNNY", "MISA"])
@pytest.mark.parametrize("count", [10, pytest.param(400, marks=pytest.mark.slow)])
def test_a_damaged_file_makes_a_whole_store_or_none(name: str, count: int, tmp_path: Path) -> None:
    for source in damaged(name, tmp_path / "source", count):
        try:
            Tiny(str(source), modalities=["audio"]).prepare(tmp_path / "stores", progress=False)
        except DataError as error:
            assert len(str(error).splitlines()) <= 6
    assert {path.suffix for path in (tmp_path / "stores").iterdir()} <= {".h5", ".json", ".lock"}


WATCHED = """
import resource, sys
from pathlib import Path
import torch  # what a reader of tensors imports is imported before the watch begins
import mmsa.readers.mag_pickle, mmsa.readers.misa_pickle, mmsa.readers.mmsa_pickle
import mmsa.readers.mult_pickle, mmsa.readers.multibench_pickle, mmsa.readers.ur_funny
from tests.readers.test_fuzz import SOURCES, damaged, outcome

for name in SOURCES:  # whatever is imported late
    outcome(SOURCES[name](Path(sys.argv[1]) / "whole" / name))
b"x".decode("raw-unicode-escape")
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
watching, seen = False, []

ALARMING = {"os", "subprocess", "exec", "compile", "import", "socket", "ctypes", "shutil"}

def watch(event, arguments):
    writes = event == "open" and arguments[1] not in (None, "r", "rb")
    if watching and (writes or event.split(".")[0] in ALARMING) and event not in ("os.listdir", "os.scandir"):
        seen.append((event, str(arguments)[:200]))

sys.addaudithook(watch)
for name in SOURCES:
    for source in damaged(name, Path(sys.argv[1]) / name, int(sys.argv[2])):
        watching = True
        outcome(source)
        watching = False
assert not seen, seen[:5]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 300 << 10, f"{grown} KiB"
print("done")
"""


@pytest.mark.parametrize("count", [25, pytest.param(1500, marks=pytest.mark.slow)])
def test_nothing_is_run_or_written_and_memory_is_bounded(count: int, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path), str(count)], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.stdout == "done\n", finished.stderr[-2000:]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "another pickle"])
def test_a_truncated_an_empty_and_a_wrong_file_give_one_clear_line(name: str, kind: str, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path / "source")
    for path in sorted((tmp_path / "source").iterdir()):
        whole = path.read_bytes()
        wrong = {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "text": b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>\n",
            "another pickle": pickle.dumps("not this"),
        }[kind]
        path.write_bytes(wrong)
        said = outcome(source)
        assert said and str(path) in said, (path.name, said)
        assert len(said.splitlines()) == 1
        path.write_bytes(whole)
    shutil.rmtree(tmp_path / "source")
