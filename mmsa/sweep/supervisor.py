"""The parent of a sweep on one machine: one replaceable worker process per slot, lines on the screen, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from mmsa.locks import holder, lock_file
from mmsa.sweep.slots import Slot
from mmsa.sweep.worker import DONE, REPLACE, SLOT_TAKEN

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
MAX_DEATHS_AT_START = 3
"""Deaths in a row of a slot's workers that did not start a trial, after which the slot is given up."""


@dataclass
class Seat:
    """A slot and the worker process that is in it.

    Args:
        slot: what the worker computes on.
        log: file of what its workers print.
        config_folders: folders of configuration files that its workers get.
    """

    slot: Slot
    log: Path
    config_folders: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    printed: int = 0
    deaths_at_start: int = 0
    waits: bool = False
    closed: bool = False

    def start(self, folder: Path, until: float | None) -> None:
        """Start a worker, in a session of its own so that a terminal's Ctrl-C does not reach it."""
        command = [sys.executable, "-m", "mmsa.sweep.worker", str(folder), "--slot", self.slot.name]
        command += ["--lock", self.slot.lock, *(["--until", str(until)] if until is not None else [])]
        command += [word for given in self.config_folders for word in ("--config-dir", given)]
        root = str(Path(__file__).resolve().parents[2])  # where `mmsa` was imported from, installed or not
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.printed = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.slot.environment, "PYTHONPATH": path},
                start_new_session=True,
            )

    def last_words(self) -> str:
        """What the last worker printed."""
        with self.log.open("rb") as log:
            log.seek(self.printed)
            return log.read().decode(errors="replace")

    def ask_to_end(self) -> None:
        """No further trial; the running one finishes."""
        self.closed = True
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.stdin = None


@dataclass
class Supervisor:
    """Keeps a worker in every slot until nothing is left to run.

    Args:
        folder: the sweep's folder.
        slots: where workers may run.
        until: Unix time after which no trial starts; None has no limit.
        say: takes lines for the screen.
        on_death: takes the number of a trial whose worker died, and how.
        config_folders: folders of configuration files that the workers get, absolute.
        interrupts: signals that asked it to end.
    """

    folder: Path
    slots: Sequence[Slot]
    until: float | None
    say: Callable[[str], None]
    on_death: Callable[[int, str], None] = lambda trial, reason: None
    config_folders: Sequence[str] = ()
    interrupts: int = 0
    _heeded: bool = False
    seats: list[Seat] = field(default_factory=list)

    def __enter__(self) -> Supervisor:
        numbers = [signal.SIGINT, signal.SIGTERM]
        numbers += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # which nohup does
        self._former = {number: signal.signal(number, self._interrupt) for number in numbers}
        logs, host = self.folder / "workers", socket.gethostname()
        names = [re.sub(r"[^A-Za-z0-9]+", "-", f"{host} {slot.name}") for slot in self.slots]
        self.seats = [
            Seat(slot, logs / f"{name}.log", self.config_folders) for slot, name in zip(self.slots, names, strict=True)
        ]
        return self

    def __exit__(self, *error: object) -> None:
        self._stop_now()
        for number, former in self._former.items():
            signal.signal(number, former)

    def step(self) -> bool:
        """Look after every slot once; False when all are through."""
        if self.interrupts and not self._heeded:
            self.say("no further trials; the running ones finish (Ctrl-C again stops them and keeps their checkpoints)")
        self._heeded = self.interrupts > 0
        if self._heeded or (self.until is not None and time.time() > self.until):
            self._ask_all_to_end()
        if self.interrupts > 1:
            self._stop_now()
        for seat in self.seats:
            if seat.process is None:
                if not seat.closed:
                    self._fill(seat)
            elif (code := seat.process.poll()) is not None:
                self._ended(seat, code)
        return any(seat.process is not None or not seat.closed for seat in self.seats)

    def _fill(self, seat: Seat) -> None:
        who = holder(lock_file(seat.slot.lock))
        if who is None:
            seat.waits = False
            seat.start(self.folder, self.until)
        elif not seat.waits:
            seat.waits = True
            if str(self.folder) in who:
                self.say(f"{seat.slot.name}: a worker that was started before ends its trial first ({who})")
            else:
                self.say(f"{seat.slot.name} is taken by another sweep ({who}); it joins in when that has ended")

    def _ended(self, seat: Seat, code: int) -> None:
        process, seat.process = seat.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if code == DONE:
            seat.closed = True
        elif code not in (SLOT_TAKEN, REPLACE):
            self._died(seat, code)

    def _died(self, seat: Seat, code: int) -> None:
        words = seat.last_words()
        end = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        trials = re.findall(r"^trial (\d+)( ended)?$", words, flags=re.MULTILINE)
        if trials:
            seat.deaths_at_start = 0
            number, ended = trials[-1]
            if ended:
                self.say(f"a worker died between two trials ({end}) on {seat.slot.name}; see {seat.log}")
                return
            reason = f"its worker died ({end})"
            self.on_death(int(number), reason)
            self.say(f"trial {number}: {reason} on {seat.slot.name}; see {seat.log}")
            return
        seat.deaths_at_start += 1
        if seat.deaths_at_start >= MAX_DEATHS_AT_START:
            seat.closed = True
            lines = [line for line in words.splitlines() if line.strip()]
            self.say(f"{seat.slot.name} is given up: its workers do not start ({end}): {lines[-1] if lines else ''}")
            self.say(f"  their output: {seat.log}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1  # what follows from it is for `step`: a handler may have interrupted anything

    def _ask_all_to_end(self) -> None:
        for seat in self.seats:
            seat.ask_to_end()

    def _stop_now(self) -> None:
        """End the workers; their trials keep their checkpoints, and the next worker resumes them."""
        alive = [seat.process for seat in self.seats if seat.process is not None and seat.process.poll() is None]
        self._ask_all_to_end()  # so that they know who sends the signal
        for process in alive:
            process.send_signal(signal.SIGTERM)
        _, stubborn = psutil.wait_procs(alive, STOP_SECONDS)
        for process in stubborn:
            process.kill()
            process.wait()
