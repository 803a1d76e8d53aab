"""Programs as children of one process that has imported the libraries: a start is a fork, not seconds of imports."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import re
import runpy
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from sqlalchemy import Engine

from mmsa import config
from mmsa.sweep import worker
from tests.conftest import ROOT

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])
POPEN = psutil.Popen

FOREIGN = re.compile(
    r"^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d [A-Z]+ |[A-Z]+ +\[|submitit [A-Z]+ )"  # how their loggers begin
    r"|(mlflow|sqlalchemy|alembic|submitit|lightning_\w+)/\S+\.py:\d+: |sqlalche\.me/|GPU available: |View run ",
    re.MULTILINE,
)
"""Lines of MLflow's, SQLAlchemy's, Alembic's, submitit's and Lightning's own, which belong on no screen."""
TASK_OF_TWO = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
"""Variables of the second task of `#SBATCH --ntasks=2`."""


def in_a_job(folder: Path) -> dict[str, str]:
    """The environment of a job where srun is on the path."""
    (folder / "srun").write_text("#!/bin/sh\n")
    (folder / "srun").chmod(stat.S_IRWXU)
    return {**os.environ, **TASK_OF_TWO, "PATH": f"{folder}:{os.environ['PATH']}"}


def train_py() -> None:
    """What `python train.py` runs."""
    runpy.run_path(sys.argv[0], run_name="__main__")


def mmsa() -> None:
    """What `mmsa` runs."""
    from mmsa.cli import main

    main()


def forked_worker(command: list[str], *, env: Mapping[str, str], **options: Any) -> psutil.Popen:
    """A worker of a sweep as a fork of its parent, which has imported all, instead of a Python of its own."""
    sys.stdout.flush()
    # A fork takes over what SQLite believes to have locked, and not the locks: whoever closes the file last, as it
    # seems then, removes the log in which the fork still writes.
    for engine in [held for held in gc.get_objects() if type(held) is Engine]:
        engine.dispose()

    def run() -> None:
        """In the child, whose input, output and session are set, and which goes on here instead of to a program."""
        for fd in map(int, os.listdir("/dev/fd")):  # pipes that a program would not get
            with contextlib.suppress(OSError):
                if fd > 2 and stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.close(fd)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(env)
        code = 1
        try:
            code = worker.main(command[command.index("mmsa.sweep.worker") + 1 :])
        except Exception:  # noqa: BLE001  (printed, as a Python of its own would)
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    return POPEN(command, preexec_fn=run, **options)


def _become(
    program: Callable[[], None], arguments: list[str], cwd: str, environment: dict[str, str], out: str, forks: bool
) -> None:
    """In the child: a session of its own, the caller's environment and folder, and its output into files."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell in the background would have had ignored
    os.environ.clear()
    os.environ.update(environment)
    config.PACKAGES = config.admitted_packages()  # which a process reads once, when it starts
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(out, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    script = "train.py" if Path(cwd) == ROOT else str(ROOT / "train.py")
    if forks:
        psutil.Popen = forked_worker
    sys.argv = [script if program is train_py else str(Path(sys.executable).with_name("mmsa")), *arguments]
    program()


class Program:
    """A running program, as `subprocess.Popen` would have it.

    Args:
        arguments: of its command line.
        program: what it runs.
        cwd: its working folder.
        environment: variables beside those of this process.
        forks: the workers of its sweep are forks of it, where Pythons of their own would take seconds to start.
    """

    def __init__(
        self,
        *arguments: str,
        program: Callable[[], None] = train_py,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        forks: bool = False,
    ) -> None:
        self.args = list(arguments)
        self._folder = tempfile.TemporaryDirectory(prefix="mmsa-program-")
        variables = {**os.environ, **(environment or {})}
        with contextlib.chdir(ROOT):  # where the server looks for this package
            forkserver.ensure_running()
        started = (program, self.args, str(cwd), variables, self._folder.name, forks)
        self._process = CONTEXT.Process(target=_become, args=started)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it printed."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._folder as folder:
            out, err = Path(folder, "out").read_text(), Path(folder, "err").read_text()
        assert not FOREIGN.search(out + err), out + err
        return out, err

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self._process.join()
        self._folder.cleanup()


def train(
    *overrides: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None, forks: bool = False
) -> subprocess.CompletedProcess[str]:
    """`python train.py OVERRIDES`, to its end."""
    program = Program(*overrides, cwd=cwd, environment=environment, forks=forks)
    out, err = program.communicate()
    assert program.returncode is not None
    return subprocess.CompletedProcess(program.args, program.returncode, out, err)


def typed(line: str, cwd: Path = ROOT, forks: bool = False) -> subprocess.CompletedProcess[str]:
    """A line that was printed to be typed, as a shell runs it in a folder."""
    words = shlex.split(line)
    if words[0] == "cd":
        assert words[2] == "&&"
        cwd, words = cwd / words[1], words[3:]
    if words[0] == "mmsa":
        program, words = mmsa, words[1:]
    else:
        assert words[0] == "python" and (cwd / words[1]).samefile(ROOT / "train.py")
        program, words = train_py, words[2:]
    running = Program(*words, program=program, cwd=cwd, forks=forks)
    out, err = running.communicate()
    assert running.returncode is not None
    return subprocess.CompletedProcess(words, running.returncode, out, err)


def stop() -> None:
    """End the warm process; waited for, its processor time counts as the tests' own."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
