"""A throw-away SLURM of one node: a test module lists this one in `pytest_plugins` and asks for `slurm`."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import unavailable

_SECONDS = 30
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # the daemons', which is on no ordinary user's path
_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=15
NodeName=test NodeAddr=127.0.0.1 NodeHostname={host} CPUs=2 State=UNKNOWN
PartitionName=main Nodes=test Default=YES MaxTime=INFINITE State=UP
"""


class ClusterUnavailableError(Exception):
    """No cluster can be had here; the message says why."""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM, which jobs requeued by their own account leave for seconds, not minutes.

    Args:
        folder: of its own.
        environment: variables with which programs find it.
    """

    folder: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What one of SLURM's programs prints."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=_SECONDS
        ).stdout

    def jobs(self, state: str) -> list[str]:
        """The jobs in a state."""
        return self.ask("squeue", "--noheader", "--array", f"--states={state}", "--format=%i").split()


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *_SBIN]))
    if found is None:
        raise ClusterUnavailableError(f"SLURM is not installed: there is no {name}")
    return found


def _daemon(stack: ExitStack, folder: Path, *command: str) -> None:
    """Start a daemon that ends with the tests."""
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "SLURM_CONF": str(folder / "slurm.conf")},
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()

    stack.callback(end)


def _wait(command: list[str], cluster: Cluster) -> None:
    """Until a program of SLURM's succeeds."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            cluster.ask(*command)
            return
        except (OSError, subprocess.SubprocessError) as error:
            if time.monotonic() > deadline:
                logs = (path.read_text(errors="replace")[-500:] for path in cluster.folder.glob("*.log"))
                raise ClusterUnavailableError("\n".join([f"{command[0]}: {error}", *logs])) from error
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(stack: ExitStack) -> Cluster:
    munged, slurmctld, slurmd = map(_program, ("munged", "slurmctld", "slurmd"))
    for name in ("srun", "sbatch", "squeue", "scancel"):
        _program(name)
    folder = Path(tempfile.mkdtemp(prefix="mmsa-slurm-"))  # a socket's path may have about 100 characters only
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    configuration = _CONFIGURATION.format(
        folder=folder, ports=_free_ports(2), user=getpass.getuser(), host=socket.gethostname().partition(".")[0]
    )
    (folder / "slurm.conf").write_text(configuration)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    cluster = Cluster(folder, {"SLURM_CONF": str(folder / "slurm.conf")})
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    _daemon(stack, folder, munged, "--foreground", "--force", f"--socket={folder}/munge", *files)
    _wait(["munge", f"--socket={folder}/munge", "--no-input"], cluster)
    _daemon(stack, folder, slurmctld, "-D")
    _wait(["scontrol", "ping"], cluster)
    _daemon(stack, folder, slurmd, "-D", "-N", "test")
    _wait(["srun", "--immediate=1", "true"], cluster)
    stack.callback(cluster.ask, "scancel", "--full", f"--user={getpass.getuser()}")
    return cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """A cluster of two processors; tests that need one are skipped where none can be started."""
    pytest.importorskip("submitit", reason="the launcher is not installed: pip install hydra-submitit-launcher")
    with ExitStack() as stack:
        try:
            cluster = _start(stack)
        except ClusterUnavailableError as error:
            unavailable(str(error))
        yield cluster
