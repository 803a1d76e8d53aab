"""The MLflow database and experiment: made once, before runs write to them side by side."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import psutil
from filelock import SoftFileLock, Timeout

from mmsa.locks import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_DATABASES = ("mssql", "mysql", "postgresql", "sqlite")  # that MLflow opens by itself, without a server in between
_LOCK_SECONDS = 120.0
# File systems of a local disk, on which SQLite's write-ahead log works; a network one cannot share its memory map.
_LOCAL_FILE_SYSTEMS = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}


def default_uri(outputs: Path | str) -> str:
    """The SQLite database in the outputs folder."""
    path = str(Path(outputs).resolve() / "mlflow.db")
    return _SQLITE + path.replace("%", "%25").replace("?", "%3F")  # what a URI would take for its own signs


def import_client() -> type[MlflowClient]:
    """MLflow's client class, imported with telemetry off and without its information lines."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # MLflow's own seven retries would hold a run for minutes when a server is away.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)  # the tracker tells failures itself
    return MlflowClient


def ensure_database(uri: str | None, outputs: Path | str, experiment: str = "mmsa") -> str:
    """Make the database and the experiment where they are missing, and return the experiment's id.

    Several processes of a machine may call it at once. A local SQLite database gets its artifacts beside it, another
    database in `outputs`; a server keeps them where it was told to.

    Args:
        uri: any MLflow tracking URI; None is SQLite in `outputs`.
        outputs: the outputs folder.
        experiment: the experiment's name.

    Raises:
        mlflow.exceptions.MlflowException, sqlite3.Error, OSError: the place cannot be written or reached.
    """
    uri = uri or default_uri(outputs)
    client_class = import_client()  # before the lock: it takes seconds
    if uri.partition(":")[0].partition("+")[0] not in _DATABASES:
        return _experiment_id(client_class(tracking_uri=uri), experiment, None)
    database = Path(unquote(uri.removeprefix(_SQLITE))).resolve() if uri.startswith(_SQLITE) else None
    folder = database.parent if database else Path(outputs).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if database:
        _require_writable(database)
        with suppress(sqlite3.Error):  # no schema yet, or not a database, which the client then says
            if known := known_experiment(database, experiment):
                return known  # so that workers need not queue for the lock
    with _locked(folder / f"{database.name if database else 'mlflow'}.lock"):
        if database and not database.stat().st_size and can_write_ahead(folder):
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
        # MLflow alone would put the runs' files into the working directory of whoever came first.
        artifacts = folder / "mlartifacts" / experiment
        return _experiment_id(client_class(tracking_uri=uri), experiment, artifacts.as_uri())


def _require_writable(database: Path) -> None:
    """Fail at once where the database cannot be written, which the client would try again for minutes."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def known_experiment(database: Path, name: str) -> str | None:
    """The id of an experiment in an SQLite file, or None where it is not there.

    Raises:
        sqlite3.Error: the file is not an MLflow database.
    """
    query = "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'"
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
        row = connection.execute(query, (name,)).fetchone()
    return str(row[0]) if row else None


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another process or machine made it in between
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":  # deleted in the UI: no run could start under this name
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def can_write_ahead(folder: Path) -> bool:
    """Whether SQLite's write-ahead log is safe in `folder`: a local disk by its name and by a probe."""
    if file_system(folder) not in _LOCAL_FILE_SYSTEMS:
        return False
    with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as scratch:
        try:
            with closing(sqlite3.connect(Path(scratch) / "probe.db")) as first:
                mode = first.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                first.execute("CREATE TABLE probe (value INTEGER)")
                first.execute("INSERT INTO probe VALUES (1)")
                first.commit()
                with closing(sqlite3.connect(Path(scratch) / "probe.db")) as second:
                    seen = second.execute("SELECT value FROM probe").fetchall()
        except sqlite3.Error:
            return False
        return mode == "wal" and seen == [(1,)]


def file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`, or "" where the machine does not tell."""
    path = folder.resolve()
    holding = [mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)]
    # Of equal mount points the last one covers the others.
    deepest = max(reversed(holding), key=lambda mount: len(Path(mount.mountpoint).parts), default=None)
    return deepest.fstype if deepest else ""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes: the kernel's, or where there is none a file that only one can make."""
    with locked(path) as held, ExitStack() as stack:
        if not held:
            marker = path.with_suffix(".held")
            try:
                stack.enter_context(SoftFileLock(marker, timeout=_LOCK_SECONDS))
            except Timeout:  # whoever held it, on another machine, has died
                marker.unlink(missing_ok=True)
        yield
