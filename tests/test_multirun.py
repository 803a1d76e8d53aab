"""Many runs at once: a table at the end, a failing run that stops no other, workers, tracking and Optuna."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmsa import cli, parts
from mmsa.compose import compose
from mmsa.multirun import MultirunCallback
from mmsa.record import RunRecord
from mmsa.run_folder import NUM_RUNS_VARIABLE, SWEEP_VARIABLE
from tests.conftest import ROOT
from tests.test_command_line import own_methods, start_python
from tests.warm import Program, train, typed

MAX_LINES_OF_A_FAILURE = 10


@pytest.fixture
def places(stores: Path, tmp_path: Path) -> list[str]:
    """Overrides of small, quick runs on the built-in corpus, written under `tmp_path`."""
    return [
        "-m",
        f"paths.data={stores}",
        f"paths.outputs={tmp_path / 'outputs'}",
        "device=cpu",
        "hidden_dim=6",
        "trainer.max_epochs=1",
        "fusion=concat",
    ]


def last_table(printed: str) -> tuple[str, list[str]]:
    """The table that a multirun ends with, and the command that prints it again."""
    text, _, command = printed.rstrip().rpartition("\nthe same table later: ")
    return text[text.rindex("synthetic, test fold") :], shlex.split(command)


def test_seeds_and_methods_end_in_a_table_that_mmsa_report_prints_again(
    places: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    working = tmp_path / "working"
    working.mkdir()
    done = train(*places, "tracking=none", "seed=1,2", "feedback=none,static", cwd=working)
    assert done.returncode == 0, done.stderr
    assert not list(working.iterdir())
    said = re.findall(r"^ *(\d of 4)(?:  |: )", done.stdout, flags=re.MULTILINE)
    assert said == [f"{number} of 4" for number in (1, 1, 2, 2, 3, 3, 4, 4)], "as it begins, and as it ends"
    table, command = last_table(done.stdout)
    assert all(re.search(rf"\bfeedback={feedback} .* \d\.\d+", table) for feedback in ("none", "static"))
    assert len(re.findall(r"\(2\b", table)) == 2 and len(re.findall(r"± \d\.\d+", table)) >= 12
    assert "mean ± sample standard deviation over seeds" in table and "ridge joint" in table

    assert command[:2] == ["mmsa", "report"] and "--sweep" in command
    cli.command(command[1:])
    assert capsys.readouterr().out.rstrip() == table.rstrip()
    everything = ["report", "--outputs", str(tmp_path / "outputs")]
    cli.command(everything)
    assert capsys.readouterr().out.rstrip() == table.rstrip()
    cli.command([*everything, "--format", "csv"])
    csv = capsys.readouterr().out
    cli.command([*everything, "--format", "markdown"])
    markdown = capsys.readouterr().out
    assert "feedback=static" in csv and "feedback=static" in markdown and "| mean |" in markdown and "±" in markdown


def test_a_run_that_fails_stops_no_other(places: list[str]) -> None:
    done = train(*places, "tracking=none", "seed=1,2", "optimizer.lr=1e30,0.001")
    assert done.returncode == 1
    table, _ = last_table(done.stdout)
    assert "optimizer.lr=0.001" in table and "(2" in table and "e30" not in table and "e+30" not in table
    assert "2 unfinished run folders left out" in table
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("Preparing")]
    assert len(told) <= MAX_LINES_OF_A_FAILURE
    assert [line[:16] for line in told if "loss is nan" in line][:2] == ["failed: 1 of 4  ", "failed: 3 of 4  "]
    assert any(line.startswith("error: the training loss is nan") for line in told)
    assert "optimizer.lr" in told[-1]


def test_an_interrupted_multirun_names_what_is_not_run_and_its_results_are_where_they_always_are(
    places: list[str], tmp_path: Path
) -> None:
    """Under hydra.job.chdir=true too, with which Hydra leaves each job in a folder of its own."""
    asked = [*places[:2], "paths.outputs=out", *places[3:5], "fusion=concat", "tracking=none", "hydra.job.chdir=true"]
    jobs = ["trainer.max_epochs=1,200", "trainer.patience=200", "seed=1,2"]
    with Program(*asked, *jobs, cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("out/runs/*/checkpoints/best.pt"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in err
    statuses = [RunRecord.read(folder).status for folder in sorted((tmp_path / "out" / "runs").iterdir())]
    assert statuses == ["finished", "finished", "failed"]
    table, rest = out[out.index("synthetic, test fold") :].split("\nthe same table later: ")
    assert "(2 seeds)" in table
    _, told, first, second, command = rest.splitlines()
    assert told == "stopped: 2 of 4 runs are not finished:"
    assert (first, second) == ("  trainer.max_epochs=200 seed=1", "  trainer.max_epochs=200 seed=2")
    assert command.endswith(" ".join(jobs))
    command = command.removeprefix("a grid keeps count of its runs, and the same command resumes it: ")
    done = typed(f"{command} sweep.slots=1 sweep.timeout=0.001", cwd=tmp_path)
    assert done.returncode == 0 and "a grid of 4 points" in done.stdout, done.stdout + done.stderr
    assert not list(tmp_path.glob("out/sweeps/*/out"))


def test_an_outputs_folder_that_is_a_file(places: list[str], tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("")
    done = train(*places, "seed=1,2")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: paths.outputs={tmp_path / 'outputs'}: {tmp_path / 'outputs'} is a file, a folder is needed.",
        "  type paths.outputs=FOLDER",
    ]


def test_an_empty_outputs_folder_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = train("-m", "paths.outputs=", "seed=1,2", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: paths.outputs= is empty")
    assert not list(tmp_path.iterdir())


def test_imports_that_ctrl_c_has_cut_short_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mmsa.experiment", raising=False)
    monkeypatch.setitem(sys.modules, "mmsa.analysis.selection", None)  # importing it fails
    config = OmegaConf.create({"hydra": {"launcher": {"_target_": "hydra._internal.core_plugins.BasicLauncher"}}})
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            MultirunCallback().on_multirun_end(config)


BASIC = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "params": None}


@pytest.mark.parametrize(
    ("sweeper", "typed", "num_runs"),
    [
        (BASIC, ["seed=1,2,3", "dataset.modalities=[text],[text,audio]", "hidden_dim=6"], "6"),
        ({**BASIC, "params": {"seed": "range(5)"}}, ["hidden_dim=6,8"], "10"),
        (BASIC, ["seed=1,2", "encoder@encoder.text=${encoder}"], "2"),
        (BASIC, ["optimizer.lr=interval(0.1,1)"], None),  # which Hydra refuses
        ({"_target_": "hydra_plugins.OptunaSweeper", "n_trials": 7}, ["optimizer.lr=interval(0.1,1)"], "7"),
        ({"_target_": "a.Sweeper"}, ["seed=1,2"], None),
    ],
)
def test_the_parent_makes_the_database_names_the_multirun_and_counts_its_runs_before_any_run_starts(
    sweeper: dict[str, Any],
    typed: list[str],
    num_runs: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(SWEEP_VARIABLE, raising=False)
    named: list[str | None] = []
    tracker = SimpleNamespace(prepare=lambda: named.append(os.environ.get(SWEEP_VARIABLE)))
    monkeypatch.setattr(parts, "build_tracker", lambda config, warn: tracker)
    config, callback = compose([f"paths.outputs={tmp_path}"]), MultirunCallback()
    of_hydra = {"launcher": {"_target_": "a.Launcher"}, "sweeper": sweeper, "overrides": {"task": typed}}
    OmegaConf.update(config, "hydra", of_hydra, force_add=True)
    callback.on_multirun_start(config)
    assert named == [None] and re.fullmatch(r"\d{8}-\d{6}-\w{6}", os.environ[SWEEP_VARIABLE])
    assert os.environ.get(NUM_RUNS_VARIABLE) == num_runs
    callback.on_multirun_end(config)
    assert not {SWEEP_VARIABLE, NUM_RUNS_VARIABLE} & set(os.environ)
    assert capsys.readouterr().out == "", "no run finished: there is no table"


def test_a_run_whose_worker_was_killed_does_not_run_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A launcher that is interrupted kills its workers at once."""
    monkeypatch.setenv(SWEEP_VARIABLE, "this")
    folder = tmp_path / "runs" / "a"
    shutil.copytree(ROOT / "tests" / "former" / "outputs" / "runs" / "stopped", folder)
    RunRecord.read(folder).model_copy(update={"sweep": "this", "status": "running"}).write(folder)
    (folder / ".lock").touch()
    config = compose([f"paths.outputs={tmp_path}", "tracking=none"])
    launcher, sweeper = {"_target_": "hydra_plugins.JoblibLauncher"}, {"_target_": "a.Sweeper"}
    OmegaConf.update(config, "hydra", {"launcher": launcher, "sweeper": sweeper}, force_add=True)
    with pytest.raises(KeyboardInterrupt):
        try:
            raise KeyboardInterrupt
        finally:
            MultirunCallback().on_multirun_end(config)
    assert json.loads((folder / "result.json").read_text())["status"] == "failed" and not (folder / ".lock").exists()
    assert capsys.readouterr().out.count(f"trainer.resume={folder}") == 1


@pytest.mark.slow
def test_workers_run_a_method_of_ones_own(places: list[str], tmp_path: Path) -> None:
    own, environment = own_methods(tmp_path / "own")
    workers = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    grid = ["fusion=gated", "optimizer.lr=0.001,1e30"]
    done = start_python(*own, *places[:-1], *workers, "tracking=none", *grid, environment=environment)
    assert done.returncode == 1
    table, _ = last_table(done.stdout)
    assert "fusion=gated" in table and "1 unfinished run folder left out" in table
    assert not re.search("Traceback|Warning", done.stderr + done.stdout), done.stderr
    assert sum(line.startswith("failed: 2 of 2  ") for line in done.stderr.splitlines()) == 1
    assert not re.search(r"^(  epoch|selected) ", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^  1 of 2: valid/mae ", done.stdout, flags=re.MULTILINE)


@pytest.mark.slow
def test_workers_share_the_tracking_database(places: list[str], tmp_path: Path) -> None:
    workers = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = start_python(*places, *workers, "tracking=mlflow", "seed=1,2", "optimizer.lr=0.001,1e30")
    assert done.returncode == 1
    assert not re.search("Traceback|Warning|locked|Tracking failed", done.stderr + done.stdout), done.stderr
    _, command = last_table(done.stdout)
    with closing(sqlite3.connect(tmp_path / "outputs" / "mlflow.db")) as database:
        names = database.execute("SELECT name FROM experiments WHERE name != 'Default'").fetchall()
        runs = database.execute("SELECT status FROM runs").fetchall()
        sweeps = database.execute("SELECT value FROM tags WHERE key = 'sweep'").fetchall()
        parents = database.execute("SELECT value FROM tags WHERE key = 'mlflow.parentRunId'").fetchall()
    assert names == [("mmsa",)]
    assert sorted(runs) == [("FAILED",), ("FAILED",), ("FINISHED",), ("FINISHED",)]
    assert sweeps == [(command[command.index("--sweep") + 1],)] * 4 and not parents


@pytest.mark.slow
def test_the_plain_optuna_sweeper(places: list[str], tmp_path: Path) -> None:
    working = tmp_path / "working"
    working.mkdir()
    study = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2"]
    space = "optimizer.lr=tag(log, interval(0.0001, 0.01))"
    done = train(*places, "tracking=none", *study, space, cwd=working)
    assert done.returncode == 0, done.stderr
    table, _ = last_table(done.stdout)
    assert len(re.findall(r"optimizer\.lr=0\.0", table)) == 2
    assert not list(working.iterdir())
    (best,) = (tmp_path / "outputs" / "sweeps").glob("*/optimization_results.yaml")
    assert "best_value" in best.read_text()
