"""PostgreSQL as the storage of a study and of the tracked runs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy

import mmsa
from mmsa.cli import command
from mmsa.errors import ConfigError
from mmsa.sweep.report import report
from mmsa.tracking.database import ensure_database
from tests.test_secrets import files_with
from tests.warm import CONTEXT, train

pytest_plugins = ["tests.sweep.postgres"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own

PROCESSES, TRIALS = 4, 40


@pytest.fixture(autouse=True)
def closed_connections() -> Iterator[None]:
    """Close what libraries keep open until the program ends."""
    yield
    for found in gc.get_objects():
        if issubclass(type(found), sqlalchemy.engine.Engine) and found.url.drivername.startswith("postgresql"):
            found.dispose()


def load_study(url: str, seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return optuna.create_study(storage=url, study_name="shared", sampler=sampler, load_if_exists=True)


def ask_and_tell(url: str, seed: int, told: Any) -> None:
    study = load_study(url, seed)
    for _ in range(TRIALS // PROCESSES):
        trial = study.ask()
        trial.set_user_attr("seed", seed)
        value = trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, value)
        told.put((trial.number, seed, value))


def test_processes_share_a_study_and_lose_nothing(postgres_url: str) -> None:
    study = load_study(postgres_url, 0)
    told = CONTEXT.Queue()
    workers = [CONTEXT.Process(target=ask_and_tell, args=(postgres_url, seed, told)) for seed in range(PROCESSES)]
    for worker in workers:
        worker.start()
    trials = sorted(told.get(timeout=120) for _ in range(TRIALS))
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    assert [number for number, _, _ in trials] == list(range(TRIALS)), "each number is given to one process"
    kept = [(trial.number, trial.user_attrs["seed"], trial.value) for trial in study.trials]
    assert kept == trials
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert all(trial.params["x"] == trial.value for trial in study.trials)


@contextmanager
def watched_workers() -> Iterator[set[str]]:
    """The command lines of the workers that run meanwhile, as the system lists them."""
    seen: set[str] = set()
    through = threading.Event()

    def watch() -> None:
        while not through.wait(0.5):
            lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
            seen.update(line for line in lines if "mmsa.sweep.worker" in line)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        through.set()
        watching.join()


def stored_text(url: str) -> str:
    """Every row of every table of a database."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            names = sqlalchemy.inspect(connection).get_table_names()
            rows = [connection.exec_driver_sql(f'SELECT t::text FROM "{name}" AS t').scalars().all() for name in names]
    finally:
        engine.dispose()
    return "\n".join(row for table in rows for row in table)


def test_a_run_is_tracked_and_no_password_is_shown(
    postgres_url: str,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    result = mmsa.run([*small, "tracking=mlflow", f"tracking.uri={postgres_url}"])
    assert result.run_id is not None
    shown = MlflowClient(tracking_uri=postgres_url).get_run(result.run_id)
    assert shown.info.status == "FINISHED"
    assert shown.data.metrics["test/mae"] == pytest.approx(result.metrics["test/mae"])
    assert shown.data.metrics["valid/mae"] == pytest.approx(result.score)
    history = MlflowClient(tracking_uri=postgres_url).get_metric_history(result.run_id, "epochs/valid/mae")
    assert [metric.step for metric in history] == [1, 2]

    artifacts = tmp_path / "outputs" / "mlartifacts" / "mmsa" / result.run_id / "artifacts"
    assert (artifacts / "config.yaml").is_file()
    assert not list(Path.cwd().iterdir()), "nothing is left in the working directory"

    password = sqlalchemy.make_url(postgres_url).password
    assert password
    database = stored_text(postgres_url)
    assert result.run_id in database and password not in database
    assert files_with(password, tmp_path) == []
    printed = capfd.readouterr()
    assert "run folder" in printed.out and password not in printed.out + printed.err


def test_a_sweep_keeps_its_study_and_its_runs_in_postgresql(
    postgres_url: str,
    second_postgres_url: str,
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from mlflow import MlflowClient

    search = [
        "sweep=search",
        "sweep.trials=3",
        "optimizer.lr=interval(0.001,0.01)",
        "fusion=concat",
        "sweep.study=shared",
    ]
    places = ["tracking=mlflow", f"sweep.storage={postgres_url}"]
    refused = train(*small, *search, *places, f"tracking.uri={postgres_url}")
    assert refused.returncode == 1 and "are one database" in refused.stderr
    more = ["trainer.max_epochs=1", "sweep.slots=1"]
    with watched_workers() as commands:
        done = train(*small, *search, *places, f"tracking.uri={second_postgres_url}", *more)
    assert done.returncode == 0 and "3 of 3 trials done" in done.stdout, done.stderr + done.stdout
    client = MlflowClient(tracking_uri=second_postgres_url)
    experiment = client.get_experiment_by_name("mmsa")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags.get("trial", "study") for run in runs) == ["0", "1", "2", "study"]
    assert {run.info.status for run in runs} == {"FINISHED"} and {run.data.tags["sweep"] for run in runs} == {"shared"}
    (study,) = (run for run in runs if run.data.tags.get("kind") == "study")
    values = [run.data.metrics["valid/mae"] for run in runs if "trial" in run.data.tags]
    assert study.data.metrics["best/valid/mae"] == pytest.approx(min(values))
    password = sqlalchemy.make_url(postgres_url).password
    assert password and commands and password not in str(commands)
    assert password not in stored_text(postgres_url) + stored_text(second_postgres_url) + done.stdout + done.stderr
    assert files_with(password, tmp_path) == []

    folder = tmp_path / "outputs" / "sweeps" / "shared"
    with pytest.raises(ConfigError, match=r"secret is stored nowhere.\n  type export MMSA_STORAGE=ADDRESS"):
        command(["worker", str(folder)])
    monkeypatch.setenv("MMSA_STORAGE", second_postgres_url)
    with pytest.raises(ConfigError, match=r"MMSA_STORAGE names .*, but sweep\.storage is"):
        command(["worker", str(folder)])
    monkeypatch.setenv("MMSA_STORAGE", postgres_url)
    with pytest.raises(ConfigError, match=r"secret is stored nowhere.\n  type export MMSA_TRACKING=ADDRESS"):
        command(["worker", str(folder)])
    assert "3 of 3 trials done" in report(tmp_path / "outputs", "shared")
    assert password not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_processes_that_race_make_one_tracking_database(postgres_url: str, tmp_path: Path) -> None:
    with ProcessPoolExecutor(PROCESSES, CONTEXT) as pool:
        racing = [pool.submit(ensure_database, postgres_url, tmp_path / "outputs") for _ in range(PROCESSES)]
        assert len({one.result() for one in racing}) == 1
