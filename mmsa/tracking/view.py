"""What MLflow's list of runs shows at first sight: a saved view of the experiment, and the addresses that open it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "mmsa"
"""Of the view among those of the experiment; its name in the menu "Views"."""
TAG = f"mlflow.sharedViewState.{KEY}"
CURVES = "epochs"
"""First part of the names of metrics that have a value per epoch: the UI sorts its charts by name."""
STD = "std"
"""First part of the names of standard deviations over seeds."""
OPTIONS = {
    "seed": 50,
    "feedback": 80,
    "regularizer": 85,
    "fusion": 80,
    "encoder": 75,
    "objective": 75,
    "experiment": 85,
}
"""Parameters that have a column, and its width in pixels."""
# Without the workflow type the UI opens in its view for language models.
_WORKFLOW = "workflowType=machine_learning"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_METRICS = "mmsa.metrics"
_MOST_METRICS = 16  # MLflow's limit of 5,000 signs


def renew_view(client: MlflowClient, experiment: str, metrics: Iterable[str]) -> None:
    """Give the list of runs columns of these metrics, beside those that it has and of the options.

    What a user has changed of the view stays, until there is a metric that it has never had.

    Args:
        client: of MLflow.
        experiment: its id.
        metrics: names, `fold/metric`.
    """
    tags = client.get_experiment(experiment).tags
    known = json.loads(tags.get(_METRICS, "[]"))
    new = [name for name in metrics if name not in known]
    if TAG in tags and not new[: _MOST_METRICS - len(known)]:
        return
    shown = [*known, *new][:_MOST_METRICS]
    for tag, value in {**_KIND, TAG: _view(shown), _METRICS: json.dumps(shown)}.items():
        client.set_experiment_tag(experiment, tag, value)


def _view(metrics: Iterable[str]) -> str:
    """The view as MLflow keeps it: summaries and studies first, then runs, the newest first."""
    widths = {_column("params", name): width for name, width in OPTIONS.items()}
    for name in metrics:
        widths |= {_column("metrics", name): 85, _column("metrics", f"{STD}/{name}"): 85}
    widths = {_column("tags", "derived"): 150, **widths, _column("tags", "sweep"): 150}
    selected = list(widths)
    state = {
        "selectedColumns": selected,
        "columnOrder": [_column("attributes", "Run Name"), *selected],
        "columnWidths": {_column("attributes", "Run Name"): 270, "runDateAndNestInfo": 125, **widths},
        "orderByKey": _column("tags", "kind"),
        "orderByAsc": True,
    }
    now = int(time.time() * 1000)
    return json.dumps({"name": KEY, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def runs_page(root: str, experiment: str, has_view: bool) -> str:
    """Address of the list of runs.

    Args:
        root: address of the server.
        experiment: its id.
        has_view: the experiment has its view, without which its name is an error.
    """
    return f"{root.rstrip('/')}/#/experiments/{experiment}/runs?{_WORKFLOW}" + (
        f"&viewStateShareKey={KEY}" if has_view else ""
    )


def run_page(root: str, experiment: str, run_id: str) -> str:
    """Address of the page of a run.

    Args:
        root: address of the server.
        experiment: its id.
        run_id: of the run's entry.
    """
    return f"{root.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}?{_WORKFLOW}"
