"""Scenarios of crashes: a program, the way back from wherever it ends, and the state that is reached."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ELSEWHERE = ("trainer.resume", "paths.outputs", "paths.data")
"""Options that say where a run is, or that it was resumed."""


def said(*words: str) -> str:
    """What `mmsa WORDS` prints."""
    from mmsa.cli import command

    with contextlib.redirect_stdout(io.StringIO()) as out:
        command(list(words))
    return out.getvalue()


def resumed(text: str) -> list[list[str]]:
    """The overrides of the printed lines that resume a run."""
    lines = re.findall(r"resume it: (.*)$", text, flags=re.MULTILINE)
    return [[word for word in shlex.split(line) if "=" in word] for line in lines]


def state(outputs: Path) -> dict[str, Any]:
    """Everything that a user sees under an outputs folder, without times and random names."""
    from mmsa.record import RunRecord

    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for folder in sorted((outputs / "runs").iterdir()):
        record = RunRecord.read(folder)
        names[folder.name] = f"run {record.name}"
        kept = record.model_dump(include={"status", "reason", "best_epoch", "epochs", "weights", "trial"})
        files = {name: (folder / name).read_text() for name in ("history.csv", "predictions.csv")}
        found.setdefault(f"run {record.name}", []).append({**kept, **files, "metrics": repr(dict(record.metrics))})
    ids = {}
    with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        entries = database.execute(
            "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'"
        ).fetchall()
        for run_id, name, status in sorted(entries, key=lambda entry: entry[1]):
            ids[run_id] = f"entry of {name}"
            metrics = database.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run_id,)).fetchall()
            tags = dict(database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,)).fetchall())
            params = dict(database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)).fetchall())
            found.setdefault(f"entry of {name}", []).append(
                {
                    "status": status,
                    "metrics": sorted(metrics if tags.get("kind") != "study" else {metric[0] for metric in metrics}),
                    "params": {name: value for name, value in params.items() if name not in ELSEWHERE},
                    "tags": sorted(name for name in tags if name != "resumed with"),
                    # That of a study has times, and the paths of the command that goes on.
                    "text": None if tags.get("kind") == "study" else tags.get("mlflow.note.content"),
                    "folder": names.get(Path(tags["folder"]).name),
                }
            )
    files = (path.relative_to(outputs).parts for path in outputs.rglob("*") if path.is_file())
    for parts in sorted(files):
        text = "/".join(names.get(part, ids.get(part, part)) for part in parts)
        if not text.endswith((".lock", "-wal", "-shm")) or text.endswith("/.lock"):
            found.setdefault("files", []).append(text)
    return found


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two states differ, in words."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if key not in one or key not in other:
                yield f"{place}/{key} is {'missing' if key not in other else 'too much'}"
            else:
                yield from differences(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and one and isinstance(one[0], str):
        yield from (f"{place}: {'missing' if item in one else 'too much'}: {item}" for item in set(one) ^ set(other))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            yield from differences(mine, theirs, f"{place}/{number}")
    elif one != other:
        yield f"{place}: {str(one)[:150]} became {str(other)[:150]}"


class Scenario:
    """A program that may crash at any write, and what a user types then. All of it works in one outputs folder."""

    def prepare(self, outputs: Path, data: Path) -> None:
        """What is there before."""

    def command(self, outputs: Path, data: Path) -> None:
        """What the user types."""
        raise NotImplementedError

    def way_back(self, outputs: Path, data: Path, printed: str = "") -> None:
        """What the user types after a crash, or after a failure that printed something: the same."""
        self.command(outputs, data)

    def state(self, outputs: Path) -> dict[str, Any]:
        """What there is in the end."""
        return state(outputs)


OPTIONS = ("dataset=synthetic", "device=cpu", "tracking=mlflow", "hidden_dim=6", "fusion=concat")


class FirstRun(Scenario):
    """A first run in an empty outputs folder; one that has a checkpoint is resumed by the line that is printed."""

    def command(self, outputs: Path, data: Path) -> None:
        import mmsa

        mmsa.run([f"paths.outputs={outputs}", f"paths.data={data}", *OPTIONS, "trainer.max_epochs=2"])

    def way_back(self, outputs: Path, data: Path, printed: str = "") -> None:
        import mmsa
        from mmsa.analysis.selection import read_runs

        read_truly(outputs)
        told = resumed(said("track", "--all", "--outputs", str(outputs)) + printed)
        for overrides in told:
            mmsa.run(overrides)
        if not told and not read_runs(outputs).runs:
            self.command(outputs, data)


class FailedRun(FirstRun):
    """The same, where a run that fails before its first checkpoint stays with its reason, and is no result."""

    def state(self, outputs: Path) -> dict[str, Any]:
        for folder, record in read_truly(outputs).items():
            if record.status == "failed":
                assert "resume it" not in (outputs / "runs" / folder / "run.log").read_text()
                shutil.rmtree(outputs / "runs" / folder)
        whole = state(outputs)
        for name, entries in whole.items():
            if name.startswith("entry of "):
                whole[name] = [entry for entry in entries if entry["status"] != "FAILED"]
        return whole


class TypedAgain(FirstRun):
    """The same, where the user only types the command again: what has died is closed and can be resumed."""

    def way_back(self, outputs: Path, data: Path, printed: str = "") -> None:
        from mmsa.settling import DIED

        self.command(outputs, data)
        for folder in sorted((outputs / "runs").iterdir())[:-1]:
            record = read_truly(outputs)[folder.name]
            assert record.status == "finished" or record.reason == DIED
            assert (folder / "checkpoints" / "last.pt").exists() == (record.status == "failed")
        with contextlib.closing(sqlite3.connect(outputs / "mlflow.db")) as database:
            shown = database.execute("SELECT status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        assert len(shown) == len(list((outputs / "runs").iterdir())) and ("RUNNING",) not in shown

    def state(self, outputs: Path) -> dict[str, Any]:
        for folder in sorted((outputs / "runs").iterdir())[:-1]:
            shutil.rmtree(folder)
        whole = state(outputs)
        return {name: found for name, found in whole.items() if name.startswith("run ")}


class ResumedRun(Scenario):
    """A run that was stopped after an epoch, and goes on."""

    def prepare(self, outputs: Path, data: Path) -> None:
        from mmsa.journal import Journal

        def stop(journal: Journal, *arguments: Any) -> None:
            raise KeyboardInterrupt

        whole, Journal.epoch = Journal.epoch, stop  # type: ignore[method-assign]
        with contextlib.suppress(KeyboardInterrupt):
            FirstRun().command(outputs, data)
        Journal.epoch = whole  # type: ignore[method-assign]

    def command(self, outputs: Path, data: Path) -> None:
        import mmsa

        read_truly(outputs)
        (folder,) = (outputs / "runs").iterdir()
        mmsa.run([f"trainer.resume={folder}"])


class Search(Scenario):
    """A search, with its parent and its worker in one process."""

    def made(self, *places: str) -> Any:
        """The sweep."""
        from tests.sweep.sweeps import make

        return make(*places, *OPTIONS, "sweep.trials=2", "optimizer.lr=interval(0.001, 0.01)")

    def command(self, outputs: Path, data: Path) -> None:
        from mmsa.sweep import worker
        from mmsa.sweep.hydra_sweep import announce, conclude, study_run

        read_truly(outputs)
        places = [f"paths.outputs={outputs}", f"paths.data={data}"]
        made = self.made(*places, "trainer.max_epochs=1", "sweep.storage_minutes=0.01")  # failing writes cost no wait
        display = announce(made, ["here"], 1, (), study_run(made))
        with contextlib.redirect_stderr(io.StringIO()):  # which a worker has in a file of its own
            while worker.work(Path(made.spec.folder)) == worker.REPLACE:
                continue
        conclude(made, display, None, "nothing is left")

    def state(self, outputs: Path) -> dict[str, Any]:
        from mmsa.sweep.storage import open_study

        (folder,) = (outputs / "sweeps").iterdir()
        trials = open_study(folder).get_trials()
        found = [f"{trial.number} {trial.state.name} {trial.values} {trial.params}" for trial in trials]
        return {**state(outputs), "trials": found}


class Grid(Search):
    """Two points of a grid that train together, and after a crash alone, to equal bits up to rounding."""

    def made(self, *places: str) -> Any:
        from mmsa import seeds
        from tests.sweep.sweeps import GRID, make

        seeds.FEWEST = 2
        return make(*places, *OPTIONS, "seed=1,2", "trainer.batch_size=150", option="grid", sampler=GRID)

    def state(self, outputs: Path) -> dict[str, Any]:
        whole = super().state(outputs)
        for name, held in whole.items():
            for one in held if name.startswith(("run ", "entry ")) else ():
                for bits in ("weights", "history.csv", "predictions.csv", "metrics", "text"):
                    one.pop(bits, None)
        whole["trials"] = [re.sub(r"[\d.]+(?=\])", "VALUE", trial) for trial in whole["trials"]]
        return whole


class Preparation(Scenario):
    """Computational sequences become a store."""

    def prepare(self, outputs: Path, data: Path) -> None:
        from tests.dataset.corpora import tiny_sequences, write_corpus

        write_corpus(outputs / "source", tiny_sequences())

    def command(self, outputs: Path, data: Path) -> None:
        from tests.dataset.corpora import Tiny

        Tiny(str(outputs / "source")).prepare(outputs / "data", progress=False)

    def state(self, outputs: Path) -> dict[str, Any]:
        kept = [path for path in (outputs / "data").iterdir() if path.suffix != ".lock"]
        # The kept hashes of the sources name the times of files, which are copies here.
        return {path.name: str(path.read_bytes()) if path.suffix == ".h5" else "" for path in kept}


def read_truly(outputs: Path) -> dict[str, Any]:
    """The records of all runs, none of which is said to go on."""
    from mmsa.analysis.selection import read_runs
    from mmsa.occupancy import run_folders
    from mmsa.record import RunRecord

    read_runs(outputs)
    records = {folder.name: RunRecord.read(folder) for folder in run_folders(outputs)}
    assert not [name for name, record in records.items() if record.status == "running"]
    return records
