"""What a sweep says before, while and after it runs, and what becomes of its workers."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from mmsa.locks import Lock, lock_file
from mmsa.sweep import supervisor as supervisor_module
from mmsa.sweep.drive import SweepDisplay, opening_lines, while_running
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.slots import Slot
from mmsa.sweep.summary import summarise
from mmsa.sweep.supervisor import Seat, Supervisor
from tests.sweep.studies import new_study


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    options = {"trials": 4, "seeds": 1, "final": False}
    return SweepSpec(
        study="study", folder=str(tmp_path), working_folder="", seed=1,
        storage="postgresql://me:secret@host/name",
        space={"optimizer.lr": "interval(0.1, 0.2)", "encoder/text": "bilstm,bigru"}, arguments=["hidden_dim=4"],
        sampler={"_target_": "optuna.samplers.TPESampler"}, objectives=["valid/mae"], modes=["min"], num_points=None,
        config_folders=[], packages="", options=options,
    )  # fmt: skip


def test_the_opening_says_what_where_and_how_long(spec: SweepSpec) -> None:
    space = {"optimizer.lr": "interval(0.1, 0.2)", "encoder/text": "bilstm,bigru"}
    summary = summarise(new_study(total=4, sampler="TPESampler", space=space, command="python train.py sweep=search"))
    text = "\n".join(opening_lines(spec, summary.command, summary, ["cpu 1", "cpu 2"], 2, 60.0))
    assert "a search (TPE) over optimizer.lr, encoder/text" in text and "cpu 1, cpu 2" in text
    assert "0:02:00 without pruning" in text and "python train.py sweep=search" in text
    assert "secret" not in text and "host/name" in text
    assert "no earlier run on these data" in "\n".join(
        opening_lines(spec, "mmsa worker FOLDER", summary, ["cpu 1"], 1, None)
    )


def test_each_trial_takes_one_line_that_reads_well_in_a_file(tmp_path: Path) -> None:
    study, printed = new_study(total=4), io.StringIO()
    display = SweepDisplay(
        tmp_path, study, console=Console(file=printed, highlight=False, soft_wrap=True, markup=False)
    )
    with display:
        for value, state, reason in [
            (0.5, TrialState.COMPLETE, ""),
            (None, TrialState.PRUNED, "epoch 3: behind"),
            (None, TrialState.FAIL, "the loss is nan"),
            (0.4, TrialState.COMPLETE, ""),
        ]:
            trial = study.ask()
            trial.set_user_attr("overrides", ["optimizer.lr=0.123456789"])
            trial.set_user_attr("reason", reason)
            study.tell(trial, value, state=state)
            display.refresh()
        study.ask()
        display.refresh()
    lines = printed.getvalue().splitlines()
    assert len(lines) == 4 and not re.search("\x1b", printed.getvalue())
    assert lines[0].startswith("trial   0  valid/mae 0.5 *  (optimizer.lr=0.123)  1 of 4 trials done")
    assert "pruned: epoch 3: behind" in lines[1] and "failed: the loss is nan" in lines[2]
    assert "3 of 4 trials done, 1 of them pruned, 1 failed, ends about" in lines[3]
    assert lines[3].endswith(", best 0.4 (trial 3)")


def test_a_study_that_goes_on_tells_only_what_is_new(tmp_path: Path) -> None:
    study = new_study()
    study.tell(study.ask(), 1.0)
    printed = io.StringIO()
    display = SweepDisplay(tmp_path, study, console=Console(file=printed))
    display.refresh()
    assert printed.getvalue() == ""


def test_on_a_terminal_how_far_it_is_stands_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    study, printed = new_study(total=4), io.StringIO()
    display = SweepDisplay(
        tmp_path, study, console=Console(file=printed, force_terminal=True, width=40, soft_wrap=True)
    )
    with display:
        for value in (0.5, 0.4):
            trial = study.ask()
            trial.set_user_attr("overrides", ["optimizer.lr=0.1"])
            study.tell(trial, value)
            study.ask()
            display.refresh()
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", printed.getvalue())
    standing = [line for line in re.split("[\r\n]", text) if "of 4 trials done" in line and "trial  " not in line]
    assert standing[-1].endswith(" 2 of 4 trials done, 2 running, ends …") and max(map(len, standing)) < 40


def test_errors_of_what_blocks_are_raised() -> None:
    refreshed: list[int] = []
    with pytest.raises(ValueError, match="no cluster"):
        while_running(lambda: (_ for _ in ()).throw(ValueError("no cluster")), lambda: refreshed.append(1), every=0.01)
    assert refreshed


def slot(name: str = "cpu 1") -> Slot:
    return Slot(name, f"lock of {name}", {})


def supervise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, **options: Any
) -> tuple[list[str], list[Any]]:
    """What is said, and which trials died, of workers that run this code."""

    def start(self: Seat, folder: Path, until: float | None) -> None:
        import subprocess

        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.printed = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=log, stderr=log)

    monkeypatch.setattr(Seat, "start", start)
    said: list[str] = []
    died: list[Any] = []
    with Supervisor(tmp_path, [slot()], None, said.append, lambda *death: died.append(death), **options) as supervisor:
        deadline = time.monotonic() + 60
        while supervisor.step() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not any(seat.process for seat in supervisor.seats)
    return said, died


def test_a_slot_whose_workers_do_not_start_is_given_up_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, died = supervise(tmp_path, monkeypatch, "raise SystemExit('no such module')")
    assert not died and "given up" in said[0] and "no such module" in said[0] and len(said) == 2


def test_a_worker_that_dies_in_a_trial_is_replaced_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
import os, pathlib, signal
mark = pathlib.Path({str(tmp_path / "mark")!r})
if not mark.exists():
    mark.touch()
    print("trial 3", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    said, died = supervise(tmp_path, monkeypatch, code)
    assert died == [(3, "its worker died (killed by signal 9 (SIGKILL))")] and "trial 3" in said[0]


def test_a_death_between_two_trials_is_no_trials_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
import os, pathlib, signal
mark = pathlib.Path({str(tmp_path / "mark")!r})
if not mark.exists():
    mark.touch()
    print("trial 3\\ntrial 3 ended", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    said, died = supervise(tmp_path, monkeypatch, code)
    assert not died and "between two trials" in said[0]


def test_a_slot_of_another_sweep_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Lock(lock_file(slot().lock), "another sweep")
    other.acquire()
    steps: list[int] = []
    step = supervisor_module.Supervisor.step

    def counted(self: Supervisor) -> bool:
        steps.append(1)
        if len(steps) == 5:
            other.release()
        return step(self)

    monkeypatch.setattr(supervisor_module.Supervisor, "step", counted)
    said, died = supervise(tmp_path, monkeypatch, "pass")
    assert len(said) == 1 and "cpu 1 is taken" in said[0] and "another sweep" in said[0] and not died
