from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest

from mmsa.sweep.study_run import StudyRun, description
from mmsa.sweep.summary import rerun_command, summarise
from mmsa.tracking.mlflow import MLflowTracker
from tests.sweep.studies import new_study, realistic_study, trial

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One outputs folder for the module: making the schema takes seconds."""
    return tmp_path_factory.mktemp("outputs")


def shown_in(outputs: Path) -> StudyRun:
    def refuse(line: str) -> None:
        pytest.fail(line)

    return StudyRun(MLflowTracker(outputs, warn=refuse))


def read(outputs: Path, run_id: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{outputs}/mlflow.db").get_run(run_id)


def history(outputs: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as connection:
        query = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step"
        return connection.execute(query, (run_id, name)).fetchall()


def opened(run: StudyRun, study: optuna.Study, run_id: str | None = None) -> str:
    found = run.open(summarise(study), run_id)
    assert found is not None
    return found


def test_the_run_of_a_study_follows_its_trials(outputs: Path) -> None:
    study, run = new_study(planted=True), shown_in(outputs)
    run_id = opened(run, study)
    tags = read(outputs, run_id).data.tags
    expected = {"kind": "study", "sweep": "mmlatch", "dataset": "cmu_mosi", "planted": "true", "pruner": "median"}
    assert expected.items() <= tags.items() and "mlflow.parentRunId" not in tags and "best trial" not in tags
    for added in (trial([0.7]), trial(state="failed"), trial(state="pruned"), trial([0.6], params={"hidden_dim": 64})):
        study.add_trial(added)
        run.update(summarise(study))
    shown = read(outputs, run_id)
    assert shown.info.status == "RUNNING" and shown.info.run_name == "study mmlatch"
    counts = {name: shown.data.metrics[f"trials/{name}"] for name in ("done", "pruned", "failed")}
    assert counts == {"done": 2.0, "pruned": 1.0, "failed": 1.0}
    assert {"best trial": "3", "best hidden_dim": "64"}.items() <= shown.data.tags.items()
    assert shown.data.tags["mlflow.note.content"] == description(summarise(study))
    assert shown.data.params["optimizer.lr"] == "tag(log, interval(1e-4, 1e-1))"
    run.finish(summarise(study))
    assert read(outputs, run_id).info.status == "FINISHED"
    assert history(outputs, run_id, "best/valid/mae") == [(1, 0.7), (2, 0.7), (3, 0.7), (4, 0.6)]


def test_a_resumed_study_goes_on_with_its_run(outputs: Path) -> None:
    study, run = new_study(study="resumed"), shown_in(outputs)
    run_id = opened(run, study)
    run.finish(summarise(study), "KILLED")
    assert read(outputs, run_id).info.status == "KILLED"
    again = shown_in(outputs)
    assert opened(again, study, run_id) == run_id and read(outputs, run_id).info.status == "RUNNING"
    assert opened(shown_in(outputs), study, "f" * 32) != run_id


def test_the_description_holds_the_command_to_type_next(outputs: Path) -> None:
    summary = summarise(realistic_study(planted=True))
    note = description(summary)
    assert f"```\n{rerun_command(summary)}\n```" in note and "planted data" in note and "57 of 57 trials" in note
    assert "```" not in description(summarise(new_study()))


def test_figures_lie_beside_the_run(outputs: Path, tmp_path: Path) -> None:
    study, run = new_study(study="drawn"), shown_in(outputs)
    run_id = opened(run, study)
    (tmp_path / "history.png").write_bytes(b"png")
    (tmp_path / "note.txt").write_text("not a figure")
    for _ in range(2):
        run.add_figures(tmp_path)
    artifacts = outputs / "mlartifacts" / "mmsa" / run_id / "artifacts"
    assert [path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*.*")] == ["figures/history.png"]


def test_a_database_that_cannot_be_opened_is_told_once_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database, and long enough to be read as one" * 50)
    told: list[str] = []
    study, run = realistic_study(), StudyRun(MLflowTracker(tmp_path, warn=told.append))
    assert run.open(summarise(study)) is None
    run.update(summarise(study))
    run.add_figures(tmp_path)
    run.finish(summarise(study))
    assert len(told) == 1 and "Tracking failed" in told[0]


def test_what_an_outage_missed_is_handed_in_later(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    told: list[str] = []
    study, run = new_study(study="outage"), StudyRun(MLflowTracker(outputs, warn=told.append))
    run_id = opened(run, study)
    calls: list[str] = []

    def away(*arguments: Any, **named: Any) -> None:
        calls.append("log_batch")
        raise OSError("the server is away")

    with monkeypatch.context() as outage:
        outage.setattr(MlflowClient, "log_batch", away)
        for value in (0.7, 0.6, 0.5):
            study.add_trial(trial([value]))
            run.update(summarise(study))
    assert len(told) == 1 and len(calls) <= 2, "a server that is away is not asked after every trial"
    monkeypatch.setattr("mmsa.tracking.mlflow.time.monotonic", lambda: 1e12)
    study.add_trial(trial([0.4]))
    run.update(summarise(study))
    assert history(outputs, run_id, "best/valid/mae") == [(1, 0.7), (2, 0.6), (3, 0.5), (4, 0.4)]
