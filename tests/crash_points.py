"""The points of a scenario at which a program may crash or its writes fail, each with the way back and its end."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.crash_scenarios import Preparation, Scenario, differences
from tests.crashing import Writes, copies, dies, fails


def forked(action: Callable[[], Any], log: Path) -> int:
    """Do something in a copy of this process, whose output goes to a file; returns its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), line_buffering=True)
        code = int(action() or 0)
    except BaseException:  # noqa: BLE001  (whatever it is, the parent's test shows it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ask_nobody() -> None:
    """Runs of this process take from memory what Hydra composes, and git, which may be late on a busy machine, says."""
    import hydra

    from mmsa import provenance
    from mmsa.record import Git
    from tests.composition import remembering

    hydra.compose = remembering
    provenance.git_state = lambda: Git(commit="c0ffee", dirty=False)


def records(outputs: Path) -> list[Path]:
    """The records of the runs that have a name."""
    return [path for path in outputs.glob("runs/*/result.json") if not path.parent.name.startswith(".")]


def back(scenario: Scenario, root: Path, data: Path, printed: str = "") -> None:
    """Take the way back, which has to end in the state that the undisturbed program has left."""
    outputs = root / "outputs"
    scenario.way_back(outputs, data, printed)
    found = json.loads(json.dumps(scenario.state(outputs)))
    assert not (bad := list(differences(json.loads((root / "state.json").read_text()), found))), "\n".join(bad)


def failing_points(
    scenario: Scenario, root: Path, data: Path, every: int, first: int, failures: Path, why: str
) -> None:
    """As `points`, of a program whose writes fail from one on: it ends in words, and the way back comes to the same."""
    from mmsa.reporting import report_errors

    ask_nobody()
    outputs, before, log, err = root / "outputs", root / "before", root / "log", root / "err"
    before.mkdir()
    wrong: dict[str, list[str]] = {}
    writes: list[str] = []

    def undisturbed() -> None:
        Writes(outputs, lambda number, what, opened: writes.append(what))
        scenario.command(outputs, data)
        (root / "writes.json").write_text(json.dumps(writes))
        (root / "state.json").write_text(json.dumps(scenario.state(outputs)))

    def failing(at: int) -> int:
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
        Writes(outputs, fails(at, why))
        return report_errors(lambda: scenario.command(outputs, data), False)

    outputs.mkdir()
    if forked(lambda: scenario.prepare(outputs, data), log):
        wrong["prepared"] = log.read_text().splitlines()[-12:]
    shutil.rmtree(before)
    shutil.copytree(outputs, before)
    if forked(undisturbed, log):
        wrong["undisturbed"] = log.read_text().splitlines()[-12:]
    writes = json.loads((root / "writes.json").read_text())
    tried = range(first, len(writes) + 1, every)
    for at in tried:
        shutil.rmtree(outputs)
        shutil.copytree(before, outputs)
        code = forked(partial(failing, at), root / "printed")
        words = err.read_text().splitlines()
        if code not in (0, 1) or len(words) > 10 or any("Traceback" in line for line in words):
            wrong[f"{at} {writes[at - 1]} ended by {code}"] = [*(root / "printed").read_text().splitlines(), *words]
        elif why == "full" and (silent := [path for path in records(outputs) if '"running"' in path.read_text()]):
            wrong[f"{at} {writes[at - 1]}"] = [f"{path} does not say how it ended" for path in silent]
        elif forked(lambda: back(scenario, root, data, (root / "printed").read_text()), log):
            wrong[f"{at} {writes[at - 1]}"] = [*log.read_text().splitlines()[-12:]]
    failures.write_text(json.dumps({"points": len(tried), "writes": len(writes), "wrong": wrong}))


def points(scenario: Scenario, root: Path, data: Path, every: int, first: int, failures: Path) -> None:
    """Crash a program at its writes, take the way back from each, and write down where its end differs.

    Args:
        scenario: the program, and the way back.
        root: a folder to work in.
        data: folder of the stores.
        every: which writes to try, from `first` on; 1 is all.
        first: number of the first write to try, from 1.
        failures: takes a JSON object: the numbers of points and of writes, and what is wrong at which.
    """
    ask_nobody()
    outputs, kept, log = root / "outputs", root / "kept", root / "log"
    outputs.mkdir()
    kept.mkdir()

    def watched() -> None:
        Writes(outputs, copies(outputs, kept, lambda number: number >= first and (number - first) % every == 0))
        scenario.command(outputs, data)
        (root / "state.json").write_text(json.dumps(scenario.state(outputs)))

    wrong: dict[str, list[str]] = {}
    if forked(lambda: scenario.prepare(outputs, data), log) or forked(watched, log):
        wrong["undisturbed"] = log.read_text().splitlines()[-12:]
    writes = (kept / "writes").read_text().splitlines()
    snapshots = sorted((path for path in kept.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    for snapshot in snapshots:
        shutil.rmtree(outputs)
        snapshot.rename(outputs)
        if forked(lambda: back(scenario, root, data), log):
            wrong[writes[int(snapshot.name) - 1]] = log.read_text().splitlines()[-12:]
    failures.write_text(json.dumps({"points": len(snapshots), "writes": len(writes), "wrong": wrong}))


def prepared_until(root: Path, at: int) -> None:
    """Prepare a corpus in `root`/outputs, and end the process at a write; or, where that is 0, keep copies at each.

    Args:
        root: a new folder.
        at: number of the write.
    """
    outputs, kept = root / "outputs", root / "kept"
    outputs.mkdir(parents=True)
    kept.mkdir()
    Preparation().prepare(outputs, root)
    Writes(outputs, dies(at) if at else copies(outputs, kept, lambda number: True))
    Preparation().command(outputs, root)
