"""The other processes of a run on several devices: started and ended by rank 0, which alone writes and prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import distributed, nn

from mmsa.errors import MmsaError, RankError, printable
from mmsa.program import environment_of_ours

READY = b"ready\n"
"""What a process prints before it meets the others."""
_NOTICED_SECONDS = 2.0
"""A process whose connections are closed has ended after this time."""
_POLL_SECONDS = 0.1
_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS", "TORCH_NCCL_ASYNC_ERROR_HANDLING")
"""Of the environment, which a launch changes."""
_ABORTING = threading.Lock()


class Rank:
    """One of the other processes, `python -m mmsa.rank`, in a session of its own so that no Ctrl-C reaches it.

    It lives as long as its standard input is open: it ends with this process, however this one ends.

    Args:
        number: from 1.
        arguments: of its command.
    """

    def __init__(self, number: int, arguments: Sequence[str]) -> None:
        self.number = number
        self._errors = TemporaryFile()  # noqa: SIM115  (`end` closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mmsa.rank", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment_of_ours(),
            start_new_session=True,
        )
        self._words: Any = self._process.stdout

    def await_ready(self) -> None:
        """Wait until it is about to meet the others.

        Raises:
            RankError: it has ended.
        """
        if self._words.readline() != READY:
            self._process.wait()
            raise self.failure()

    def has_failed(self) -> bool:
        """Whether it has ended other than after its training."""
        return bool(self._process.poll())

    def failure(self) -> RankError:
        """Why it has ended: its own words, or the signal."""
        words = self._words.read().decode(errors="replace").strip()
        self._errors.seek(0)
        trace = self._errors.read().decode(errors="replace").strip()
        code = self._process.returncode
        how = f"killed by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"
        error = RankError(f"the process of rank {self.number}: {words or ': '.join([how, *trace.splitlines()[-1:]])}")
        error.add_note("\n".join(map(printable, trace.splitlines())))
        return error

    def end(self) -> None:
        """Kill it: it writes nothing and owns nothing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._words, self._errors):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]


@contextmanager
def other_ranks(fabric: Fabric, folder: Path, store: Path) -> Iterator[None]:
    """Around the training of rank 0: the other processes train too, and none is left afterwards, however it ends.

    Args:
        fabric: of `mmsa.training.device.make_fabric`; one of one device needs no others.
        folder: of the run, with its configuration.
        store: file of the run's data.

    Raises:
        RankError: one of them has ended early.
    """
    if fabric.world_size == 1:
        yield
        return
    others: list[Rank] = []
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(others, over), daemon=True)
    try:
        port = str(fabric.strategy.cluster_environment.main_port)  # type: ignore[attr-defined]
        for number in range(1, fabric.world_size):
            others.append(Rank(number, [str(folder), str(store), str(number), port]))
        for other in others:
            other.await_ready()
        launch(fabric)
        watch.start()
        yield
    except BaseException as error:
        _abort()
        if isinstance(error, Exception) and not isinstance(error, MmsaError) and (failed := _failed(others)):
            raise failed.failure() from error
        raise
    finally:
        over.set()
        for other in others:
            other.end()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def launch(fabric: Fabric) -> None:
    """Let this process meet the others; its threads and its environment stay as they are."""
    threads, before = torch.get_num_threads(), {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")  # we notice ourselves, and keep the reason
    try:
        fabric.launch()
        with _unheard():  # DDP advises once against looking for unused parameters, which phases and own parts may have
            fabric.setup_module(nn.LayerNorm(1))(torch.zeros(1, 1, device=fabric.device))
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _failed(others: Sequence[Rank]) -> Rank | None:
    """The process that has failed, where one is about to or has."""
    deadline = time.monotonic() + _NOTICED_SECONDS
    while time.monotonic() < deadline:
        for other in others:
            if other.has_failed():
                return other
        time.sleep(_POLL_SECONDS)
    return None


def _watch(others: Sequence[Rank], over: threading.Event) -> None:
    while not over.wait(_POLL_SECONDS):
        if any(other.has_failed() for other in others):
            _abort()
            return


def _abort() -> None:
    """Let go whatever waits for the others: NCCL would wait for a process that has died, where gloo notices."""
    with _ABORTING:
        if distributed.is_initialized() and distributed.get_backend() == "nccl":
            distributed.distributed_c10d._abort_process_group()


@contextmanager
def _unheard() -> Iterator[None]:
    """Meanwhile nothing reaches the screen by standard error."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
