"""From the crash at any write, the same command, or one that is printed, comes to the state of an undisturbed run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.crash_points import failing_points, points, prepared_until
from tests.crash_scenarios import (
    FailedRun,
    FirstRun,
    Grid,
    Preparation,
    ResumedRun,
    Scenario,
    Search,
    TypedAgain,
)
from tests.warm import CONTEXT


def tried(scenario: Scenario, root: Path, data: Path, every: int = 1, first: int = 1, why: str = "") -> int:
    """Crash at some writes, or let them fail from there on, and return how many there are in all."""
    work = (failing_points, (why,)) if why else (points, ())
    process = CONTEXT.Process(target=work[0], args=(scenario, root, data, every, first, root / "found.json", *work[1]))
    process.start()
    process.join()
    found = json.loads((root / "found.json").read_text())
    assert not found["wrong"], "\n".join(f"{point}: {lines[-1]}" for point, lines in found["wrong"].items())
    assert found["points"] > 1
    return int(found["writes"])


def test_a_copy_is_what_a_death_leaves(tmp_path: Path) -> None:
    """The scenarios look at copies of a folder; here the process does end."""

    def left(at: int) -> Path:
        process = CONTEXT.Process(target=prepared_until, args=(tmp_path / f"{at:02}", at))
        process.start()
        process.join()
        assert process.exitcode == (137 if at else 0)
        return tmp_path / f"{at:02}"  # of one length, since a kept file names its place

    def held(folder: Path) -> dict[str, int]:
        files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
        return {re.sub(r"\.\w+\.tmp$", ".tmp", str(path.relative_to(folder))): path.stat().st_size for path in files}

    kept = left(0) / "kept"
    for at in (3, 4, 18):
        assert held(left(at) / "outputs") == held(kept / str(at)), (kept / "writes").read_text()


@pytest.mark.parametrize(
    ("scenario", "every", "first"),
    [(FirstRun(), 59, 13), (ResumedRun(), 59, 5), (Search(), 111, 13)],
    ids=lambda value: type(value).__name__,
)
def test_some_crashes_leave_nothing(scenario: Scenario, every: int, first: int, stores: Path, tmp_path: Path) -> None:
    assert tried(scenario, tmp_path, stores, every, first) > 2


def test_a_crash_of_a_preparation_leaves_nothing(stores: Path, tmp_path: Path) -> None:
    assert tried(Preparation(), tmp_path, stores) > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "scenario", [FirstRun(), TypedAgain(), ResumedRun(), Search(), Grid()], ids=lambda value: type(value).__name__
)
def test_no_crash_leaves_anything(
    scenario: Scenario, stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = tried(scenario, tmp_path, stores)
    with capsys.disabled():
        print(f"\n{type(scenario).__name__}: {number} points")
    assert number > 20


@pytest.mark.parametrize(
    ("scenario", "every", "first"), [(ResumedRun(), 30, 4), (Preparation(), 12, 6)], ids=["run", "preparation"]
)
def test_a_full_disk_loses_nothing(scenario: Scenario, every: int, first: int, stores: Path, tmp_path: Path) -> None:
    assert tried(scenario, tmp_path, stores, every, first, "full") > 5


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("why", ["full", "denied", "locked"])
@pytest.mark.parametrize(
    "scenario", [FailedRun(), ResumedRun(), Search(), Preparation()], ids=lambda value: type(value).__name__
)
def test_no_failing_write_loses_anything(
    scenario: Scenario, why: str, stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = tried(scenario, tmp_path, stores, why=why)
    with capsys.disabled():
        print(f"\n{type(scenario).__name__}, {why}: {number} points")
    assert number > 5
