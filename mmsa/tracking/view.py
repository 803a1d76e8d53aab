"""What MLflow's list of runs shows at first sight: a saved view of the experiment, and the addresses that open it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "mmsa"
"""Of the view among those of the experiment; its name in the menu "Views"."""
TAG = f"mlflow.sharedViewState.{KEY}"
CURVES = "epochs"
"""First part of the names of metrics that have a value per epoch: the UI sorts its charts by name."""
_OPTIONS = ("seed", "feedback", "regularizer", "fusion", "encoder", "objective", "experiment", "dataset")
# Without the workflow type the UI opens in its view for language models.
_WORKFLOW = "workflowType=machine_learning"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_NAME, _WIDTH = "attributes.`Run Name`", 85  # pixels
_METRICS = "mmsa.metrics"
_LONGEST = 5000  # signs of a tag, MLflow's limit


def renew_view(client: MlflowClient, experiment: str, metrics: Iterable[str]) -> None:
    """Give the list of runs columns of these metrics, beside those that it has and of the options.

    What a user has changed of the view stays, until there is a metric that it has never had.

    Args:
        client: of MLflow.
        experiment: its id.
        metrics: names as MLflow has them, `fold/metric`.
    """
    tags = client.get_experiment(experiment).tags
    known = [name for name in tags.get(_METRICS, "").split(",") if name]
    shown = list(dict.fromkeys([*known, *metrics]))
    while len(_view(shown)) > _LONGEST:
        shown.pop()
    if TAG in tags and shown == known:
        return
    for tag, value in {**_KIND, TAG: _view(shown), _METRICS: ",".join(shown)}.items():
        client.set_experiment_tag(experiment, tag, value)


def _view(metrics: Sequence[str]) -> str:
    """The view as MLflow keeps it: studies and summaries first, then runs, the newest first.

    Its first columns are seen without scrolling: the first metric, then the options.
    """
    first, *more = ((_column("metrics", name), _column("metrics", std_of(name))) for name in metrics)
    options = [_column("params", name) for name in _OPTIONS]
    selected = [_column("tags", "derived"), *first, *options, *chain(*more), _column("tags", "sweep")]
    state = {
        "selectedColumns": selected,
        "columnOrder": [_NAME, *selected],
        "columnWidths": {_NAME: 320, "runDateAndNestInfo": 115} | dict.fromkeys(selected, _WIDTH),
        "orderByKey": _column("tags", "kind"),
        "orderByAsc": True,
    }
    now = int(time.time() * 1000)
    return json.dumps({"name": KEY, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})


def std_of(metric: str) -> str:
    """Name of the standard deviation over seeds of a metric `fold/metric`."""
    return metric.replace("/", " std/", 1)


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
