"""What a sweep says before, while and after it runs, and what becomes of its workers."""

from __future__ import annotations

import io
import itertools
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from mmsa.locks import Lock, lock_file
from mmsa.sweep import supervisor as supervisor_module
from mmsa.sweep.drive import SweepDisplay, opening_lines, while_running
from mmsa.sweep.hydra_sweep import Patience
from mmsa.sweep.lasting import StorageAway
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.report import text
from mmsa.sweep.slots import Slot
from mmsa.sweep.summary import summarise
from mmsa.sweep.supervisor import Limits, Seat, Supervisor
from mmsa.sweep.worker import DONE_LINE, NO_ROOM
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


def test_a_parent_reads_a_large_study_for_a_tenth_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, clock, read = new_study(), [0.0], [0.0]
    trials = study.get_trials

    def slow(*arguments: Any, **named: Any) -> list[optuna.trial.FrozenTrial]:
        clock[0] += 0.35
        read[0] += 0.35
        return trials(*arguments, **named)

    display = SweepDisplay(tmp_path, study, console=Console(file=io.StringIO()))
    monkeypatch.setattr(study, "get_trials", slow)
    monkeypatch.setattr("mmsa.sweep.drive.time", SimpleNamespace(monotonic=lambda: clock[0]))
    for place in range(500):
        if place % 20 == 0:
            study.tell(study.ask(), 1.0)
        clock[0] += 0.2
        display.glance()
    assert display.num_ended > 20
    assert 0.05 * clock[0] < read[0] < 0.12 * clock[0]


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


def owned(study: optuna.Study, slot: str, since: float) -> None:
    study.ask().set_user_attr("owner", {"worker": "w", "place": "h:1", "slot": slot, "since": since})


def test_what_each_slot_does_and_since_when_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = new_study(total=4)
    owned(study, "cpu 1", datetime(2026, 3, 2, 14, 5).timestamp())
    owned(study, "cpu 2", datetime(2026, 3, 2, 9, 30).timestamp())
    shown = "running: trial 1 on cpu 2 since Mon 09:30, trial 0 on cpu 1 since Mon 14:05"
    assert shown in text(summarise(study))
    beside = new_study(total=4)
    for seconds in (1, 2, 3):  # of a grid, one after the other by the second
        owned(beside, "cpu 1", datetime(2026, 3, 2, 14, 5, seconds).timestamp())
    assert "running: trials 0, 1, 2 on cpu 1 since Mon 14:05" in text(summarise(beside))

    printed = io.StringIO()
    display = SweepDisplay(tmp_path, study, console=Console(file=printed, soft_wrap=True))
    display.refresh()
    assert printed.getvalue() == ""
    monkeypatch.setattr("mmsa.sweep.drive.RUNNING_SECONDS", -1.0)
    display.refresh()
    assert printed.getvalue() == f"{shown}\n"

    monkeypatch.setenv("TERM", "xterm")
    live = io.StringIO()
    terminal = Console(file=live, force_terminal=True, width=60, soft_wrap=True)
    with SweepDisplay(tmp_path, study, console=terminal) as display:
        display.refresh()
    lines = re.split("[\r\n]+", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", live.getvalue()))
    assert any("0 of 4 trials done, 2 running" in line for line in lines)
    assert any(line.startswith("running: trial 1 on cpu 2 since Mon 09:30, trial") for line in lines)


def test_errors_of_what_blocks_are_raised() -> None:
    refreshed: list[int] = []
    with pytest.raises(ValueError, match="no cluster"):
        while_running(lambda: (_ for _ in ()).throw(ValueError("no cluster")), lambda: refreshed.append(1), every=0.01)
    assert refreshed


def slot(name: str = "cpu 1") -> Slot:
    return Slot(name, f"lock of {name}", {})


NOTHING_LEFT = f"print({DONE_LINE!r}, flush=True)\n"


def supervise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, then: str = NOTHING_LEFT, **options: Any
) -> tuple[list[str], list[Any]]:
    """What is said, and which trials died, of a slot whose first worker runs one code, and the others another one."""
    codes = itertools.chain([first], itertools.repeat(then))
    monkeypatch.setattr(Seat, "command", lambda *arguments: [sys.executable, "-S", "-c", next(codes)])
    said: list[str] = []
    died: list[Any] = []
    limits = options.pop("limits", Limits())

    def dies(number: int, reason: str) -> None:
        died.append((number, reason))

    with Supervisor(tmp_path, [slot()], limits, said.append, dies, **options) as supervisor:
        deadline = time.monotonic() + 60
        while supervisor.step() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not any(seat.process for seat in supervisor.seats)
    return said, died


def test_a_slot_whose_workers_do_not_start_is_given_up_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "raise SystemExit('no such module')"
    said, died = supervise(tmp_path, monkeypatch, code, code)
    assert not died and "given up" in said[0] and "no such module" in said[0] and len(said) == 2


KILLS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (KILLS_ITSELF, "its worker died (killed by signal 9 (SIGKILL), as a system does whose memory is used up)"),
        ("import os; os._exit(0)", "its worker died (exit code 0)"),
        ("import os; os._exit(76)", "its worker died (exit code 76)"),
        (
            "print('what():  std::bad_alloc', flush=True); import os; os.abort()",
            "its worker died (killed by signal 6 (SIGABRT)): its memory ran out (what():  std::bad_alloc)",
        ),
    ],
)
def test_a_worker_that_dies_in_a_trial_is_replaced_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, reason: str
) -> None:
    said, died = supervise(tmp_path, monkeypatch, f"print('a warning\\ntrial 3', flush=True); {end}")
    assert died == [(3, reason)] and len(said) == 1 and said[0].startswith(f"trial 3: {reason} on cpu 1")


def test_each_trial_of_a_worker_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "trial 3\ntrial 4\ntrial 12\ntrial 4 ended"
    said, died = supervise(tmp_path, monkeypatch, f"print({words!r}, flush=True); {KILLS_ITSELF}")
    assert (
        [number for number, _ in died] == [3, 12] and len(said) == 1 and said[0].startswith("trials 3, 12: its worker")
    )


def test_a_full_disk_ends_the_sweep_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "trial 3\nno room: last.pt cannot be written: No space left on device."
    said, died = supervise(tmp_path, monkeypatch, f"print({words!r}); raise SystemExit({NO_ROOM})")
    assert not died and said == ["cpu 1: last.pt cannot be written: No space left on device."]


def test_a_death_between_two_trials_is_no_trials_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, died = supervise(tmp_path, monkeypatch, f"print('trial 3\\ntrial 3 ended', flush=True); {KILLS_ITSELF}")
    assert not died and "between two trials" in said[0] and len(said) == 1


def test_a_worker_that_was_killed_early_is_followed_by_others_after_longer_and_longer_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor_module, "LONGEST_PAUSE", 0.04)
    count = tmp_path / "count"
    code = f"c = open({str(count)!r}, 'a'); c.write('.'); c.close()\n"
    code += f"if len(open({str(count)!r}).read()) < 5: {KILLS_ITSELF}\n{NOTHING_LEFT}"
    said, died = supervise(tmp_path, monkeypatch, code, code)
    assert not died and [line.partition(" starts in ")[2] for line in said] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s"]


HANGS = "import time; print('trial 3', flush=True); time.sleep(600)"


def test_a_trial_that_takes_too_long_is_ended_before_its_worker_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []

    def ends(number: int, reason: str) -> bool:
        ended.append((number, reason))
        return len(ended) > 1  # the first time the storage is away

    limits = Limits(per_trial=0.06)
    said, died = supervise(tmp_path, monkeypatch, HANGS, on_overdue=ends, limits=limits)
    assert ended == [(3, "took longer than sweep.trial_minutes=0.001")] * 2 and not died and not said


def test_a_trial_that_hangs_does_not_keep_a_sweep_that_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_SECONDS", 0.2)
    logs = (tmp_path / "workers").glob
    monkeypatch.setattr(Limits, "are_over", lambda *arguments: any("trial 3" in log.read_text() for log in logs("*")))
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {HANGS}"
    said, died = supervise(tmp_path, monkeypatch, deaf)
    assert died == [(3, "stopped, as it still ran after sweep.timeout and sweep.grace")]
    assert said[0] == "sweep.timeout: no further trials; after sweep.grace=0 minutes running ones are stopped"
    assert len(said) == 2 and "trial 3 on cpu 1 is stopped" in said[1] and "the same command resumes it" in said[1]


def test_the_grace_begins_when_no_trial_starts_any_more() -> None:
    limits = Limits.of({"timeout": 1, "grace": 2, "trial_minutes": 0.5})
    assert (limits.grace, limits.per_trial) == (120, 30) and not limits.are_over()
    over = Limits(until=time.time() - 100)
    assert over.are_over() and over.are_over(90) and not over.are_over(110) and not Limits().are_over()


def test_a_storage_that_stays_away_gives_a_slot_up_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "print('trial 3\\ntrial 3 ended\\nthe storage did not answer', flush=True); import os; os._exit(74)"
    said, died = supervise(tmp_path, monkeypatch, code)
    assert said == ["cpu 1 is given up: the storage did not answer"] and not died


def test_what_a_parent_could_not_keep_is_kept_when_the_storage_answers_again() -> None:
    said: list[str] = []
    kept: list[int] = []
    guarded = Patience(said.append)

    answers = iter([False, False, True])

    def note() -> None:
        if not next(answers):
            raise StorageAway("the storage did not answer: locked\n  run it again")
        kept.append(1)

    assert not guarded(note, later=True) and not guarded(lambda: kept.append(2))
    assert guarded(lambda: kept.append(2)) and guarded(lambda: kept.append(3)) and kept == [1, 2, 3]
    assert said == [
        "the storage does not answer; the trials continue: the storage did not answer: locked",
        "the storage answers again",
    ]

    def without_a_word() -> None:
        raise TimeoutError

    assert not Patience(said.append)(without_a_word) and said[-1].endswith("the trials continue: TimeoutError")


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
    said, died = supervise(tmp_path, monkeypatch, NOTHING_LEFT)
    assert len(said) == 1 and "cpu 1 is taken" in said[0] and "another sweep" in said[0] and not died
