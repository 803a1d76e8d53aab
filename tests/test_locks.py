"""Locks exclude each other between and within processes, and die with the process that holds them."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from mmsa.locks import Lock, LockError, holder, lock_file, locked, place

ROOT = Path(__file__).resolve().parents[1]
IMPORT = "from mmsa.locks import Lock, lock_file, place; named = lambda name: Lock(lock_file(name), 'a sweep')"
HOLD = f"{IMPORT}; lock = named('a'); print(lock.acquire(False), flush=True); input()"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMSA_LOCKS", str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python code in other processes, which end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def named(name: str, text: str | None = "a test") -> Lock:
    return Lock(lock_file(name), text)


def is_held(name: str) -> bool:
    return holder(lock_file(name)) is not None


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_objects_of_one_process_exclude_each_other() -> None:
    first, second = named("a"), named("a")
    assert first.acquire(blocking=False) and first.is_mine
    assert not second.acquire(blocking=False) and not second.is_mine
    second.release()  # it is not its lock to give back
    assert is_held("a") and not is_held("b")
    first.release()
    assert not is_held("a")
    with second:
        assert not first.acquire(blocking=False)
    assert first.acquire(blocking=False)
    with pytest.raises(RuntimeError, match="already"):
        first.acquire()
    first.release()


@pytest.mark.parametrize("other", ["a", "gpu GPU-1/0 1", "..", "é:/ %2F", "study " + 400 * "ü"])
def test_a_name_may_have_any_characters(other: str, folder: Path) -> None:
    with named("gpu GPU-1/0 2"), named("study " + 401 * "ü"), named(other):
        assert is_held(other)
        assert len(list(folder.iterdir())) == 3
    assert not is_held(other)


def test_a_killed_process_loses_its_lock(start: Start) -> None:
    process = start(HOLD)
    assert line_of(process) == "True"
    assert not named("a").acquire(blocking=False)
    assert holder(lock_file("a")) == f"process {process.pid}, a sweep"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder(lock_file("a")) is None and not is_held("a")
    with named("a"):
        assert holder(lock_file("a")) == f"process {os.getpid()}, a test"


@pytest.mark.parametrize(
    "child",
    [
        "import subprocess; n = subprocess.Popen(['sleep', '60'], close_fds=False, stdout=2).pid",
        "import os, time; n = os.fork(); n or (os.close(1), lock.release(), time.sleep(60))",
    ],
    ids=["exec", "fork"],
)
def test_a_child_that_lives_on_does_not_keep_the_lock(child: str, start: Start) -> None:
    process = start(f"{HOLD.removesuffix('; input()')}; {child}; print(n, flush=True); input()")
    assert line_of(process) == "True"
    pid = int(line_of(process))
    try:
        assert is_held("a")  # nor does it give it back
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while is_held("a") and time.monotonic() < deadline:  # a fork closes its copies when it is first run
            time.sleep(0.01)
        os.kill(pid, 0)
        assert not is_held("a")
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_fork_has_no_lock_and_leaves_both_able_to_lock(start: Start) -> None:
    code = (
        f"import os, threading; {IMPORT}; lock = named('a'); lock.acquire(); pid = os.fork()\n"
        "if not pid:\n"
        "    thread = threading.Thread(target=named('b').acquire, daemon=True); thread.start(); thread.join(10)\n"
        "    os._exit(lock.is_mine + 2 * named('a').acquire(False) + 4 * thread.is_alive())\n"
        "print(os.waitpid(pid, 0)[1], lock.is_mine, named('b').acquire(False))"
    )
    assert line_of(start(code)) == "0 True True"


def test_a_fork_while_somebody_asks_does_not_keep_the_lock(start: Start) -> None:
    code = (
        f"import fcntl, os, signal, time; {IMPORT}; from mmsa.locks import holder; flock = fcntl.flock; children = []\n"
        "def forks(*arguments):\n"
        "    flock(*arguments); fcntl.flock = flock; children.append(os.fork())\n"
        "    if not children[0]: time.sleep(60)\n"
        "with named('a'): pass\n"
        "fcntl.flock = forks; holder(lock_file('a'))\n"
        "taken = named('a').acquire(False); os.kill(children[0], signal.SIGKILL); print(taken)"
    )
    assert line_of(start(code)) == "True"


def test_who_asks_is_not_taken_for_a_holder(folder: Path) -> None:
    stop = threading.Event()

    def ask() -> bool:
        seen = False
        while not stop.is_set():
            seen |= is_held("free")
            is_held("a")
            time.sleep(1e-4)
        return seen

    lock = named("a")
    (folder / "free.lock").touch()  # as a killed process leaves it
    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(ask) for _ in range(3)]
        try:
            for _ in range(200):
                assert lock.acquire(blocking=False)
                lock.release()
        finally:
            stop.set()
        assert not any(answer.result() for answer in asking)


def test_a_lock_outlasts_who_asks_for_its_holder(folder: Path) -> None:
    lock = named("a")
    with (folder / "a.lock").open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        with ThreadPoolExecutor(1) as thread:
            taken = thread.submit(lock.acquire, False)
            time.sleep(0.05)
            fcntl.flock(asking, fcntl.LOCK_UN)
            assert taken.result(timeout=20)
    lock.release()


def test_processes_that_wait_take_turns(start: Start, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        f"import sys; from pathlib import Path; {IMPORT}\n"
        "lock, counter = named('a'), Path(sys.argv[1])\n"
        "for _ in range(200):\n"
        "    with lock: counter.write_text(str(int(counter.read_text()) + 1))"
    )
    assert [process.wait() for process in [start(code, str(counter)) for _ in range(4)]] == [0] * 4
    assert counter.read_text() == "800"


def test_a_lock_whose_file_was_removed_is_not_given_to_who_waits(folder: Path) -> None:
    first, second = named("a"), named("a")
    first.acquire()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(second.acquire)
        time.sleep(0.2)
        for file in folder.iterdir():
            file.unlink()
        first.release()
        assert waiting.result(timeout=20)
    assert is_held("a") and not first.acquire(blocking=False)
    second.release()


def test_who_lost_the_file_does_not_remove_that_of_the_next(folder: Path) -> None:
    first, second = named("a"), named("a")
    first.acquire()
    (folder / "a.lock").unlink()
    assert second.acquire(blocking=False)
    first.release()
    assert is_held("a") and not first.acquire(blocking=False)
    second.release()


def test_the_place_is_one_for_all_processes(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        f"import sys, time; from pathlib import Path; {IMPORT}; print('ready', flush=True)\n"
        "while not Path(sys.argv[1]).exists(): time.sleep(1e-4)\n"
        "print(place())"
    )
    processes = [start(code, str(tmp_path / "go")) for _ in range(6)]
    assert {line_of(process) for process in processes} == {"ready"}
    (tmp_path / "go").touch()
    places = {line_of(process) for process in processes}
    assert places == {place()}
    assert re.fullmatch(re.escape(socket.gethostname()) + ":[0-9a-f]{12}", place())
    monkeypatch.setenv("MMSA_LOCKS", str(tmp_path / "other"))  # another container of the same host name
    assert places != {place()}


def test_the_place_is_named_once(folder: Path) -> None:
    with ThreadPoolExecutor(1) as thread:
        with named("place"):
            asked = thread.submit(place)
            time.sleep(0.05)
            (folder / "place").write_text("named-by-another")
        assert asked.result(timeout=20) == f"{socket.gethostname()}:named-by-another"


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMSA_LOCKS")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = lock_file("a").parent
    assert own == tmp_path / f"mmsa-{os.getuid()}" and own.stat().st_mode & 0o777 == 0o700

    user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: user)
    (tmp_path / f"mmsa-{user}").mkdir()
    with pytest.raises(LockError, match=rf"mmsa-{user}: it is not a folder of yours.\n  type export MMSA_LOCKS="):
        lock_file("a")


def test_a_folder_that_cannot_be_made_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMSA_LOCKS", str(tmp_path / "file" / "locks"))
    with pytest.raises(LockError, match=r"Not a directory.\n  type export MMSA_LOCKS="):
        named("a")


def test_a_file_system_without_locks_says_what_to_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    with named("a"):  # its file is there for who asks
        pass
    monkeypatch.setattr(fcntl, "flock", no_locks)
    for ask in (named("a").acquire, partial(named("b").acquire, blocking=False), partial(holder, lock_file("a"))):
        with pytest.raises(LockError, match=r"Function not implemented.\n  type export MMSA_LOCKS="):
            ask()
    with locked(folder / "c") as held:
        assert not held


def test_a_full_disk_costs_the_holders_name_and_not_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with named("a"):
        assert holder(lock_file("a")) == "a process that has just taken it"
        assert not named("a").acquire(blocking=False)
