"""A sweep from the command line: it ends with its total, resumes after a kill, and never sees the test fold."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from hydra_plugins.hydra_optuna_sweeper.config import TPESamplerConfig
from optuna.trial import TrialState

from mmsa.sweep.storage import open_study
from tests.conftest import ROOT
from tests.sweep.sweeps import make, work
from tests.warm import Program, train, typed

TPE = asdict(TPESamplerConfig(n_startup_trials=2))
OUTPUTS = "it's (1) é"
SPACE = ["optimizer.lr=tag(log,interval(1e-3,1e-2))", "feedback=none,static"]


@pytest.fixture
def quick(stores: Path, tmp_path: Path, undrawn: None) -> list[str]:
    """Overrides of trials of less than a second, typed in `tmp_path`."""
    return [
        "sweep=search",
        f"paths.data={stores}",
        f"paths.outputs={OUTPUTS}",
        "tracking=none",
        "device=cpu",
        "hidden_dim=4",
        "fusion=concat",
        "trainer.max_epochs=1",
        "dataset.modalities=[text,audio]",
        "sweep.pruner=none",
        "sweep.study=study",
        *SPACE,
    ]


def study_of(tmp_path: Path) -> optuna.Study:
    return open_study(tmp_path / OUTPUTS / "sweeps" / "study")


def results(outputs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(outputs.glob("runs/*/result.json"))]


def points(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, tuple(t.params.items()), tuple(t.values or ())) for t in study.trials]


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def num_done(tmp_path: Path) -> int:
    try:
        return sum(trial.state == TrialState.COMPLETE for trial in study_of(tmp_path).trials)
    except Exception:  # noqa: BLE001  (not there yet, or half made)
        return 0


def lines_to_type(printed: str) -> tuple[str, str]:
    """The command that trains the best trial again, and the one that prints the table again."""
    *_, rerun, table = printed.splitlines()
    return rerun.strip(), table.removeprefix("the same table later: ")


def test_a_search_without_m_ends_with_its_total_and_a_command_that_meets_the_test_fold(
    quick: list[str], tmp_path: Path
) -> None:
    done = train(*quick, "sweep.trials=3", "sweep.seeds=2", "sweep.slots=2", cwd=tmp_path, forks=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert [trial.state for trial in study_of(tmp_path).trials] == [TrialState.COMPLETE] * 3
    runs = results(tmp_path / OUTPUTS)
    assert len(runs) == 6 and {run["seed"] for run in runs} == {1, 2}
    assert all(run["sweep"] == "study" and run["status"] == "finished" for run in runs)
    assert not any(name.startswith("test/") for run in runs for name in run["metrics"])
    assert len([line for line in done.stdout.splitlines() if re.match(r"trial +\d+  valid/mae", line)]) == 3

    rerun, table = lines_to_type(done.stdout)
    *shown, again = typed(table, cwd=tmp_path).stdout.splitlines()
    assert "\n".join(shown) in done.stdout
    assert again.partition("mmsa train ")[2] == rerun.partition(f"python {ROOT}/train.py ")[2] != ""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    report = f"mmsa report --outputs {shlex.quote(f'../{OUTPUTS}')} --sweep study"
    rerun = typed(report, cwd=elsewhere).stdout.splitlines()[-1].strip()
    assert rerun.startswith(f"cd {tmp_path} && ")
    done = typed(f"{rerun} sweep.slots=1", cwd=elsewhere, forks=True)
    assert done.returncode == 0 and not list(elsewhere.iterdir()), done.stderr + done.stdout
    assert "(5 seeds)" in done.stdout.replace("\n", " ") and "test fold" in done.stdout
    final = results(tmp_path / OUTPUTS)[6:]
    assert {run["seed"] for run in final} == {3, 4, 5, 6, 7} and all("test/mae" in run["metrics"] for run in final)


def test_killed_workers_and_a_killed_parent_cost_nothing(quick: list[str], tmp_path: Path) -> None:
    one = ["sweep.trials=7", "sweep.slots=1", "hydra.sweeper.sampler.n_startup_trials=2", "trainer.max_epochs=2"]
    asked = [word for word in (*quick, *one) if not word.startswith(("sweep=", "hydra"))]
    whole = work(make(*asked, f"paths.outputs={tmp_path / 'whole'}", sampler=TPE))
    with Program(*quick, *one, cwd=tmp_path, forks=True) as parent:
        wait_for(lambda: num_done(tmp_path) >= 1)
        (worker,) = psutil.Process(parent.pid).children()
        worker.kill()
        wait_for(lambda: num_done(tmp_path) >= 2)
        parent.kill()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    joined = f"mmsa worker {shlex.quote(f'../{OUTPUTS}/sweeps/study')} --slots 1"
    done = typed(joined, cwd=elsewhere)  # its worker waits until the orphan has ended its trial
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"  to resume: {joined}\n" in done.stdout
    assert typed(lines_to_type(done.stdout)[1], cwd=elsewhere).stdout in done.stdout
    assert points(study_of(tmp_path)) == points(whole)
    assert len([run for run in results(tmp_path / OUTPUTS) if run["status"] == "finished"]) == 7


def test_control_c_once_lets_trials_finish_and_twice_stops_them(quick: list[str], tmp_path: Path) -> None:
    longer = [*quick, "sweep.trials=40", "sweep.slots=1", "trainer.max_epochs=3"]
    with Program(*longer, cwd=tmp_path) as parent:
        wait_for(lambda: num_done(tmp_path) >= 1)
        parent.send_signal(signal.SIGINT)
        printed, told = parent.communicate(timeout=120)
    assert parent.returncode == 130, printed + told
    trials = study_of(tmp_path).trials
    assert all(trial.state == TrialState.COMPLETE for trial in trials) and "no further trials" in printed
    *_, line = printed.splitlines()
    done = typed(f"{line.partition('; resume it: ')[2]} sweep.trials={len(trials)} sweep.timeout=0.001", cwd=tmp_path)
    assert done.returncode == 0 and f"({len(trials)} of them done)" in done.stdout, done.stdout + done.stderr
    assert len(study_of(tmp_path).trials) == len(trials)

    folder = tmp_path / OUTPUTS / "runs"
    endless = ["trainer.max_epochs=500", "trainer.patience=500", "sweep.study=long"]
    with Program(*longer, *endless, cwd=tmp_path, forks=True) as parent:
        wait_for(lambda: any(folder.glob("*500*/checkpoints/last.pt")))
        for _ in range(2):
            parent.send_signal(signal.SIGINT)
            time.sleep(0.5)
        parent.communicate(timeout=120)
    (trial,) = open_study(tmp_path / OUTPUTS / "sweeps" / "long").trials
    assert trial.state == TrialState.RUNNING and trial.user_attrs["attempts"] == 0
    (run,) = folder.glob("*500*")
    assert (
        json.loads((run / "result.json").read_text())["status"] == "failed" and (run / "checkpoints/last.pt").exists()
    )


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("optimizer.lrr=interval(0.1,1)", "optimizer.lr=VALUE"),
        ("sweep.storage=postgresql://nobody@127.0.0.1:1/none", "cannot be opened"),
        ("sweep.sedes=3", "sweep.seeds"),
        ("+hydra.sweeper.sampler.foo=1", "foo"),
    ],
)
def test_what_is_wrong_is_said_before_a_trial_starts(
    quick: list[str], tmp_path: Path, argument: str, said: str
) -> None:
    done = train(*quick, argument, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert said in done.stderr and len(done.stderr.strip().splitlines()) <= 10, done.stderr
    assert not (tmp_path / OUTPUTS / "runs").exists()
