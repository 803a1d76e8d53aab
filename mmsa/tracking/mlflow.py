"""Runs in MLflow: flat, one batch call per epoch, quiet, and never in the way of a result."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa.errors import MmsaError
from mmsa.files import remove_all
from mmsa.record import RunRecord
from mmsa.secrets import VARIABLES, address, hidden, without_secrets
from mmsa.tracking.database import default_uri, ensure_database, import_client, require_writable, sqlite_file
from mmsa.tracking.entries import (
    KEY_LENGTH,
    METRICS_PER_CALL,
    PARAMETERS_PER_CALL,
    REASONS,
    RUN,
    TAG_LENGTH,
    WHOLE,
    clear_uploads,
    found_entry,
    key_of,
    local_folder,
    log_data,
    log_file,
    log_parameters,
    shortened,
    shown_files,
    state_of,
    tags_of,
    takes_name,
    texts_of,
)
from mmsa.tracking.pause import FAILED, Pause
from mmsa.tracking.tracker import Entry, RunInfo, Tracker
from mmsa.tracking.view import CURVES, renew_view

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCKED_SECONDS = 60.0
"""How long the end of a run waits for a database that another process holds."""


class MLflowTracker(Tracker):
    """Shows a run in MLflow.

    The first failure prints one line, where no other run of this process or of its parent has just done so. The tracker
    then pauses, so that an absent server does not hold up a training. Later calls, and in any case the end of the run,
    try again, open the run if it is not open yet, and send the missed epochs; the trials of a sweep share one pause,
    and their ends wait for it too. No secret of an address is logged.

    Args:
        outputs: the outputs folder, where the default database lies.
        uri: an MLflow tracking URI, as it is stored; None is SQLite in `outputs`.
        experiment: name of the MLflow experiment.
        warn: takes the line about a failure; None is the logger "mmsa".

    Raises:
        ConfigError: the secret of the URI is not in the environment.
    """

    def __init__(
        self,
        outputs: Path | str = "outputs",
        uri: str | None = None,
        experiment: str = "mmsa",
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.outputs = Path(outputs)
        self.uri = address("tracking.uri", uri) if uri else default_uri(outputs)
        self.experiment = experiment
        self._warn = warn or logging.getLogger("mmsa").warning
        self._warned = False
        self._pause = Pause(self.uri)
        self._open: Callable[[], MlflowClient] | None = None
        self._pending: list[tuple[str, float, int, int]] = []  # name, value, time in ms, epoch
        self._values: list[tuple[str, float, int, int]] = []
        self._client: MlflowClient | None = None
        self._asked, self._state, self._began = False, "", 0.0
        self._there: set[tuple[str, int]] = set()  # name and epoch of what an earlier attempt has sent
        self._latest: dict[str, float] = {}  # the values that it has left

    def prepare(self) -> None:
        self._attempt(lambda: ensure_database(self.uri, self.outputs, self.experiment, self._warn))

    def start(self, run: RunInfo, run_id: str | None = None, again: bool = False) -> str | None:
        self.run_id, self.settled, self._asked = run_id, False, False
        self._state, self._began = state_of(run), run.began or time.time()
        self._open = partial(self._opened, run, int(self._began * 1000), again or run_id is not None)
        self._send(lambda client, run_id: None)
        return self.run_id

    def entry(self, run: RunInfo, run_id: str | None) -> Entry | None:
        found: list[Entry] = []

        def look() -> None:
            shown = found_entry(*self._connected(), run, run_id)
            if shown is None:
                found.append("missing")
            elif shown.info.lifecycle_stage == "deleted":
                found.append("deleted")
            else:
                # Entries of former versions have no sign, and are taken as they are.
                whole = shown.data.tags.get(WHOLE, state_of(run) if RUN not in shown.data.tags else "") == state_of(run)
                found.append("whole" if whole and shown.info.status != "RUNNING" else "unfinished")

        return found[0] if self._attempt(look) else None

    def discard(self, run: RunInfo, run_id: str | None) -> bool:
        def delete() -> None:
            client, experiment = self._connected()
            shown = found_entry(client, experiment, run, run_id)
            # A copy of the folder has the same ids, and the entry is the original's.
            of_folder = shown is not None and shown.data.tags.get("folder") == str(run.folder.resolve())
            if shown is not None and of_folder and shown.info.lifecycle_stage != "deleted":
                client.delete_run(shown.info.run_id)
                folder = local_folder(str(shown.info.artifact_uri))
                if folder is not None and folder.parts[-2:] == (shown.info.run_id, "artifacts"):
                    remove_all([folder.parent])  # MLflow keeps the files of a deleted run

        return self._attempt(delete)

    def close_lost(self, is_lost: Callable[[Mapping[str, str]], bool]) -> list[str]:
        """Close the entries that are open although nobody works on them; returns their names.

        Args:
            is_lost: whether that is so, by an entry's tags.
        """
        closed: list[str] = []

        def close() -> None:
            client, experiment = self._connected()
            for shown in client.search_runs([experiment], "attributes.status = 'RUNNING'", max_results=1000):
                if is_lost(shown.data.tags):
                    client.set_tag(shown.info.run_id, "failure", "its folder is gone")
                    client.set_terminated(shown.info.run_id, "KILLED")
                    closed.append(str(shown.info.run_name))

        self._attempt(close)
        return closed

    def log_epoch(self, metrics: Mapping[str, float], epoch: int, at: float | None = None) -> None:
        self.log({f"{CURVES}/{name}": value for name, value in metrics.items()}, epoch, at)

    def log(self, metrics: Mapping[str, float], step: int, at: float | None = None) -> None:
        """Add a value to each of these curves.

        Args:
            metrics: whole name -> value.
            step: of all of them; a curve has one value at a step.
            at: Unix time; None is now.
        """
        self._pending += _points(metrics, step, at)
        self._send(self._flush)

    def show(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Set the values that tables show of these metrics, sent with the next call.

        Args:
            metrics: whole name -> value.
            step: not before that of a value that is there: of those of one step MLflow shows the newest.
        """
        self._values = _points(metrics, step)

    def annotate(
        self,
        tags: Mapping[str, Any],
        description: str = "",
        files: Iterable[Path] = (),
        status: str | None = None,
        ended: float | None = None,
    ) -> None:
        """Send pending metrics, set tags and the Markdown description of the open run, add files, and close it.

        Args:
            tags: name -> value; None is left out.
            description: empty leaves the one that is there.
            files: of a run's folder.
            status: FINISHED, FAILED or KILLED closes the run, which is tried whatever failed before.
            ended: Unix time; None is now.
        """

        def send(client: MlflowClient, run_id: str) -> None:
            from mlflow.entities import RunTag

            try:
                self._flush(client, run_id)
                texts = texts_of({**tags, "mlflow.note.content": description or None}, TAG_LENGTH)
                shown = [RunTag(*tag) for tag in texts.items()]
                for start in range(0, len(shown), PARAMETERS_PER_CALL):
                    client.log_batch(run_id, tags=shown[start : start + PARAMETERS_PER_CALL])
                for path in files:
                    log_file(client, run_id, path)
                if status is not None:
                    client.set_tag(run_id, WHOLE, self._state)
            finally:  # lest a file that cannot be copied leaves it running for ever
                if status is not None:
                    client.set_terminated(run_id, status, int((ended or time.time()) * 1000))

        self.settled = self._send(send, last=status is not None) and status is not None

    def finish(self, folder: Path, record: RunRecord, description: str = "") -> None:
        # Former versions have the last epoch's values under these names.
        self.show(record.metrics, record.epochs or record.best_epoch or 0)
        ended = None if record.seconds is None else self._began + record.seconds
        self.annotate({"num_parameters": record.num_parameters}, description, shown_files(folder), "FINISHED", ended)
        if self.settled and record.trial is None:
            self._send(lambda client, _: self._renew_view(client, record))

    def fail(self, folder: Path, reason: str, pruned: bool = False) -> None:
        # What a search has pruned is no failure, and MLflow marks what was killed as one.
        tag, status = ("pruned", "FINISHED") if pruned else ("failure", "FAILED")
        self.annotate({tag: reason}, files=shown_files(folder), status=status)

    def _send(self, action: Callable[[MlflowClient, str], None], last: bool = False) -> bool:
        """Do something with the run, which is opened where it is not yet; the last time nothing is left untried."""

        def send() -> None:
            if self._open is None:
                return
            if last and (database := sqlite_file(self.uri)) and database.is_file():
                require_writable(database, _LOCKED_SECONDS)
            if self._client is None:
                self._client = self._open()
            action(self._client, str(self.run_id))

        may_try = not self._pause.lasts() or (last and not self._pause.is_shared)
        return may_try and self._attempt(send)

    def _attempt(self, action: Callable[[], object]) -> bool:
        """Do something with MLflow; False where that fails, of which the first time prints a line."""
        self._pause.trying()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's own, not the user's to mend
                action()
            self._pause.over()
            if os.environ.get(FAILED) == hidden(self.uri):
                del os.environ[FAILED]
        # Whatever goes wrong in a database, a network or a disk that only shows the run must not end the run.
        except Exception as error:  # noqa: BLE001
            self._pause.begin()
            shown = hidden(self.uri)
            if not self._warned and os.environ.get(FAILED) != shown:
                why = cause(error, self.uri)
                self._warn(f"Tracking failed ({shown}): {why}. The run continues; its folder holds everything.")
            self._warned, os.environ[FAILED] = True, shown
            return False
        return True

    def _connected(self) -> tuple[MlflowClient, str]:
        """The client, and the id of the experiment."""
        experiment = ensure_database(self.uri, self.outputs, self.experiment, self._warn)
        return import_client()(tracking_uri=self.uri), experiment

    def _opened(self, run: RunInfo, began: int, again: bool) -> MlflowClient:
        """The client, with the run's entry, or a new one that began at a time in ms."""
        client, self.experiment_id = self._connected()
        shown = found_entry(client, self.experiment_id, run, self.run_id) if again or self._asked else None
        self._asked = True  # an attempt that fails from here on may have made the entry
        named = shortened(run.name, KEY_LENGTH)
        if shown is None:
            tags = texts_of(tags_of(run), TAG_LENGTH)
            shown = client.create_run(self.experiment_id, start_time=began, run_name=named, tags=tags)
            self.run_id = str(shown.info.run_id)
        else:
            self.run_id = str(shown.info.run_id)
            if shown.info.lifecycle_stage == "deleted":
                client.restore_run(self.run_id)
            client.set_tag(self.run_id, WHOLE, "false")
            for reason in REASONS & shown.data.tags.keys():  # why an earlier attempt ended, which goes on
                client.delete_tag(self.run_id, reason)
            client.update_run(self.run_id, status="RUNNING", name=named if takes_name(run, shown.data.tags) else None)
            clear_uploads(str(shown.info.artifact_uri))
            self._latest = dict(shown.data.metrics)
            for name in shown.data.metrics:
                self._there |= {(name, point.step) for point in client.get_metric_history(self.run_id, name)}
        log_parameters(client, self.run_id, run.parameters)
        if run.fingerprint and not (again and shown.inputs and shown.inputs.dataset_inputs):
            log_data(client, self.run_id, run)
        return client

    def _renew_view(self, client: MlflowClient, record: RunRecord) -> None:
        with suppress(Exception):  # of a server that lets not everybody change the experiment
            renew_view(client, str(self.experiment_id), [key_of(f"{record.fold}/{name}") for name in record.primary])

    def _flush(self, client: MlflowClient, run_id: str) -> None:
        """Send the metrics that are kept, with those that an earlier failure kept back."""
        from mlflow.entities import Metric

        new = [metric for metric in self._values if self._latest.get(metric[0]) != metric[1]]
        self._there -= {(name, step) for name, _, _, step in new}
        self._pending, self._values = [*self._pending, *new], []
        self._pending = [metric for metric in self._pending if (metric[0], metric[3]) not in self._there]
        while self._pending:
            part = self._pending[:METRICS_PER_CALL]
            client.log_batch(run_id, metrics=[Metric(*metric) for metric in part])
            del self._pending[: len(part)]


def _points(metrics: Mapping[str, float], step: int, at: float | None = None) -> list[tuple[str, float, int, int]]:
    now = int((at or time.time()) * 1000)
    # The UI draws NaN and infinity as gaps and giants; the run's history keeps them.
    finite = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
    return [(key_of(name), value, now, step) for name, value in finite.items()]


def cause(error: Exception, uri: str) -> str:
    """Why something failed, in one line: a line to type is whole, and a library's own words are cut."""
    if "out-of-date database schema" in str(error):  # of a server; SQLite files are upgraded
        typed = shlex.quote(uri) if hidden(uri) == uri else f'"${{{VARIABLES["tracking.uri"]}:?}}"'
        return f"it is of another version of MLflow; make a copy, then type mlflow db upgrade {typed}"
    if "filesystem tracking backend" in str(error):
        return "MLflow writes to no plain folder any more; type tracking.uri=sqlite:////PATH/mlflow.db, or leave it out"
    if isinstance(error, MmsaError):
        return "; ".join(line.strip() for line in str(error).splitlines()).rstrip(".")
    said = without_secrets(str(error).strip() or type(error).__name__, uri)  # before it is cut
    if found := re.search(r"\(Caused by \w+\([\"']?(?:HTTPS?Connection\(.*?\): )?(.*?)[\"']?\)\)$", said):
        said = found[1]
    return shortened(said.splitlines()[0], 160).rstrip(".")
