"""The MLflow UI over an outputs folder: `mmsa ui`, or `make ui`."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import psutil

from mmsa.errors import MmsaError
from mmsa.program import program, training
from mmsa.record import RunRecord
from mmsa.tracking.database import bring_here, default_uri, known_experiment
from mmsa.tracking.view import TAG, run_page, runs_page

HOST = "127.0.0.1"
EXPERIMENT = "mmsa"
START_SECONDS = 120
STOP_SECONDS = 10
PORTS_TRIED = 100


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on.

    Raises:
        MmsaError: none of the next hundred is free.
    """
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        # Asked as well as bound: macOS lets a second program bind a port that another holds on all interfaces.
        if is_taken(port):
            continue
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise MmsaError(
        f"--port {first}: this port and the next {PORTS_TRIED - 1} are taken.\n  type for example --port 8080"
    )


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def is_ours(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is the server, or a worker of it, that listens on a port, and not another program's."""
    try:
        first = psutil.Process(server.pid)
        sockets = [found for one in (first, *first.children(recursive=True)) for found in one.net_connections("inet")]
    except psutil.Error:  # one of them has just ended
        return False
    return any(found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in sockets)


def training_view(database: Path, port: int) -> str:
    """Address of the experiment's run list in the UI, or of the UI itself while the experiment is not there.

    Raises:
        MmsaError: the file is not an MLflow database.
    """
    root = f"http://{HOST}:{port}/"
    try:
        if (experiment := known_experiment(database, EXPERIMENT)) is None:
            return root
        view = "SELECT 1 FROM experiment_tags WHERE experiment_id = ? AND key = ?"
        return runs_page(root, experiment, _first(database, view, int(experiment), TAG) is not None)
    except sqlite3.Error as error:
        raise MmsaError(f"{database} is not an MLflow database ({error}).\n  move it away and train again") from error


def page_of(database: Path, port: int, run: Path) -> str:
    """Address of a run's page.

    Raises:
        DataError: the folder is not a run's.
        MmsaError: the database does not show it.
    """
    entry = RunRecord.read(run).mlflow_run_id
    experiment = _first(database, "SELECT experiment_id FROM runs WHERE run_uuid = ?", entry)
    if experiment is None:
        raise MmsaError(f"{run} is not in {database}.\n  type {program('mmsa')} track {shlex.quote(str(run))}")
    return run_page(f"http://{HOST}:{port}", str(experiment), str(entry))


def _first(database: Path, query: str, *values: object) -> object:
    """The first value of a query's first row; None where there is none."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=20)) as connection:
        row = connection.execute(query, values).fetchone()
    return row[0] if row else None


def start_server(outputs: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start one MLflow server over `outputs`/mlflow.db, on the loopback interface only; it writes to `log`."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", default_uri(outputs)]
    command += ["--default-artifact-root", (outputs / "mlartifacts").as_uri()]
    command += ["--artifacts-destination", (outputs / "mlartifacts").as_uri()]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # Its queue serves the evaluation of language models and costs several more processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with log.open("wb") as stream:
        # A session of its own, so that Ctrl-C reaches this program alone and the server is ended in order.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=outputs,
            env=environment,
            start_new_session=True,
        )


def is_up(server: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Wait until the server answers; False where another program has taken its port meanwhile.

    Raises:
        MmsaError: it ended by itself, or does not answer within two minutes.
    """
    # Without proxies: a machine-wide http_proxy would be asked for the loopback address too.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            if is_taken(port):
                return False
            lines = log.read_text(errors="replace").strip().splitlines() or ["(nothing)"]
            raise MmsaError(f"The MLflow server ended by itself. Its last words: {lines[-1]}\nAll of them: {log}")
        if is_ours(server, port):
            with suppress(OSError), opener.open(f"http://{HOST}:{port}/health", timeout=5):
                return True
        time.sleep(0.3)
    raise MmsaError(f"The MLflow server does not answer after {START_SECONDS} s. What it printed: {log}")


def stop_server(server: subprocess.Popen[bytes]) -> None:
    """End the server and the workers that it started."""
    with suppress(ProcessLookupError):
        for sent in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(server.pid, sent)
            with suppress(subprocess.TimeoutExpired):
                server.wait(STOP_SECONDS)
    server.wait()


def ssh_line(port: int) -> str:
    """The command that brings the UI of this machine to the one in front of the user."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        user = "USER"
    return f"ssh -N -L {port}:{HOST}:{port} {shlex.quote(f'{user}@{socket.gethostname()}')}"


def serve(outputs: Path, first_port: int, run: Path | None = None) -> None:
    """Start the server, print its address, and stay until it ends or this program is interrupted.

    Args:
        outputs: folder that holds mlflow.db.
        first_port: the first port to try.
        run: folder of a run, whose page is named too.

    Raises:
        MmsaError: no runs yet, or not this one, a folder that may not be written, no free port, or a server that does
            not come up.
    """
    if not (outputs / "mlflow.db").is_file():
        there = "" if outputs == Path("outputs") else f" {shlex.quote(f'paths.outputs={outputs}')}"
        raise MmsaError(f"{outputs} holds no tracked runs yet.\n  type {training()}{there}")
    if not os.access(outputs, os.W_OK):
        raise MmsaError(
            f"{outputs} may only be read, and MLflow writes beside the database that it shows.\n"
            f"  type cp -r {shlex.quote(str(outputs))} FOLDER && chmod -R u+w FOLDER && {program('mmsa')} ui "
            "--outputs FOLDER"
        )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with it ignored
    try:
        _stay(outputs.absolute(), first_port, run)
    except KeyboardInterrupt:
        print("\nEnded.")


def _stay(outputs: Path, first_port: int, run: Path | None) -> None:
    database = outputs / "mlflow.db"
    training_view(database, first_port)  # which refuses another file
    if run:
        page_of(database, first_port, run)
    with suppress(sqlite3.Error):  # of one that may only be read the server shows what it can
        bring_here(database.resolve(), print)
    log = outputs / "ui.log"
    port = free_port(first_port)
    print("Starting the MLflow server, usually 10 to 20 seconds ...", flush=True)
    while True:
        server = start_server(outputs, port, log)
        try:
            if is_up(server, port, log):
                if port != first_port:
                    print(f"Port {first_port} is taken; using {port}.")
                if run:
                    print(f"The run:   {page_of(database, port, run)}")
                print(f"The runs:  {training_view(database, port)}")
                print(f"From another machine, first type there:  {ssh_line(port)}")
                print("Ctrl-C ends it.", flush=True)
                server.wait()
                raise MmsaError(f"The MLflow server ended. What it printed: {log}")
        finally:
            stop_server(server)
        port = free_port(port + 1)
