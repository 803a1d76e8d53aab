"""Where a study is kept: SQLite on one machine, a journal file on a shared disk, or a database server."""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
import weakref
from contextlib import closing
from functools import partial
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import IntegrityError, ProgrammingError

from mmsa.errors import ConfigError, DataError, MmsaError
from mmsa.process import silence
from mmsa.secrets import address, hidden, keep, resolved, without_secrets
from mmsa.sweep.lasting import LastingStorage, cause_of, insist
from mmsa.sweep.options import SQLITE, SweepSpec, is_server
from mmsa.tracking.database import can_write_ahead, file_system

WAIT_SECONDS = 10
"""How long a writer of an SQLite file, or one who connects to PostgreSQL, waits before the call is tried again."""


def choose_storage(option: str | None, folder: Path) -> tuple[str, str | None]:
    """The place of a study, and a note on it.

    Args:
        option: `sweep.storage` as written: a URL, "journal", or None for the file system's choice.
        folder: the sweep's folder.

    Returns:
        The path or URL of a file; a server's URL as written, without its secret.

    Raises:
        ConfigError: an SQLite file on a network file system, or with a password; a variable that is not set.
    """
    journal = str((folder / "journal.log").resolve())
    kind = file_system(folder)
    if option is None:
        if can_write_ahead(folder):
            return f"{SQLITE}{(folder / 'study.db').resolve()}", None
        return journal, f"{folder} lies on {kind or 'an unknown file system'}, where SQLite is not safe: a journal file"
    written, option = option, resolved("sweep.storage", option)
    if option == "journal":
        return journal, None
    if option.startswith(SQLITE):
        address("sweep.storage", option)
        path = Path(option.removeprefix(SQLITE)).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not can_write_ahead(path.parent):
            raise ConfigError(
                f"sweep.storage={option}: the file lies on {file_system(path.parent) or 'an unknown disk'}, where "
                "several processes cannot share an SQLite file.\n  type sweep.storage=journal, or a server's URL"
            )
        return f"{SQLITE}{path}", None
    if "://" not in option:
        raise ConfigError(
            f"sweep.storage={option}: needs journal, or the URL of a database.\n"
            "  type for example sweep.storage=journal, or sweep.storage=postgresql+psycopg://USER@HOST/NAME"
        )
    return keep("sweep.storage", written), None


def open_storage(place: str, minutes: float = 0.0, waits: bool = False) -> BaseStorage:
    """Open, and make where it is missing, the storage at a URL or a journal's path.

    Args:
        place: the URL or the path.
        minutes: how long each later call is tried again while the storage is away, >= 0.
        waits: opening is tried again as well; otherwise it is refused at once, as a mistyped address should be.

    Raises:
        ConfigError: it cannot be reached or read, or its secret is not in the environment.
        StorageAway: it was away for longer.
    """
    quiet_optuna()
    shown = hidden(place)
    place = address("sweep.storage", place) if is_server(place) else place

    def opened() -> BaseStorage:
        try:
            return _open(place)
        except (IntegrityError, ProgrammingError):  # another host made the tables in this second
            time.sleep(1.0)
            return _open(place)

    try:
        storage = insist(opened, minutes) if waits else opened()
    except MmsaError:
        raise
    except Exception as error:  # whatever a driver raises: each database has its own
        raise ConfigError(
            f"sweep.storage={shown} cannot be opened: {without_secrets(cause_of(error), place)[:200]}\n"
            "  correct the address, start the server, or leave sweep.storage out"
        ) from error
    return LastingStorage(get_storage(storage), minutes)  # type: ignore[return-value]


def _open(place: str) -> BaseStorage:
    if "://" not in place:
        return JournalStorage(JournalFileBackend(place))
    options: dict[str, object] = {"pool_pre_ping": True}
    if place.startswith(SQLITE):
        path = place.removeprefix(SQLITE)
        connect = partial(sqlite3.connect, path, timeout=WAIT_SECONDS, check_same_thread=False)
        with closing(connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file; choose_storage knows the disk
        # By the path itself, whose signs (%, ?, {) SQLAlchemy and Optuna would take for theirs in a URL.
        place, options = f"{SQLITE}study.db", {"creator": connect}
    elif place.startswith(("postgresql:", "postgresql+psycopg")):
        options["connect_args"] = {"connect_timeout": WAIT_SECONDS}
    storage = RDBStorage(place, engine_kwargs=options)
    weakref.finalize(storage, storage.engine.dispose)  # Optuna leaves the connections to the collector
    return storage


def open_study(folder: Path, minutes: float = 0.0) -> optuna.Study:
    """The study of a sweep's folder, to look at.

    Args:
        folder: the sweep's.
        minutes: how long its later calls are tried again while the storage is away.

    Raises:
        DataError: the folder is not a sweep's, or its study is damaged.
        ConfigError: its storage cannot be reached, or does not hold the study.
    """
    spec = SweepSpec.load(folder)
    try:
        if not _has_studies(spec):
            raise KeyError(spec.study)
        return optuna.load_study(study_name=spec.study, storage=open_storage(spec.storage, minutes))
    except (KeyError, StorageInternalError) as error:
        raise ConfigError(
            f"{hidden(spec.storage)} holds no study {spec.study}.\n  run the command of the sweep again"
        ) from error
    except MmsaError:
        raise
    except Exception as error:  # whatever a damaged file makes of Optuna's own reading
        raise DataError(
            f"{hidden(spec.storage)}: its study {spec.study} cannot be read.\n  name another study"
        ) from error


def _has_studies(spec: SweepSpec) -> bool:
    """Whether a storage that is a file has studies: opening it to look at makes no file, and no tables in another's."""
    if spec.file is None:
        return not spec.storage.lower().startswith("sqlite")  # by another driver's name
    if not spec.file.is_file():
        return False
    if not spec.storage.startswith(SQLITE):
        return True
    try:
        with closing(sqlite3.connect(f"{spec.file.as_uri()}?mode=ro", timeout=WAIT_SECONDS, uri=True)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'studies'").fetchall())
    except sqlite3.Error:
        return False


def quiet_optuna() -> None:
    """Keep lines of Optuna, its database and its figures off the screen: the sweep itself prints failures."""
    silence(logging.CRITICAL, "sqlalchemy")
    silence(logging.ERROR, "matplotlib")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
