"""Runs in MLflow: flat, one batch call per epoch, quiet, and never in the way of a result."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa.record import RunRecord
from mmsa.tracking.database import default_uri, ensure_database, import_client
from mmsa.tracking.tracker import RunInfo, Tracker, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's own limits, below which it refuses the whole batch.
_PARAMETER_LENGTH, _TAG_LENGTH, _KEY_LENGTH = 6000, 8000, 250
_METRICS_PER_CALL, _PARAMETERS_PER_CALL = 1000, 100
_FILES_WITH_OPTIONS = ("config.yaml", "overrides.json", "result.json", "run.log")
_FILES = (*_FILES_WITH_OPTIONS, "predictions.csv", "history.csv", "checkpoints/best.pt")
_FOLDERS = {".pt": "checkpoints", ".png": "figures"}


class MLflowTracker(Tracker):
    """Shows a run in MLflow.

    The first failure is told in one line and tracking is silent from then on; the end of the run tries once more
    and hands in the epochs that were missed. A run that could not be opened at its start is not in MLflow at all.
    No password of a URI is logged.

    Args:
        outputs: the outputs folder, where the default database lies.
        uri: an MLflow tracking URI; None is SQLite in `outputs`.
        experiment: name of the MLflow experiment.
        warn: takes the line that tells a failure; None is the logger "mmsa".
    """

    def __init__(
        self,
        outputs: Path | str = "outputs",
        uri: str | None = None,
        experiment: str = "mmsa",
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.outputs = Path(outputs)
        self.uri = uri or default_uri(outputs)
        self.experiment = experiment
        self.run_id: str | None = None
        self._warn = warn or logging.getLogger("mmsa").warning
        self._silent = False
        self._pending: list[tuple[str, float, int, int]] = []  # name, value, time in ms, epoch
        self._client: MlflowClient | None = None

    def prepare(self) -> None:
        self._attempt(lambda: ensure_database(self.uri, self.outputs, self.experiment))

    def start(self, run: RunInfo, run_id: str | None = None) -> str | None:
        self._attempt(lambda: self._open(run, run_id))
        return self.run_id

    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._keep(metrics, epoch)
        self._send(self._flush)

    def annotate(
        self, tags: Mapping[str, Any], description: str = "", files: Iterable[Path] = (), status: str | None = None
    ) -> bool:
        """Send what was kept back, set tags and the Markdown description of the open run, add files, and close it.

        Args:
            tags: name -> value; None is left out.
            description: empty leaves the one that is there.
            files: of a run's folder.
            status: FINISHED, FAILED or KILLED closes the run.

        Returns:
            Whether MLflow took it; it is tried again after an earlier failure too.
        """

        def send(client: MlflowClient, run_id: str) -> None:
            from mlflow.entities import RunTag

            self._flush(client, run_id)
            texts = _texts({**tags, "mlflow.note.content": description or None}, _TAG_LENGTH)
            shown = [RunTag(*tag) for tag in texts.items()]
            for start in range(0, len(shown), _PARAMETERS_PER_CALL):
                client.log_batch(run_id, tags=shown[start : start + _PARAMETERS_PER_CALL])
            for path in files:
                _log_file(client, run_id, path)
            if status is not None:
                client.set_terminated(run_id, status)

        return self._send(send, once_more=True)

    def finish(self, folder: Path, record: RunRecord, description: str = "") -> None:
        self._keep(_final_metrics(record.metrics), record.best_epoch or 0)
        self.annotate({"num_parameters": record.num_parameters}, description, _shown_files(folder), "FINISHED")

    def fail(self, folder: Path, reason: str, pruned: bool = False) -> None:
        tag, status = ("pruned", "KILLED") if pruned else ("failure", "FAILED")
        self.annotate({tag: reason}, files=_shown_files(folder), status=status)

    def _attempt(self, action: Callable[[], object], once_more: bool = False) -> bool:
        if self._silent and not once_more:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own, not the user's to mend
                action()
        # Whatever goes wrong in a database, a network or a disk that only shows the run must not end the run.
        except Exception as error:  # noqa: BLE001
            if not self._silent:
                cause = _shortened((str(error).strip() or type(error).__name__).splitlines()[0], 160).rstrip(".")
                line = f"Tracking failed ({self.uri}): {cause}. The run goes on; its folder holds everything."
                self._warn(without_password(line))
            self._silent = True
            return False
        return True

    def _send(self, action: Callable[[MlflowClient, str], None], once_more: bool = False) -> bool:
        """Do something with the open run, if there is one."""
        client, run_id = self._client, self.run_id
        if client is None or run_id is None:
            return False
        return self._attempt(lambda: action(client, run_id), once_more)

    def _open(self, run: RunInfo, run_id: str | None) -> None:
        experiment_id = ensure_database(self.uri, self.outputs, self.experiment)
        client = import_client()(tracking_uri=self.uri)
        resumed = run_id is not None and _reopen(client, run_id)
        if run_id is None or not resumed:
            tags = _texts(_tags(run), _TAG_LENGTH)
            run_id = str(client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id)
        self._client, self.run_id = client, run_id
        _log_parameters(client, run_id, run.parameters)
        if not resumed and run.fingerprint:
            _log_data(client, run_id, run.fingerprint, str(run.tags.get("dataset") or "data"))

    def _keep(self, metrics: Mapping[str, float], epoch: int) -> None:
        now = int(time.time() * 1000)
        # The UI draws NaN and infinity as gaps and giants; the run's history keeps them.
        finite = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
        self._pending += [(_key(name), value, now, epoch) for name, value in finite.items()]

    def _flush(self, client: MlflowClient, run_id: str) -> None:
        """Send the metrics that are kept, with those that an earlier failure kept back."""
        from mlflow.entities import Metric

        while self._pending:
            part = self._pending[:_METRICS_PER_CALL]
            client.log_batch(run_id, metrics=[Metric(*metric) for metric in part])
            del self._pending[: len(part)]


def _shown_files(folder: Path) -> Iterator[Path]:
    """The files of a run's folder that MLflow shows, those that there are."""
    yield from (folder / name for name in _FILES if (folder / name).is_file())
    yield from sorted((folder / "figures").glob("*.png"))


def _log_file(client: MlflowClient, run_id: str, path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace") if path.name in _FILES_WITH_OPTIONS else ""
    if text != without_password(text):
        client.log_text(run_id, without_password(text), path.name)
    else:
        client.log_artifact(run_id, str(path), _FOLDERS.get(path.suffix))


def _reopen(client: MlflowClient, run_id: str) -> bool:
    """Set an earlier run to running; False where the database does not know it."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Log the parameters; of a resumed run only new ones, as MLflow refuses to change a value, which a tag tells."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    values = _texts({name: "null" if value is None else value for name, value in parameters.items()}, _PARAMETER_LENGTH)
    new = [Param(name, value) for name, value in values.items() if name not in known]
    for start in range(0, len(new), _PARAMETERS_PER_CALL):
        client.log_batch(run_id, params=new[start : start + _PARAMETERS_PER_CALL])
    changed = [f"{name}: {known[name]} -> {value}" for name, value in values.items() if known.get(name, value) != value]
    if changed:
        client.set_tag(run_id, "resumed with", _shortened(", ".join(changed), _TAG_LENGTH))


def _log_data(client: MlflowClient, run_id: str, fingerprint: str, name: str) -> None:
    from mlflow.entities import Dataset, DatasetInput

    source = json.dumps({"store": fingerprint})
    client.log_inputs(run_id, [DatasetInput(Dataset(name, fingerprint[:36], "local", source))])


def _tags(run: RunInfo) -> dict[str, Any]:
    return {
        **run.tags,
        "folder": str(run.folder.resolve()),
        "data fingerprint": run.fingerprint,
        "mlflow.user": os.environ.get("USER"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "train.py",
        "mlflow.source.git.commit": run.commit,
        **{f"environment.{name}": version for name, version in run.environment.items()},
    }


def _final_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of the selected weights: those of the test fold under their name, others apart from their curves.

    The UI sorts its charts by name: "valid best" stands below the curves. The baselines are in the description.
    """
    return {
        name if name.startswith("test/") else name.replace("/", " best/", 1): value for name, value in metrics.items()
    }


def _key(name: str) -> str:
    return re.sub(r"[^\w .:/-]", "_", str(name))[:_KEY_LENGTH]


def _texts(values: Mapping[str, Any], length: int) -> dict[str, str]:
    """Names and values as MLflow takes them, without passwords; None is left out."""
    there = {_key(name): value for name, value in values.items() if value is not None}
    texts = {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in there.items()}
    return {name: _shortened(without_password(text), length) for name, text in texts.items()}


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 2]} …"
