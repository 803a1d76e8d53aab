"""Locks exclude each other between and within processes, and die with the process that holds them."""

from __future__ import annotations

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
from pathlib import Path

import pytest

from mmsa.errors import ConfigError
from mmsa.sweep.locks import Lock, holder, is_held, lock_folder, place

ROOT = Path(__file__).resolve().parents[2]
HOLD = "from mmsa.sweep.locks import Lock; lock = Lock('a', 'a sweep'); print(lock.acquire(False), flush=True); input()"

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


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_objects_of_one_process_exclude_each_other() -> None:
    first, second = Lock("a"), Lock("a")
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
    with Lock("gpu GPU-1/0 2"), Lock("study " + 401 * "ü"), Lock(other):
        assert is_held(other)
        assert len(list(folder.iterdir())) == 3
    assert not is_held(other)


def test_a_killed_process_loses_its_lock(start: Start) -> None:
    process = start(HOLD)
    assert line_of(process) == "True"
    assert not Lock("a").acquire(blocking=False)
    assert holder("a") == f"process {process.pid}, a sweep"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert holder("a") is None and not is_held("a")
    with Lock("a"):
        assert holder("a") == f"process {os.getpid()}"


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
        "import os, threading; from mmsa.sweep.locks import Lock; lock = Lock('a'); lock.acquire(); pid = os.fork()\n"
        "if not pid:\n"
        "    thread = threading.Thread(target=Lock('b').acquire, daemon=True); thread.start(); thread.join(10)\n"
        "    os._exit(lock.is_mine + 2 * Lock('a').acquire(False) + 4 * thread.is_alive())\n"
        "print(os.waitpid(pid, 0)[1], lock.is_mine, Lock('b').acquire(False))"
    )
    assert line_of(start(code)) == "0 True True"


def test_who_asks_is_not_taken_for_a_holder(folder: Path) -> None:
    stop = threading.Event()

    def ask() -> bool:
        seen = False
        while not stop.is_set():
            seen |= is_held("free")
            is_held("a")
            time.sleep(1e-4)
        return seen

    lock = Lock("a")
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
    lock = Lock("a")
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
        "import sys; from pathlib import Path; from mmsa.sweep.locks import Lock\n"
        "lock, counter = Lock('a'), Path(sys.argv[1])\n"
        "for _ in range(200):\n"
        "    with lock: counter.write_text(str(int(counter.read_text()) + 1))"
    )
    assert [process.wait() for process in [start(code, str(counter)) for _ in range(4)]] == [0] * 4
    assert counter.read_text() == "800"


def test_a_lock_whose_file_was_removed_is_not_given_to_who_waits(folder: Path) -> None:
    first, second = Lock("a"), Lock("a")
    first.acquire()
    with ThreadPoolExecutor(1) as thread:
        opened = len(os.listdir("/dev/fd"))
        waiting = thread.submit(second.acquire)
        while len(os.listdir("/dev/fd")) == opened:
            time.sleep(0.01)
        for file in folder.iterdir():
            file.unlink()
        first.release()
        assert waiting.result(timeout=20)
    assert is_held("a") and not first.acquire(blocking=False)
    second.release()


def test_who_lost_the_file_does_not_remove_that_of_the_next(folder: Path) -> None:
    first, second = Lock("a"), Lock("a")
    first.acquire()
    (folder / "a.lock").unlink()
    assert second.acquire(blocking=False)
    first.release()
    assert is_held("a") and not first.acquire(blocking=False)
    second.release()


def test_the_place_is_one_for_all_processes(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mmsa.sweep.locks import place; print('ready', flush=True)\n"
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
        with Lock("place"):
            asked = thread.submit(place)
            time.sleep(0.05)
            (folder / "place").write_text("named-by-another")
        assert asked.result(timeout=20) == f"{socket.gethostname()}:named-by-another"


def test_the_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMSA_LOCKS")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = lock_folder()
    assert own == tmp_path / f"mmsa-{os.getuid()}" and own.stat().st_mode & 0o777 == 0o700

    user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: user)
    (tmp_path / f"mmsa-{user}").mkdir()
    with pytest.raises(ConfigError, match=rf"mmsa-{user}: it is not a folder of yours.\n  type export MMSA_LOCKS="):
        lock_folder()


def test_a_folder_that_cannot_be_made_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMSA_LOCKS", str(tmp_path / "file" / "locks"))
    with pytest.raises(ConfigError, match=r"Not a directory.\n  type export MMSA_LOCKS="):
        Lock("a")
