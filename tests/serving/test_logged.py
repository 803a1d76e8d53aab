"""A packed model in MLflow: what is logged, and what MLflow's own server answers with it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import mlflow
import pytest
from fastapi.testclient import TestClient
from mlflow import MlflowClient

import mmsa
from mmsa import cli
from mmsa.commands import serve_command
from mmsa.errors import ConfigError, MmsaError
from mmsa.tracking.database import default_uri, ensure_database
from tests.serving.requests import BAD, GOOD, check_refused
from tests.test_former import second_seed, written_in

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with the runs of two seeds, their entries in MLflow, and their model, packed and logged."""
    folder = written_in(tmp_path_factory.mktemp("logged") / "former")
    runs = [f"outputs/runs/{name}" for name in ("whole", "second")]
    second_seed(folder / runs[0], folder / runs[1])
    with chdir(folder):
        cli.command(["track", *runs])
        cli.command(["pack", *runs, "--output", "reviews", "--mlflow", "--register", "reviews"])
    return folder


@pytest.fixture(scope="module")
def client(place: Path) -> MlflowClient:
    return MlflowClient(default_uri(place / "outputs"))


def artifacts(place: Path) -> Path:
    (found,) = (place / "outputs" / "mlartifacts" / "mmsa" / "models").glob("*/artifacts")
    return found


def test_it_stands_in_the_runs_entry_and_the_registry_and_the_store_has_the_one_copy(
    place: Path, client: MlflowClient
) -> None:
    (experiment,) = client.search_experiments(filter_string="name = 'mmsa'")
    entries = client.search_runs([experiment.experiment_id])
    (logged,) = client.search_logged_models([experiment.experiment_id])
    first = next(entry for entry in entries if entry.data.tags["seed"] == "1").info.run_id
    assert (logged.source_run_id, logged.status, logged.name) == (first, "READY", "reviews")
    assert [[made.model_id for made in entry.outputs.model_outputs] for entry in entries] == [[logged.model_id]] * 2
    version = client.get_model_version("reviews", "1")
    assert (version.source, version.run_id) == (f"models:/{logged.model_id}", first)
    assert {entry.info.status for entry in entries} == {"FINISHED"}
    stored = [path for path in place.rglob("model-seed-2.safetensors") if path.parent != place / "reviews"]
    assert stored == [artifacts(place) / "data" / "reviews" / "model-seed-2.safetensors"]
    assert not (place / "mlflow.db").exists() and not mlflow.is_tracking_uri_set()


def test_it_holds_no_code_and_no_pickle_and_no_path(place: Path) -> None:
    kept = artifacts(place)
    suffixes = {path.suffix for path in kept.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".md", ".safetensors", ".txt", ".yaml"}, suffixes
    assert not [path for path in kept.rglob("*") if path.is_file() and str(place).encode() in path.read_bytes()]
    text = (kept / "MLmodel").read_text()
    assert "loader_module: mmsa.serving.pyfunc" in text and "code: null" in text and "prediction" in text


@pytest.fixture(scope="module")
def server(place: Path) -> TestClient:
    """MLflow's server of the logged model, in this process."""
    from mlflow.pyfunc import load_model, scoring_server

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))  # in which it notes that it serves
        return TestClient(scoring_server.init(load_model(str(artifacts(place)))))


def answer(server: TestClient, sent: str) -> tuple[int, str]:
    """The status and the text."""
    found = server.post("/invocations", headers={"Content-Type": "application/json"}, content=sent)
    return found.status_code, found.text


@pytest.mark.parametrize("form", GOOD)
def test_each_form_of_a_request_gets_the_same_number_as_in_python(place: Path, server: TestClient, form: str) -> None:
    sent, records = GOOD[form]
    expected = mmsa.predict(place / "reviews", records)
    status, text = answer(server, sent)
    assert status == 200, text
    found = json.loads(text)["predictions"]
    assert [row.pop("id") for row in found] == list(expected.ids)
    columns = [expected.values, expected.spread, *expected.by_seed.values()]
    names = ["prediction", "spread", "seed_1", "seed_2"]
    assert found == [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize(("sent", "said"), BAD)
def test_a_bad_request_gets_a_sentence(place: Path, server: TestClient, sent: str, said: str) -> None:
    check_refused(*answer(server, sent), said, place)


def test_what_cannot_be_logged_is_refused_and_leaves_nothing_so_that_the_line_can_be_typed_again(
    place: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    line = ["pack", "outputs/runs/whole", "--mlflow"]
    with pytest.raises(ConfigError, match=r"--register needs --mlflow.\n  type --mlflow --register mine"):
        cli.command([*line[:2], "--register", "mine"])
    with pytest.raises(MmsaError, match=r"MLflow has not taken it \(sqlite:.*mlflow.db\): .*cannot contain"):
        cli.command([*line, "--register", "a/b"])
    kept = (place / "outputs" / "mlflow.db").rename(place / "kept.db")
    (place / "outputs" / "mlflow.db").write_text("none")
    with pytest.raises(MmsaError, match=r"mlflow.db is not an MLflow database"):
        cli.command(line)
    kept.rename(place / "outputs" / "mlflow.db")
    assert not list((place / "outputs" / "models").iterdir())
    assert len(client.search_logged_models(["1"])) == 1 and artifacts(place)


def test_it_follows_an_outputs_folder_that_was_moved(place: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(place, tmp_path / "moved") / "outputs"
    ensure_database(None, moved)
    there = MlflowClient(default_uri(moved))
    (logged,) = there.search_logged_models(["1"])
    assert there.get_model_version_download_uri("reviews", "1") == logged.artifact_location
    assert mmsa.load(Path(logged.artifact_location.removeprefix("file://"), "data", "reviews"))
    assert Path(logged.artifact_location.removeprefix("file://")).is_relative_to(moved)


def test_the_line_that_serves_shows_no_secret_and_finds_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = "mlflow models serve -m models:/reviews/1 --env-manager local --port 5001"
    assert serve_command("http://host:1", "models:/reviews/1") == f"MLFLOW_TRACKING_URI=http://host:1 {ends}"
    secret = serve_command("http://me:secret@host:1", "models:/reviews/1")
    assert secret == f'MLFLOW_TRACKING_URI="${{MMSA_TRACKING:?}}" {ends}'
    monkeypatch.setenv("PATH", "/usr/bin")
    assert f'PATH={Path(sys.executable).parent}:"$PATH" ' in serve_command("http://host:1", "models:/reviews/1")
