"""`mmsa clean`: it shows what nobody reads any more, removes it on request, and never a result."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import mmsa
from mmsa import cli
from mmsa.errors import ConfigError
from mmsa.files import STALE
from mmsa.occupancy import give_back, new_folder, take
from mmsa.record import DIED, RunRecord
from tests.records import record

WEIGHTS = {"best.pt": b"b" * 2000, "last.pt": b"l" * 5000}


def run(outputs: Path, name: str, keep_last: bool = False, **changed: Any) -> Path:
    """The folder of a run, with all its files."""
    folder = outputs / "runs" / name
    (folder / "checkpoints").mkdir(parents=True)
    for file, content in WEIGHTS.items():
        (folder / "checkpoints" / file).write_bytes(content)
    (folder / "predictions.csv").write_text("id,fold,target,prediction\n")
    (folder / "config.yaml").write_text(f"trainer:\n  keep_last: {str(keep_last).lower()}\n")
    record(name=name, mlflow_run_id=f"id-{name}", **changed).write(folder)
    copy = outputs / "mlartifacts" / "mmsa" / f"id-{name}" / "artifacts" / "checkpoints" / "best.pt"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(WEIGHTS["best.pt"])
    return folder


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    outputs = tmp_path / "outputs"
    run(outputs, "finished")
    run(outputs, "kept", keep_last=True)
    run(outputs, "stopped", status="failed", reason="Ctrl-C")
    run(outputs, "pruned", status="pruned", sweep="search", trial=1)
    run(outputs, "given-up", status="running", sweep="search", trial=2)
    run(outputs, "resumed-later", status="failed", sweep="search", trial=3)
    run(outputs, "resumed", status="failed").joinpath("checkpoints", "best.pt").write_bytes(b"another")
    monkeypatch.setattr("mmsa.sweep.weights.given_up", lambda outputs: {("search", 2): "its worker died, 3 times"})
    (outputs / "data").mkdir()
    for name in (".new.h5.0123.tmp", ".old.h5.0123.tmp", "store.h5"):
        (outputs / "data" / name).write_bytes(b"half")
    long_ago = (outputs / "data" / "store.h5").stat().st_mtime - 2 * STALE
    os.utime(outputs / "data" / ".old.h5.0123.tmp", (long_ago, long_ago))
    (outputs / "runs" / "finished" / ".history.csv.17.tmp").write_bytes(b"half")
    hidden, lock = new_folder(outputs)
    lock.release()
    (hidden / "config.yaml").write_bytes(b"half")
    return outputs


def cleaned(capsys: pytest.CaptureFixture[str], outputs: Path, *words: str) -> str:
    capsys.readouterr()
    cli.command(["clean", "--outputs", str(outputs), *words])
    return capsys.readouterr().out


def files(outputs: Path) -> set[str]:
    return {str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.is_file()}


def copies(*names: str) -> set[str]:
    return {f"mlartifacts/mmsa/id-{name}/artifacts/checkpoints/best.pt" for name in names}


GONE = {
    "runs/finished/checkpoints/last.pt",
    "runs/finished/.history.csv.17.tmp",
    *(f"runs/{name}/checkpoints/{file}" for name in ("pruned", "given-up") for file in WEIGHTS),
    *copies("finished", "kept", "stopped", "pruned", "given-up", "resumed-later"),
    "data/.old.h5.0123.tmp",
}


def test_it_shows_what_would_go_and_removes_that_alone(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(outputs)
    shown = cleaned(capsys, outputs)
    assert files(outputs) == before
    hidden = {name for name in before if "/.unfinished-" in name}
    listed = set(re.findall(rf"(?:B|bytes)  {re.escape(str(outputs))}/(.*)$", shown, re.M))
    assert {path for path in listed if "unfinished" not in path} == GONE and len(listed) == len(GONE) + 1
    assert "5 checkpoints that nobody resumes: 19.0 kB" in shown and "6 MLflow's copies of weights: 12.0 kB" in shown
    *_, typed = shown.splitlines()[-1].partition("remove it: ")
    cli.command(shlex.split(typed)[1:])
    assert before - files(outputs) == GONE | hidden and not files(outputs) - before
    assert RunRecord.read(outputs / "runs" / "given-up").reason == "its worker died, 3 times"
    assert "holds nothing that can go" in cleaned(capsys, outputs, "--yes")


def test_the_model_of_a_pack_that_was_killed_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    for name in ("reviews", ".killed.17.tmp", ".living.18.tmp"):
        (models / name).mkdir(parents=True)
        (models / name / "model.safetensors").write_bytes(b"half")
    long_ago = models.stat().st_mtime - 2 * STALE
    for name in ("reviews", ".killed.17.tmp"):
        os.utime(models / name, (long_ago, long_ago))
    assert f"4 bytes  {models / '.killed.17.tmp'}\n1 leftovers" in cleaned(capsys, tmp_path)
    cleaned(capsys, tmp_path, "--yes")
    assert sorted(path.name for path in models.iterdir()) == [".living.18.tmp", "reviews"]


def test_runs_under_way_are_left_alone(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(outputs)
    locks = {name: take(outputs / "runs" / name) for name in ("finished", "pruned", "given-up")}
    with pytest.raises(ConfigError, match=r"another process works in this run \(process \d+, in this run\)\.\n  wait"):
        take(outputs / "runs" / "finished")
    cleaned(capsys, outputs, "--yes")
    for name, lock in locks.items():
        assert not {path for path in before - files(outputs) if f"/{name}/" in path or f"id-{name}/" in path}
        give_back(outputs / "runs" / name, lock, settled=True)


def test_the_folders_of_others_are_left_alone(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = outputs.parent / "elsewhere"
    (outputs / "runs" / "finished").rename(elsewhere)
    (outputs / "runs" / "finished").symlink_to(elsewhere)
    (outputs / "runs" / "pruned" / "result.json").write_text("damaged")
    cleaned(capsys, outputs, "--yes")
    assert (elsewhere / "checkpoints" / "last.pt").exists()
    assert (outputs / "runs" / "pruned" / "checkpoints" / "last.pt").exists()


@pytest.mark.parametrize("at", range(1, 12, 2))
def test_killed_meanwhile_it_goes_on_where_it_was(
    at: int, outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, unlink, left = files(outputs), Path.unlink, [at]

    def killed(path: Path, missing_ok: bool = False) -> None:
        left[0] -= not path.name.endswith(".lock")
        if not left[0]:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", killed)
        cleaned(capsys, outputs, "--yes")
    assert RunRecord.read(outputs / "runs" / "given-up").reason in (DIED, "its worker died, 3 times")
    cleaned(capsys, outputs, "--yes")
    assert {name for name in before - files(outputs) if "/.unfinished-" not in name} == GONE


@pytest.mark.slow
def test_a_finished_run_on_the_built_in_corpus_keeps_at_most_5_mb(stores: Path, tmp_path: Path) -> None:
    mmsa.run([f"paths.data={stores}", f"paths.outputs={tmp_path}", "device=cpu", "trainer.max_epochs=2"], quiet=True)
    kept = sum(path.stat().st_size for folder in ("runs", "mlartifacts") for path in (tmp_path / folder).rglob("*.*"))
    assert 2e6 < kept < 5e6
