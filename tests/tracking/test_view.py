"""The view that the first page shows: made once, and a user's changes of it stay."""

from __future__ import annotations

import json
from types import SimpleNamespace

from mmsa.analysis.runs import Run
from mmsa.run_folder import short_name
from mmsa.tracking.view import TAG, renew_view, run_page, runs_page
from tests.records import record


class Experiment:
    """MLflow's client, with the tags of one experiment."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}

    def get_experiment(self, experiment: str) -> SimpleNamespace:
        return SimpleNamespace(tags=dict(self.tags))

    def set_experiment_tag(self, experiment: str, key: str, value: str) -> None:
        assert len(value) <= 5000, "MLflow's limit"
        self.tags[key] = value


def columns(client: Experiment) -> list[str]:
    found: list[str] = json.loads(json.loads(client.tags[TAG])["state"])["selectedColumns"]
    return found


def test_a_view_has_the_metrics_of_every_task_and_keeps_a_users_changes() -> None:
    client = Experiment()
    renew_view(client, "1", ["test/mae", "test/corr"])  # type: ignore[arg-type]
    first = ["tags.`derived`", "metrics.`test/mae`", "metrics.`test std/mae`", "params.`seed`", "params.`feedback`"]
    assert columns(client)[:5] == first and "metrics.`test/corr`" in columns(client)
    client.tags[TAG] = "a user's"
    renew_view(client, "1", ["test/mae"])  # type: ignore[arg-type]
    assert client.tags[TAG] == "a user's"
    renew_view(client, "1", ["test/accuracy"])  # type: ignore[arg-type]
    assert {"metrics.`test/mae`", "metrics.`test/accuracy`"} <= set(columns(client))


def test_a_view_of_many_metrics_is_within_what_mlflow_takes() -> None:
    client = Experiment()
    for _ in range(2):
        renew_view(client, "1", [f"test/metric_{'x' * 100}_{number}" for number in range(30)])  # type: ignore[arg-type]
    assert len(columns(client)) > 10


def test_addresses_open_the_side_of_trained_models() -> None:
    assert run_page("http://h:1/", "2", "abc") == "http://h:1/#/experiments/2/runs/abc?workflowType=machine_learning"
    assert (
        runs_page("http://h:1", "2", has_view=False) == "http://h:1/#/experiments/2/runs?workflowType=machine_learning"
    )


def test_a_name_begins_with_the_method_and_ends_with_the_seed() -> None:
    typed = ["seed=2", "hidden_dim=6", "dataset=cmu_mosi", "regularizer.p=0.3", "paths.outputs=x", "feedback=mmlatch"]
    assert short_name(typed) == "feedback=mmlatch regularizer.p=0.3 hidden_dim=6 dataset=cmu_mosi seed=2"
    assert short_name([]) == "default"


def test_encoders_that_differ_are_named_by_modality() -> None:
    known = {"folder": ".", "shown": {}, "overrides": (), "configuration": {}}
    shown = {"encoder/text": "encoder/text=bert", "experiment": "experiment=mmlatch"}
    targets = {f"encoder.{name}._target_": "mmsa.encoder.bilstm.RecurrentEncoder" for name in ("audio", "text")}
    alike = Run.model_validate(dict(record()) | known | {"configuration": targets})
    assert alike.choices["encoder"] == "bilstm"
    differ = Run.model_validate(dict(record()) | known | {"configuration": targets, "shown": shown})
    assert differ.choices == {"encoder": "audio: bilstm, text: bert", "experiment": "mmlatch"}
