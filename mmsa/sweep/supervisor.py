"""The parent of a sweep on one machine: one replaceable worker process per slot, lines on the screen, Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from mmsa.locks import holder, lock_file
from mmsa.program import environment_of_ours
from mmsa.sweep.slots import Slot
from mmsa.sweep.worker import AWAY, DONE, DONE_LINE, NO_ROOM, NO_ROOM_LINE, REPLACE, SLOT_TAKEN

POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
MAX_DEATHS_AT_START = 3
"""Workers of a slot in a row that could not start, after which the slot is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before a worker follows one that was killed before it had a trial: they double from death to death."""
KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a worker that somebody else ended."""
MEMORY = ", as a system does whose memory is used up"
NO_MEMORY = "bad_alloc"
"""In the last words of a program whose memory was used up."""


@dataclass(frozen=True)
class Limits:
    """The times of a sweep on this machine.

    Args:
        until: Unix time after which no trial starts; None has no limit.
        grace: seconds after it that the running trials get.
        per_trial: seconds that a trial may take; None has no limit.
    """

    until: float | None = None
    grace: float = 0.0
    per_trial: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], since: float = 0.0) -> Limits:
        """Those of a sweep with these options that started these seconds ago."""
        timeout, trial = options["timeout"], options["trial_minutes"]
        until = time.time() + 60 * timeout - since if timeout else None
        return cls(until, 60 * options["grace"], 60 * trial if trial else None)

    def are_over(self, grace: float = 0.0) -> bool:
        """Whether no trial starts any more, since this many seconds."""
        return self.until is not None and time.time() > self.until + grace


@dataclass
class Seat:
    """A slot and the worker process that is in it.

    Args:
        slot: what the worker computes on.
        num_slots: slots of the sweep on this machine.
        log: file of what its workers print.
        config_folders: folders of configuration files that its workers get.
    """

    slot: Slot
    num_slots: int
    log: Path
    config_folders: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    printed: int = 0
    trials: dict[int, float] = field(default_factory=dict)
    """The trials that the worker runs, each with the time since when, by this process's clock."""
    has_run: bool = False
    deaths_at_start: int = 0
    kills_at_start: int = 0
    not_before: float = 0.0
    waits: bool = False
    closed: bool = False
    _read: int = 0

    def command(self, folder: Path, until: float | None) -> list[str]:
        """The command line of a worker."""
        command = [sys.executable, "-m", "mmsa.sweep.worker", str(folder), "--slot", self.slot.name]
        command += ["--slots", str(self.num_slots)]
        command += ["--lock", self.slot.lock, *(["--until", str(until)] if until is not None else [])]
        return command + [word for given in self.config_folders for word in ("--config-dir", given)]

    def start(self, folder: Path, until: float | None) -> None:
        """Start a worker, in a session of its own so that a terminal's Ctrl-C does not reach it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.printed = self._read = self.log.stat().st_size if self.log.exists() else 0
        self.trials, self.has_run = {}, False
        with self.log.open("ab") as log:
            self.process = psutil.Popen(
                self.command(folder, until),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment_of_ours(), **self.slot.environment},
                start_new_session=True,
            )

    def look(self) -> None:
        """Read which trials the worker has, and note since when."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            whole = log.read().rpartition(b"\n")
        self._read += len(whole[0]) + len(whole[1])
        for number, ended in re.findall(rb"^trial (\d+)( ended)?$", whole[0], flags=re.MULTILINE):
            if ended:
                self.trials.pop(int(number), None)
            else:
                self.trials[int(number)] = time.monotonic()
            self.has_run = True
            self.deaths_at_start = self.kills_at_start = 0

    def last_words(self) -> list[str]:
        """The lines that the last worker printed since its last trial began or ended."""
        with self.log.open("rb") as log:
            log.seek(self.printed)
            text = log.read().decode(errors="replace")
        last = re.split(r"^trial \d+(?: ended)?$", text, flags=re.MULTILINE)[-1]
        return [line.strip() for line in last.splitlines() if line.strip()]

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
        limits: the times of the sweep.
        say: takes lines for the screen.
        on_death: takes the number of a trial whose worker died, and how.
        on_overdue: ends a trial that took too long, by its number and the reason, before its worker is stopped;
            returns False where the storage does not answer.
        config_folders: folders of configuration files that the workers get, absolute.
        interrupts: signals that asked it to end.
        away: the storage was away for too long.
        no_room: why a worker ended on a full disk, which then ends all.
    """

    folder: Path
    slots: Sequence[Slot]
    limits: Limits
    say: Callable[[str], None]
    on_death: Callable[[int, str], object] = lambda trial, reason: None
    on_overdue: Callable[[int, str], bool] = lambda trial, reason: True
    config_folders: Sequence[str] = ()
    interrupts: int = 0
    away: bool = False
    no_room: str = ""
    _heeded: bool = False
    _is_late: bool = False
    seats: list[Seat] = field(default_factory=list)

    def __enter__(self) -> Supervisor:
        numbers = [signal.SIGINT, signal.SIGTERM]
        numbers += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # which nohup does
        self._former = {number: signal.signal(number, self._interrupt) for number in numbers}
        logs, host = self.folder / "workers", socket.gethostname()
        names = [re.sub(r"[^A-Za-z0-9]+", "-", f"{host} {slot.name}") for slot in self.slots]
        self.seats = [
            Seat(slot, len(self.slots), logs / f"{name}.log", self.config_folders)
            for slot, name in zip(self.slots, names, strict=True)
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
        if self._heeded:
            self._ask_all_to_end()
        if self.limits.are_over():
            self._end_late()
        if self.interrupts > 1:
            self._stop_now()
        for seat in self.seats:
            if seat.process is None:
                if not seat.closed and time.monotonic() >= seat.not_before:
                    self._fill(seat)
            elif (code := seat.process.poll()) is not None:
                self._ended(seat, code)
            elif self.limits.per_trial is not None:
                self._end_overdue(seat, self.limits.per_trial)
        return any(seat.process is not None or not seat.closed for seat in self.seats)

    def _end_overdue(self, seat: Seat, seconds: float) -> None:
        """Stop a trial that is over its time, for good."""
        seat.look()
        reason = f"took longer than sweep.trial_minutes={seconds / 60:g}"
        late = [number for number, since in seat.trials.items() if time.monotonic() - since > seconds]
        if late and all(self.on_overdue(number, reason) for number in late):
            self._stop([seat])

    def _end_late(self) -> None:
        """Start nothing after the sweep's time, and after its grace stop the trials that still run."""
        if not self._is_late and any(seat.process is not None for seat in self.seats):
            grace = f"{self.limits.grace / 60:g}"
            self.say(f"sweep.timeout: no further trials; after sweep.grace={grace} minutes running ones are stopped")
        self._is_late = True
        for seat in self.seats:
            seat.closed = True  # its worker starts no trial by itself
        if not self.limits.are_over(self.limits.grace):
            return
        late = [seat for seat in self.seats if seat.process is not None and seat.process.poll() is None]
        for seat in late:
            seat.look()
        named = [(seat, number) for seat in late for number in seat.trials]
        # Not by their input, for then they would give the attempt back, and one that hangs would come first for ever.
        self._stop(late)
        for seat, number in named:
            reason = "stopped, as it still ran after sweep.timeout and sweep.grace"
            self.on_death(number, reason)
            self.say(f"trial {number} on {seat.slot.name} is {reason}; the same command resumes it")

    def _fill(self, seat: Seat) -> None:
        who = holder(lock_file(seat.slot.lock))
        if who is None:
            seat.waits = False
            seat.start(self.folder, self.limits.until)
        elif not seat.waits:
            seat.waits = True
            if str(self.folder) in who:
                self.say(f"{seat.slot.name}: a worker that was started before ends its trial first ({who})")
            else:
                self.say(f"{seat.slot.name} is taken by another sweep ({who}); it joins in when that has ended")

    def _ended(self, seat: Seat, code: int) -> None:
        seat.look()
        self._leave(seat)
        words = seat.last_words()
        if code == AWAY and not seat.trials:
            self.away = seat.closed = True
            self.say(f"{seat.slot.name} is given up: {words[-1] if words else 'the storage is away'}")
        elif code == NO_ROOM and (told := [line for line in words if line.startswith(NO_ROOM_LINE)]):
            self.no_room = told[-1].removeprefix(NO_ROOM_LINE)
            self.say(f"{seat.slot.name}: {self.no_room}")
            self._ask_all_to_end()
        elif code == DONE and DONE_LINE in words:
            seat.closed = True
        elif code not in (SLOT_TAKEN, REPLACE) or seat.trials:
            self._died(seat, code, words)

    def _died(self, seat: Seat, code: int, words: Sequence[str]) -> None:
        end = f"killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        end += MEMORY if code == -signal.SIGKILL else ""
        last = words[-1][:160] if words else ""
        last = f"its memory ran out ({last})" if NO_MEMORY in last else last
        if seat.trials:
            reason = f"its worker died ({end})" + (f": {last}" if last and code not in KILLED else "")
            for number in seat.trials:
                self.on_death(number, reason)
            named = f"trial{'s' if len(seat.trials) > 1 else ''} {', '.join(map(str, seat.trials))}"
            self.say(f"{named}: {reason} on {seat.slot.name}; see {seat.log}")
        elif seat.has_run:
            self.say(f"a worker died between two trials ({end}) on {seat.slot.name}; see {seat.log}")
        elif code in KILLED:
            pause = min(FIRST_PAUSE * 2**seat.kills_at_start, LONGEST_PAUSE)
            seat.kills_at_start += 1
            seat.not_before = time.monotonic() + pause
            self.say(f"{seat.slot.name}: a worker was {end} before it had a trial; the next one starts in {pause:g} s")
        else:
            seat.deaths_at_start += 1
            if seat.deaths_at_start >= MAX_DEATHS_AT_START:
                seat.closed = True
                self.say(f"{seat.slot.name} is given up: its workers do not start ({end}): {last}")
                self.say(f"  their output: {seat.log}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupts += 1  # what follows from it is for `step`: a handler may have interrupted anything

    def _ask_all_to_end(self) -> None:
        for seat in self.seats:
            seat.ask_to_end()

    def _stop_now(self) -> None:
        """End the workers; their trials keep their checkpoints, and the next worker resumes them."""
        self._ask_all_to_end()  # so that they know who sends the signal
        self._stop(self.seats)

    def _stop(self, seats: Sequence[Seat]) -> None:
        """End the workers of some seats, those that hang by force."""
        alive = [seat.process for seat in seats if seat.process is not None and seat.process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        _, stubborn = psutil.wait_procs(alive, STOP_SECONDS)
        for process in stubborn:
            process.kill()
            process.wait()
        for seat in seats:
            self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        """Forget the worker of a seat, which has ended or never was."""
        process, seat.process = seat.process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
