"""However a run ends: its state is true, nothing half-written stays, and the screen costs no result."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import AnyNode, OmegaConf

import mmsa
from mmsa import journal
from mmsa.compose import compose
from mmsa.display import Display
from mmsa.errors import ConfigError
from mmsa.record import RunRecord
from mmsa.reporting import in_few_lines, report_errors
from mmsa.run_folder import write_text
from mmsa.tracking.none import NullTracker
from mmsa.training.checkpoints import load_checkpoint, save_checkpoint
from tests import composition


class FullDisk(io.FileIO):
    """A file on a disk that takes `room` bytes more."""

    room = 100_000

    def write(self, data: Any) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda path, *mode, **how: FullDisk(path, "wb"))


def outcome(outputs: Path) -> RunRecord:
    (folder,) = (outputs / "runs").iterdir()
    return RunRecord.read(folder)


@pytest.mark.parametrize("large", [torch.zeros(100_000), {str(n): torch.zeros(100) for n in range(1_000)}])
def test_a_checkpoint_on_a_full_disk_leaves_the_former_one_and_nothing_else(
    tmp_path: Path, large: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"epoch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *mode, **how: FullDisk(path, "wb"))
        with pytest.raises(OSError, match="No space left") as refused:
            save_checkpoint(path, {"model": large})
    assert load_checkpoint(path) == {"epoch": 1} and list(tmp_path.iterdir()) == [path]
    told = rf"{path} cannot be written: No space left on device; it needs 400\.0 kB, and \S+ .B are free\.\n  make room"
    assert re.match(told, in_few_lines(refused.value))


def test_a_text_that_is_not_written_whole_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda path, *mode, **how: FullDisk(path, "wb"))
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "history.csv", "x" * 200_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_a_run_as_ctrl_c_does(
    small: list[str],
    tmp_path: Path,
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epoch, failed = journal.Journal.epoch, []

    def signalled(self: Any, *arguments: Any) -> None:
        epoch(self, *arguments)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(journal.Journal, "epoch", signalled)
    monkeypatch.setattr(NullTracker, "fail", lambda self, folder, reason, pruned: failed.append(reason))
    former = signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
    try:
        assert report_errors(lambda: mmsa.run(small), False) == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, former)
    record = outcome(tmp_path / "outputs")
    assert (record.status, record.reason, failed) == ("failed", number.name, [number.name])
    assert f"trainer.resume={tmp_path}" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    "made",
    [lambda: OmegaConf.create(["a"]), lambda: compose(["trainer.patience=7"])],
    ids=["OmegaConf", "compose"],
)
def test_a_signal_that_a_library_turns_into_an_error_ends_a_command_as_any(
    made: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OmegaConf that is interrupted while it makes a list fails at putting it in order."""
    init = AnyNode.__init__

    def stopped(self: AnyNode, value: Any = None, key: Any = None, **options: Any) -> None:
        if isinstance(key, int):
            raise KeyboardInterrupt("SIGTERM")
        init(self, value, key, **options)

    with monkeypatch.context() as patch:
        patch.setattr(AnyNode, "__init__", stopped)
        patch.setattr(hydra, "compose", composition.HYDRA)
        patch.setattr(OmegaConf, "load", composition.LOAD)
        with pytest.raises(AttributeError, match="_invalidate_flags_cache"):
            OmegaConf.create(["a"])
        assert report_errors(made, False) == 143
    assert capsys.readouterr() == ("", "")


def test_what_our_own_closing_says_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def closing() -> None:
        try:
            raise KeyboardInterrupt("SIGTERM")
        except KeyboardInterrupt:
            raise ConfigError("the storage is away") from None

    assert report_errors(closing, False) == 1
    assert capsys.readouterr().err == "error: the storage is away\n"


def test_a_refusal_in_what_a_user_does_after_ctrl_c_is_said() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(BaseException, match="there is no such option"):
            compose(["fusion=conkat"])


def test_what_nohup_ignores_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert report_errors(lambda: os.kill(os.getpid(), signal.SIGHUP), False) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


STEPS: dict[str, Callable[[pytest.MonkeyPatch, Any], None]] = {
    "its tracker": lambda patch, fail: patch.setattr(NullTracker, "fail", fail),
    "its screen": lambda patch, fail: patch.setattr(Display, "say", fail),
    "its line": lambda patch, fail: patch.setattr(journal, "resume_line", fail),
}


@pytest.mark.parametrize("broken", STEPS)
def test_each_step_of_closing_is_tried_whatever_becomes_of_the_others(
    small: list[str], tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[str] = []

    def refuse(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("one step of closing")

    def diverged(*arguments: Any) -> None:
        STEPS[broken](monkeypatch, refuse)
        raise KeyError("why it ended")

    monkeypatch.setattr(NullTracker, "fail", lambda self, folder, reason, pruned: failed.append(reason))
    monkeypatch.setattr(journal.Journal, "epoch", diverged)
    with pytest.raises((KeyError, RuntimeError)) as ended:
        mmsa.run(small, quiet=True)
    assert "why it ended" in str(ended.value)
    assert outcome(tmp_path / "outputs").status == "failed"
    assert bool(failed) == (broken != "its tracker")


def test_a_result_that_cannot_be_kept_is_shown_and_its_run_goes_on_to_it(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(journal, "write_predictions", full)
        mmsa.run([*small, "fusion=concat"])
    shown = capsys.readouterr().out
    assert "ridge joint" in shown, shown
    assert shown.splitlines()[-1].startswith("resume it: ")
    record = outcome(tmp_path / "outputs")
    assert (record.status, record.epochs) == ("failed", None)
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    mmsa.run([f"trainer.resume={folder}"])
    assert outcome(tmp_path / "outputs").status == "finished"
    assert [line for line in capsys.readouterr().out.splitlines() if "ridge" in line] == [
        line for line in shown.splitlines() if "ridge" in line
    ]


def test_an_interrupt_after_the_result_is_kept_leaves_it_and_closes_the_tracker(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[str] = []

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "write_figures", interrupted)
    monkeypatch.setattr(NullTracker, "finish", lambda self, folder, record, description: finished.append(description))
    with pytest.raises(KeyboardInterrupt):
        mmsa.run([*small, "fusion=concat", "trainer.max_epochs=1"], quiet=True)
    assert outcome(tmp_path / "outputs").status == "finished"
    assert "| mean |" in finished[0]


class Gone(io.TextIOWrapper):
    """A terminal that has been closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        self.write("")


@pytest.mark.parametrize("kind", [io.TextIOWrapper, Gone])
def test_the_screen_ends_no_run_and_hides_no_result(
    small: list[str], tmp_path: Path, kind: type[io.TextIOWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", kind(out, encoding="ascii"))
    result = mmsa.run([*small, "fusion=concat", "trainer.max_epochs=1", "name=né"])
    log = (result.folder / "run.log").read_text(encoding="utf-8")
    assert "mae ↓" in log and log.startswith("né: ")
    if kind is not Gone:
        assert b"n?: " in out.getvalue() and b"mae ?" in out.getvalue()
    assert report_errors(lambda: print("± 0.1"), False) == 0
