"""Whole runs on several devices, which are processes of the CPU here: the losses of one, whatever ends them."""

from __future__ import annotations

import csv
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, distributed

import mmsa
from mmsa.errors import RankError
from mmsa.journal import Journal
from mmsa.objective.task import TaskObjective
from mmsa.record import RunRecord
from tests.conftest import ROOT
from tests.test_experiment import EVERYTHING, same
from tests.warm import TASK_OF_TWO

TWO = "device.devices=2"
STILL = [f"encoder.{m}.dropout=0" for m in ("default", "text", "audio", "visual")]
SECONDS = 30


class Failing(TaskObjective):
    """A loss that rank 1 cannot compute in the second epoch."""

    def forward(self, output: Any, internals: Any, batch: Any, moment: Any) -> Any:
        if moment.epoch == 2 and distributed.get_rank() == 1:
            raise MemoryError
        return super().forward(output, internals, batch, moment)


class Unused(TaskObjective):
    """Beside the loss a map that is in use in every second batch, and one that never is."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.now_and_then, self.never = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

    def forward(self, output: Any, internals: Any, batch: Any, moment: Any) -> Any:
        predicted: Tensor = output.predictions[output.primary]
        more = self.now_and_then(predicted) if moment.step % 2 else predicted
        return {**super().forward(output, internals, batch, moment), "more": more.square().mean()}


@pytest.fixture(autouse=True)
def admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsa.config.PACKAGES", ("tests",))
    monkeypatch.setenv("MMSA_PACKAGES", "tests")


def curve(folder: Path) -> list[list[float]]:
    with (folder / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for name in ("train/loss", "valid/loss", "valid/mae")] for row in rows]


def others() -> list[psutil.Process]:
    """The other processes of this one's run."""
    return [one for one in psutil.Process().children() if "mmsa.rank" in one.cmdline()]


def interrupted(patch: pytest.MonkeyPatch, act: Any, when: int = 2) -> None:
    """Let something happen in rank 0 after the first step of an epoch."""
    batch = Journal.batch

    def acting(journal: Journal, epoch: int, share: float) -> None:
        batch(journal, epoch, share)
        if epoch == when:
            act()

    patch.setattr(Journal, "batch", acting)


def stop() -> None:
    assert len(others()) == 1
    raise KeyboardInterrupt


def folder_of(said: str) -> Path:
    """The folder in the line that resumes a run."""
    (found,) = re.findall(r"trainer\.resume=(\S+)$", said, flags=re.MULTILINE)
    return Path(found)


def test_two_devices_have_the_losses_of_one_and_one_resumes_a_run_of_two(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With gradients that add up, parts without any, and a last batch of fewer utterances than devices."""
    typed = [*small, *STILL, "fusion=concat", "trainer.batch_size=95", "trainer.accumulate=2", "trainer.clip_norm=1"]
    typed += ["objective._target_=tests.test_rank.Unused", "trainer.max_epochs=3"]
    one = mmsa.run(typed, quiet=True)
    before = torch.get_num_threads(), dict(os.environ)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, stop, when=3)
        mmsa.run([*typed, TWO])
    assert not others() and not distributed.is_initialized()
    assert (torch.get_num_threads(), dict(os.environ)) == before
    said = capsys.readouterr().out
    assert "stopped by Ctrl-C" in said and "191 train" in said and ", cpu, 2 processes" in said
    assert RunRecord.read(folder_of(said)).environment["devices"] == "2"
    two = mmsa.run([f"trainer.resume={folder_of(said)}", "device.devices=1"], quiet=True)
    assert len(curve(one.folder)) == 3
    for ours, theirs in zip(curve(two.folder), curve(one.folder), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert RunRecord.read(two.folder).environment["devices"] == "2, later 1"
    assert "devices" not in RunRecord.read(one.folder).environment


def test_a_process_that_does_not_start_ends_the_run_in_its_own_words(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho some lines >&2\necho no Python here >&2\nexit 3\n")
    python.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RankError) as failed:
        mmsa.run([*small, TWO])
    reason = "the process of rank 1: ended with exit code 3: no Python here"
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert str(failed.value) == RunRecord.read(folder).reason == reason
    assert f"run folder: {folder}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_frozen_transformer_has_the_losses_of_one_device(small: list[str], tmp_path: Path) -> None:
    from tests.encoder.tiny import save_bert

    bert = ["encoder/text=bert", f"encoder.text.name={save_bert(tmp_path)}", "encoder.text.dropout=0"]
    typed = [*small, *STILL[:1], *STILL[2:], *bert, "encoder.text.freeze=1", "encoder.text.lr=1e-4", "fusion=concat"]
    typed += ["dataset.max_length=10", "trainer.batch_size=48", "optimizer=adamw"]
    one, two = (mmsa.run([*typed, f"device.devices={number}"], quiet=True) for number in (1, 2))
    for ours, theirs in zip(curve(two.folder), curve(one.folder), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_have_the_losses_of_one(small: list[str]) -> None:
    typed = [*("device=cuda" if one == "device=cpu" else one for one in small), *STILL, "fusion=concat"]
    one, two = (mmsa.run([*typed, f"device.devices={number}"], quiet=True) for number in (1, 2))
    for ours, theirs in zip(curve(two.folder), curve(one.folder), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_equal_bits(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [*small, *EVERYTHING, TWO]
    undisturbed = mmsa.run(typed, quiet=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, stop)
        mmsa.run(typed)
    resumed = mmsa.run([f"trainer.resume={folder_of(capsys.readouterr().out)}"], quiet=True)
    same(undisturbed, resumed)
    assert RunRecord.read(resumed.folder).environment["devices"] == "2"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "killed where its group waits for it", "an error"])
def test_a_process_that_ends_ends_all_and_the_folder_says_why(
    how: str, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "the process of rank 1: killed by SIGKILL"
    typed, aborted = [*small, TWO], []
    if how != "an error":
        interrupted(monkeypatch, lambda: [one.kill() for one in others()])
    if how == "killed where its group waits for it":
        monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
        monkeypatch.setattr(distributed.distributed_c10d, "_abort_process_group", lambda: aborted.append(1))
    if how == "an error":
        typed.append("objective._target_=tests.test_rank.Failing")
        reason = "the process of rank 1: The memory of this machine ran out"
    with pytest.raises(RankError, match=reason) as failed:
        mmsa.run(typed)
    assert not others() and not distributed.is_initialized() and bool(aborted) == ("waits" in how)
    folder = folder_of(capsys.readouterr().out)
    record = RunRecord.read(folder)
    assert record.status == "failed" and record.reason is not None and record.reason.startswith(reason)
    if how == "an error":
        assert "  reduce trainer.batch_size or hidden_dim" in str(failed.value)
        assert "raise MemoryError" in "".join(failed.value.__notes__), "where a traceback is asked for"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_all_as_slurm_sends_it_leaves_no_process_and_the_line_resumes(
    number: signal.Signals, small: list[str], tmp_path: Path
) -> None:
    """SIGTERM goes to all processes of a job; SIGKILL to rank 0 alone. The variables of a job's task confuse nobody."""
    command = [sys.executable, "train.py", *small, TWO, "trainer.max_epochs=200", "trainer.patience=200"]
    environment = {**os.environ, **TASK_OF_TWO}
    with psutil.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        lines = [run.stdout.readline() for _ in range(2)]
        assert "epoch   1" in lines[1], lines
        (other,) = run.children()
        for process in (other, run) if number == signal.SIGTERM else (run,):
            process.send_signal(number)
        said = run.stdout.read()
        assert run.wait(SECONDS) == (128 + number if number == signal.SIGTERM else -number)
        other.wait(SECONDS)
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM" in said and folder_of(said) == folder
    done = subprocess.run(
        [sys.executable, "train.py", f"trainer.resume={folder}", "trainer.max_epochs=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert RunRecord.read(folder).status == "finished"
