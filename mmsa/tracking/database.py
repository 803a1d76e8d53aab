"""The MLflow database and experiment: made once, before runs write to them side by side."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import psutil
from filelock import SoftFileLock, Timeout

from mmsa.errors import ConfigError
from mmsa.files import remove_all
from mmsa.locks import locked
from mmsa.process import silence
from mmsa.program import program

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_DATABASES = ("mssql", "mysql", "postgresql", "sqlite")  # that MLflow opens by itself, without a server in between
_LOCK_SECONDS = 120.0
_ANSWER_SECONDS = 20
_ARTIFACTS = "mlartifacts"
_PLACES = {"runs": "artifact_uri", "logged_models": "artifact_location", "model_versions": "storage_location"}
"""Tables of MLflow, and their columns with the places of artifacts."""
# File systems of a local disk, on which SQLite's write-ahead log works; a network one cannot share its memory map.
_LOCAL_FILE_SYSTEMS = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}


def default_uri(outputs: Path | str, name: str = "mlflow.db") -> str:
    """The SQLite database in the outputs folder."""
    path = str(Path(outputs).resolve() / name)
    return _SQLITE + path.replace("%", "%25").replace("?", "%3F")  # what a URI would take for its own signs


def import_client() -> type[MlflowClient]:
    """MLflow's client class, imported with telemetry off and without lines of its own."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # MLflow's own seven retries would hold a run for minutes when a server is away.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient

    silence(logging.CRITICAL, "mlflow", "alembic", "sqlalchemy", "urllib3")  # the tracker tells failures itself
    return MlflowClient


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite database, None where the URI is another one."""
    return Path(unquote(uri.removeprefix(_SQLITE))).resolve() if uri.startswith(_SQLITE) else None


def ensure_database(
    uri: str | None, outputs: Path | str, experiment: str = "mmsa", say: Callable[[str], None] = print
) -> str:
    """Make the database and the experiment where they are missing, and return the experiment's id.

    Several processes of a machine may call it at once. A local SQLite database gets its artifacts beside it, another
    database in `outputs`; a server keeps them where it is set to. An SQLite database of an older MLflow is upgraded.

    Args:
        uri: any MLflow tracking URI; None is SQLite in `outputs`.
        outputs: the outputs folder.
        experiment: the experiment's name.
        say: takes the line about an upgrade.

    Raises:
        mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError: the place cannot be
            written or reached.
        ConfigError: the file is no MLflow database, or of another version and cannot be upgraded.
    """
    uri = uri or default_uri(outputs)
    client_class = import_client()  # before the lock: it takes seconds
    if uri.partition(":")[0].partition("+")[0] not in _DATABASES:
        return _experiment_id(client_class(tracking_uri=uri), experiment, None)
    database = sqlite_file(uri)
    folder = database.parent if database else Path(outputs).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if database:
        if not _is_there(database):
            with _locked(_lock_of(folder, database)):
                if not _is_there(database):  # else another process has just made it
                    _make(database)
        bring_here(database, say)
        require_writable(database)
        if known := known_experiment(database, experiment):
            return known  # so that workers need not queue for the lock
    else:
        require_answer(uri)
    with _locked(_lock_of(folder, database)):
        # MLflow alone would put the runs' files into the working directory of whoever came first.
        artifacts = folder / _ARTIFACTS / re.sub(r"^\.+$", "_", quote(experiment, safe=" "))
        return _experiment_id(client_class(tracking_uri=uri), experiment, artifacts.as_uri())


def _is_there(database: Path) -> bool:
    """Whether something is at the path: a file of no bytes is what SQLite leaves of a database that was not made."""
    return database.exists() and (not database.is_file() or database.stat().st_size > 0)


def _make(database: Path) -> None:
    """Make the tables in a file beside, which takes the name when it is whole: no reader sees a part of them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    remove_all(database.parent.glob(f".{database.name}-*"))  # of a process that died here
    # A folder of a new name each time: MLflow keeps its connections by the path.
    with tempfile.TemporaryDirectory(dir=database.parent, prefix=f".{database.name}-", suffix=".tmp") as folder:
        beside = Path(folder, database.name)
        store = SqlAlchemyStore(default_uri(folder, database.name), (database.parent / _ARTIFACTS).as_uri())
        store.engine.dispose()
        if can_write_ahead(Path(folder)):
            with closing(sqlite3.connect(beside)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
        os.replace(beside, database)


def bring_here(database: Path, say: Callable[[str], None]) -> None:
    """Make an SQLite database fit its folder and this MLflow, whatever it was made in.

    Args:
        database: the file.
        say: takes the line about an upgrade.

    Raises:
        sqlite3.Error: the file cannot be read or written.
        ConfigError: it is no MLflow database, it is of a newer MLflow, or its upgrade failed.
    """
    _upgrade(database, say)
    _let_artifacts_follow(database)


def _let_artifacts_follow(database: Path) -> None:
    """Name the artifacts beside a database that was moved or copied: MLflow keeps their places as absolute paths."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        places = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        for experiment, former in places:
            root, found, name = str(former).rpartition(f"/{_ARTIFACTS}/")
            here = database.parent.as_uri()
            if not found or "/" in name or root == here or urlsplit(root).scheme != "file":
                continue  # where it belongs, or where somebody else put it
            connection.execute(
                "UPDATE experiments SET artifact_location = ? || substr(artifact_location, ?) WHERE experiment_id = ?",
                (here, len(root) + 1, experiment),
            )
            for table, place in _PLACES.items():
                connection.execute(
                    f"UPDATE {table} SET {place} = ? || substr({place}, ?) WHERE substr({place}, 1, ?) = ?",
                    (here, len(root) + 1, len(former) + 1, f"{former}/"),
                )
            outputs = unquote(urlsplit(root).path)
            connection.execute(
                "UPDATE tags SET value = ? || substr(value, ?) WHERE key = 'folder' AND substr(value, 1, ?) = ?",
                (str(database.parent), len(outputs) + 1, len(outputs) + 1, f"{outputs}/"),
            )
        connection.commit()


def _upgrade(database: Path, say: Callable[[str], None]) -> None:
    """Let MLflow upgrade a database of an older version, of which a copy is kept."""
    scripts = _schemas()
    if _schema(database) == scripts.get_current_head():
        return
    with _locked(_lock_of(database.parent, database)):
        version = _schema(database)
        if version == scripts.get_current_head():  # another process has just done it
            return
        if version not in {script.revision for script in scripts.walk_revisions()}:
            raise ConfigError(
                f"{database} was made by a newer MLflow.\n"
                f"  type {program('pip')} install --upgrade mlflow, or tracking.uri=URI of another database"
            )
        kept = database.with_name(f"{database.name}.{version}")
        with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(kept)) as copy:
            old.backup(copy)
        words = ["db", "upgrade", default_uri(database.parent, database.name)]
        done = subprocess.run([sys.executable, "-m", "mlflow", *words], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["for an unknown reason"])[-1]
        raise ConfigError(
            f"{database} is of an older MLflow, and cannot be upgraded: {last[:160]}\n"
            f"  type {program('mlflow')} {shlex.join(words)}, or move it away; a copy is {kept}"
        )
    say(f"The MLflow database was of an older version and is upgraded; {kept} is the copy before.")


@cache
def _schemas() -> ScriptDirectory:
    """The versions of MLflow's tables, found without MLflow, whose import takes seconds."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(distribution("mlflow").locate_file("mlflow/store/db_migrations")))


def _schema(database: Path) -> str:
    row = None
    if not database.is_dir():
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
            try:
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                    raise  # unreadable now, which does not show what it holds
    if row is None:
        raise ConfigError(
            f"{database} is not an MLflow database: another program's, damaged, or stopped while it was made.\n"
            f"  type mv {shlex.join([str(database), f'{database}.broken'])}, or tracking.uri=URI of another"
        )
    return str(row[0])


def require_writable(database: Path, seconds: float = 20.0) -> None:
    """Fail where the database cannot be written after `seconds`; the client would try for minutes."""
    with closing(sqlite3.connect(database, timeout=seconds)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def require_answer(uri: str) -> None:
    """Fail where the server of a database does not answer at once; the client would try for minutes.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it does not answer.
    """
    import sqlalchemy

    timed = {"connect_timeout": _ANSWER_SECONDS} if uri.startswith(("postgresql", "mysql")) else {}
    engine = sqlalchemy.create_engine(uri, connect_args=timed, poolclass=sqlalchemy.NullPool)
    engine.connect().close()


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
    with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-", suffix=".tmp") as scratch:
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
    """The type of the file system that holds `folder`, or "" where it is unknown."""
    path = folder.resolve()
    holding = [mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)]
    # Of equal mount points the last one covers the others.
    deepest = max(reversed(holding), key=lambda mount: len(Path(mount.mountpoint).parts), default=None)
    return deepest.fstype if deepest else ""


def _lock_of(folder: Path, database: Path | None) -> Path:
    return folder / f"{database.name if database else 'mlflow'}.lock"


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
