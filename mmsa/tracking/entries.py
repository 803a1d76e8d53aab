"""What an entry of MLflow holds of a run, and finding it again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mmsa.data.naming import data_name
from mmsa.files import remove_all
from mmsa.secrets import hidden
from mmsa.tracking.tracker import RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# MLflow's own limits, below which it refuses the whole batch.
PARAMETER_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 8000, 250
METRICS_PER_CALL, PARAMETERS_PER_CALL = 1000, 100
_FILES_WITH_OPTIONS = ("config.yaml", "overrides.json", "result.json", "run.log")
_FILES = (*_FILES_WITH_OPTIONS, "predictions.csv", "history.csv")
"""What MLflow gets of a run's folder, with the figures: the weights stay there, which the tag "folder" names."""
RUN, WHOLE = "run", "whole"
"""Tags: the run's own id, and of which start and content of the run an entry lacks nothing."""
_VERSION = 2
"""Of what an entry holds: an entry of a former version lacks something."""
REASONS = {"failure", "pruned"}


def state_of(run: RunInfo) -> str:
    """The latest start of a run, or what it was derived from: an entry that was whole lacks what came later."""
    return f"{_VERSION} {run.derived_from or run.began or ''}".rstrip()


def takes_name(run: RunInfo, tags: Mapping[str, str]) -> bool:
    """Whether an entry gets the run's name, and not the one that a user may have given it since."""
    return run.derived_from is not None or tags.get(WHOLE, "").partition(" ")[0] != str(_VERSION)


def shown_files(folder: Path) -> Iterator[Path]:
    """The files of a run's folder that MLflow shows, those that there are."""
    yield from (folder / name for name in _FILES if (folder / name).is_file())
    yield from sorted((folder / "figures").glob("*.png"))


def log_file(client: MlflowClient, run_id: str, path: Path) -> None:
    """Add a file of a run's folder, without the secrets that an older run may have kept in it."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.name in _FILES_WITH_OPTIONS else ""
    if text != hidden(text):  # of an older run
        client.log_text(run_id, hidden(text), path.name)
    else:
        client.log_artifact(run_id, str(path), "figures" if path.suffix == ".png" else None)


def found_entry(client: MlflowClient, experiment: str, run: RunInfo, run_id: str | None) -> Run | None:
    """The entry of a run, by its id in MLflow or the run's own; deleted ones too.

    One of another run is not taken, whatever id in MLflow a folder names.
    """
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    if run_id is not None:
        try:
            known = client.get_run(run_id)
            if _is_of(known.data.tags, run):
                return known
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    if run.id is None:
        return None
    shown = client.search_runs([experiment], f"tags.`{RUN}` = '{run.id}'", ViewType.ALL, max_results=1)
    return shown[0] if shown else None


def _is_of(tags: Mapping[str, str], run: RunInfo) -> bool:
    """Whether the entry with these tags shows a run; that of a former version is known by the folder's name."""
    if RUN in tags:
        return tags[RUN] == run.id
    return Path(tags.get("folder", run.folder.name)).name == run.folder.name


def clear_uploads(artifacts: str) -> None:
    """Remove what MLflow leaves of a file in a local folder when it is killed while it copies it."""
    if (folder := local_folder(artifacts)) is not None:
        remove_all(folder.rglob(".artifact.uploading.*"))


def local_folder(artifacts: str) -> Path | None:
    """The folder of artifacts on this machine, None where they are elsewhere."""
    return Path(unquote(urlsplit(artifacts).path)) if artifacts.startswith("file:") else None


def log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Log the parameters; of a resumed run only new ones, as MLflow changes no value; a tag names the changes."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    given = {name: "null" if value is None else value for name, value in parameters.items()}
    values = texts_of(given, PARAMETER_LENGTH)
    new = [Param(name, value) for name, value in values.items() if name not in known]
    for start in range(0, len(new), PARAMETERS_PER_CALL):
        client.log_batch(run_id, params=new[start : start + PARAMETERS_PER_CALL])
    changed = [f"{name}: {known[name]} -> {value}" for name, value in values.items() if known.get(name, value) != value]
    if changed:
        client.set_tag(run_id, "resumed with", shortened(", ".join(changed), TAG_LENGTH))


def log_data(client: MlflowClient, run_id: str, run: RunInfo) -> None:
    """Name the data of a run."""
    from mlflow.entities import Dataset, DatasetInput

    fingerprint = str(run.fingerprint)
    name = data_name(str(run.tags.get("dataset") or "data"), run.source)
    source = json.dumps({"store": fingerprint, "source": run.source})
    client.log_inputs(run_id, [DatasetInput(Dataset(shortened(name, KEY_LENGTH), fingerprint[:36], "local", source))])


def tags_of(run: RunInfo) -> dict[str, Any]:
    """The tags of a run's entry when it is made."""
    return {
        **run.tags,
        RUN: run.id,
        "folder": str(run.folder.resolve()),
        "data fingerprint": run.fingerprint,
        "data source": run.source,
        "mlflow.user": os.environ.get("USER"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "train.py",
        "mlflow.source.git.commit": run.commit,
        **{f"environment.{name}": version for name, version in run.environment.items()},
    }


def key_of(name: str) -> str:
    """A name as MLflow takes it: of allowed signs, and no path that could be written in another way."""
    allowed = re.sub(r"[^\w .:/-]", "_", str(name))[:KEY_LENGTH]
    return "/".join(part for part in allowed.split("/") if part.strip(".")) or "_"


def texts_of(values: Mapping[str, Any], length: int) -> dict[str, str]:
    """Names and values as MLflow takes them, without secrets; None is left out."""
    there = {key_of(name): value for name, value in values.items() if value is not None}
    texts = {name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in there.items()}
    return {name: shortened(hidden(text), length) for name, text in texts.items()}


def shortened(text: str, length: int) -> str:
    """A text of at most this many signs."""
    return text if len(text) <= length else f"{text[: length - 2]} …"
