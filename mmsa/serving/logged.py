"""A packed model in MLflow, logged to the tracker of its runs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mmsa.commands import serve_command
from mmsa.errors import DataError, MmsaError
from mmsa.files import remove_all
from mmsa.parts import build_tracker, check_node
from mmsa.record import RunRecord
from mmsa.run_folder import read_config
from mmsa.secrets import as_stored, hidden
from mmsa.serving.packed import PackedModel
from mmsa.serving.pyfunc import Scorer
from mmsa.serving.utterances import example
from mmsa.settling import info_of
from mmsa.tracking.database import ensure_database, import_client
from mmsa.tracking.entries import found_entry, local_folder
from mmsa.tracking.mlflow import MLflowTracker, cause

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

LOADER = "mmsa.serving.pyfunc"
_TYPES = {str: "string", int: "long", float: "double"}


def log(model: PackedModel, folders: Sequence[Path], register: str | None = None) -> list[str]:
    """Log a packed model to the tracker of its first run, in the entries of the runs that have one there.

    Args:
        model: whose folder is copied into the tracker's store.
        folders: of its runs.
        register: a name in MLflow's registry, of which it becomes the next version; None does not register it.

    Returns:
        Lines on the logged model.

    Raises:
        MmsaError: MLflow does not answer, or refuses it; it holds nothing of it then.
    """
    tracker = _tracker(folders[0])
    try:
        experiment = ensure_database(tracker.uri, tracker.outputs, tracker.experiment)
        client = import_client()(tracking_uri=tracker.uri)
        entries = [entry for folder in folders if (entry := _entry(client, experiment, folder))]
        with _current(tracker.uri):
            uri = _logged(client, experiment, model, entries, register)
    except MmsaError:
        raise
    # Whatever goes wrong in a database, a network or a disk.
    except Exception as error:  # noqa: BLE001
        why = cause(error, tracker.uri)
        after = "the same command packs and logs it once that is mended"
        raise MmsaError(f"MLflow has not taken it ({hidden(tracker.uri)}): {why}.\n  {after}") from None
    return [f"logged: {uri} in {hidden(tracker.uri)}", f"serve it: {serve_command(tracker.uri, uri)}"]


def _tracker(folder: Path) -> MLflowTracker:
    """The tracker of a run; of one that has none the database to which `mmsa track` hands it in."""
    cfg = read_config(folder)
    check_node(cfg, "tracking")
    found = build_tracker(cfg, warn=lambda line: None)
    return found if isinstance(found, MLflowTracker) else MLflowTracker(cfg.paths.outputs)


@contextmanager
def _current(uri: str) -> Iterator[None]:
    """Let an address be MLflow's current one, which its registry asks whatever its client was made for; quietly."""
    import mlflow

    former = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, not the user's to mend
            yield
    finally:
        mlflow.set_tracking_uri(former)  # type: ignore[arg-type]  # None unsets it


def _entry(client: MlflowClient, experiment: str, folder: Path) -> str | None:
    """The id of a run's entry; None where it has none, or its user has deleted it."""
    record = RunRecord.read(folder)
    info = info_of(folder, record, as_stored(read_config(folder)))
    shown = found_entry(client, experiment, info, record.mlflow_run_id)
    return str(shown.info.run_id) if shown is not None and shown.info.lifecycle_stage != "deleted" else None


def _logged(
    client: MlflowClient, experiment: str, model: PackedModel, entries: Sequence[str], register: str | None
) -> str:
    """Log a model, in the entries of runs, and register it where that is asked for; returns its URI."""
    from mlflow.entities import LoggedModelOutput

    run = entries[0] if entries else None
    name = re.sub(r"[^\w-]+", "-", model.folder.name)
    tags = {"hash": model.card.hash, "seeds": ", ".join(map(str, model.models))}
    made = client.create_logged_model(experiment, name, run, tags)
    try:
        with TemporaryDirectory(prefix="mmsa-mlflow-") as scratch:
            _save(f"{scratch}/model", model, made)
            client.log_model_artifacts(made.model_id, f"{scratch}/model")
        client.finalize_logged_model(made.model_id, "READY")
        uri = f"models:/{made.model_id}"
        registered = _registered(client, uri, made, register) if register is not None else None
        for entry in entries:
            client.log_outputs(entry, [LoggedModelOutput(made.model_id, step=0)])
    except BaseException:
        with suppress(Exception):
            client.delete_logged_model(made.model_id)
            if (folder := local_folder(made.artifact_location)) is not None:
                remove_all([folder])  # MLflow keeps the files of a deleted model
        raise
    return registered or uri


def _save(path: str, model: PackedModel, made: LoggedModel) -> None:
    """Write a model as MLflow has them, and prove that it predicts the same from there."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    asked = [dict(example(model.card))]
    answer = Scorer(model).predict(asked)
    # Of the answer alone: MLflow drops columns that a signature lacks, where a mistaken name has to be refused.
    outputs = Schema([ColSpec(_TYPES[type(value)], name) for name, value in answer[0].items()])
    lines = (model.folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pyfunc.save_model(
        path,
        loader_module=LOADER,
        data_path=str(model.folder),
        mlflow_model=Model(run_id=made.source_run_id, model_id=made.model_id, model_uuid=made.model_id),
        signature=ModelSignature(outputs=outputs),
        input_example=asked,
        pip_requirements=[line for line in lines if not line.startswith("#")],
    )
    if pyfunc.load_model(path).predict(asked) != answer:
        raise DataError(
            "MLflow has not taken it: loaded there it predicts other values.\n  report this, with the model"
        )


def _registered(client: MlflowClient, uri: str, made: LoggedModel, name: str) -> str:
    """Make a logged model the next version of a registered one; returns its URI."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(name, uri, made.source_run_id, model_id=made.model_id)
    return f"models:/{name}/{version.version}"
