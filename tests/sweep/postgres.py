"""A throw-away PostgreSQL server: a test module lists this one in `pytest_plugins` and asks for `postgres_url`."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable

_USER = "mmsa:not-to-be-shown"  # the server trusts whoever reaches its socket; the password is there to be looked for
_START_SECONDS = 60
_PLACES = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin")
_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB")


class ServerUnavailableError(Exception):
    """No server can be had here; the message says why."""


def programs() -> Path:
    """The folder of `initdb` and `postgres`: that of the search path, or the newest of the usual places.

    Raises:
        ServerUnavailableError: they are nowhere.
    """
    found = shutil.which("initdb")
    folders = [path for place in _PLACES for path in Path("/").glob(place.lstrip("/"))]
    newest = sorted(folders, key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))], reverse=True)
    for folder in [*([Path(found).resolve().parent] if found else []), *newest]:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise ServerUnavailableError("PostgreSQL is not installed: initdb is neither on the PATH nor in a usual place")


def ordinary_user() -> dict[str, Any]:
    """What `subprocess` needs to run as an ordinary user, because PostgreSQL refuses root.

    Raises:
        ServerUnavailableError: we are root and there is nobody else.
    """
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise ServerUnavailableError("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody")


class Server:
    """A server on a Unix socket in a temporary folder, which is gone at the end; it can be stopped and started again.

    Raises:
        ServerUnavailableError: it cannot be started here.
    """

    def __init__(self) -> None:
        self._programs, user = programs(), ordinary_user()
        # Not in pytest's folder: that is closed to other users, and a socket's path may have about 100 characters only.
        self.folder = Path(tempfile.mkdtemp(prefix="mmsa-postgres-"))
        self._started = {"cwd": self.folder, "env": os.environ | {"LC_ALL": "C", "HOME": str(self.folder)}, **user}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        try:
            _make_cluster(self._programs / "initdb", self.folder, self._started)
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = _start(self._programs / "postgres", self.folder, self._started)
        _wait_until_ready(self._process, self.folder)

    def stop(self) -> None:
        """End it, although clients are connected."""
        if self._process is not None:
            _stop(self._process)
        self._process = None


def _make_cluster(initdb: Path, folder: Path, started: dict[str, Any]) -> None:
    options = ["--username", "mmsa", "--auth", "trust", "--encoding", "UTF8", "--no-sync"]
    command = [str(initdb), "--pgdata", str(folder / "data"), *options]
    try:
        if "user" in started:
            os.chown(folder, started["user"], started["group"])
        made = subprocess.run(
            [*command, "--no-sync"], capture_output=True, text=True, timeout=_START_SECONDS, **started
        )
    except (OSError, subprocess.SubprocessError) as error:  # a user that we may not become, a program out of reach
        raise ServerUnavailableError(f"{initdb} cannot be run: {error}") from error
    if made.returncode:
        raise ServerUnavailableError(f"{initdb} failed: {_last_line(made.stderr)}")


def _start(postgres: Path, folder: Path, started: dict[str, Any]) -> subprocess.Popen[bytes]:
    settings = [*_QUICK, "listen_addresses=", f"unix_socket_directories={folder}"]
    command = [str(postgres), "-D", str(folder / "data"), *(word for setting in settings for word in ("-c", setting))]
    with (folder / "log").open("wb") as log:
        # A session of its own: Ctrl-C would end the server before the tests that use it.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **started
        )


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path) -> None:
    import psycopg

    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(f"host={folder} user=mmsa dbname=postgres").close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = _last_line((folder / "log").read_text(errors="replace"))
                raise ServerUnavailableError(f"the PostgreSQL server did not start: {said}") from error
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server: in order although clients are connected, then at once with the processes that it started."""
    for sent in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(sent)
        try:
            process.wait(20)
            return
        except subprocess.TimeoutExpired:
            continue


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of a running server's socket, for which a test needs one."""
    pytest.importorskip("psycopg", reason="the driver is not installed: pip install psycopg[binary]")
    with ExitStack() as stack:
        try:
            folder = str(stack.enter_context(Server()).folder)
        except ServerUnavailableError as error:
            unavailable(str(error))
        yield folder


_numbers = itertools.count(1)


def empty_database(folder: str) -> str:
    """The URL of a new database of the server with its socket in `folder`, with a user and a password."""
    import psycopg

    name = f"test_{next(_numbers)}"
    with psycopg.connect(f"host={folder} user=mmsa dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://{_USER}@/{name}?host={folder}"


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of an empty database of the test's own."""
    return empty_database(postgres_server)


@pytest.fixture
def second_postgres_url(postgres_server: str) -> str:
    """The URL of another one."""
    return empty_database(postgres_server)
