"""`make bench-gpu`: its short form works on a CPU, and without a GPU it says what is missing."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu
from tests.benchmarks.test_suite import run


@pytest.fixture(autouse=True)
def as_before(caplog: pytest.LogCaptureFixture) -> None:
    """What the command logs is its own."""
    caplog.set_level(logging.getLogger("mmsa").level, "mmsa")


def test_the_short_form_measures_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(gpu.RECIPES, "mmlatch")
    shown = run(gpu.main, "--short", "--out", str(tmp_path))
    assert shown.exit_code == 0, shown.output
    (path,) = tmp_path.iterdir()
    written = json.loads(path.read_text())
    rates = written["utterances_per_second"]
    assert rates["train/no-feedback"].keys() == gpu.FORMS.keys()
    assert rates["evaluate/no-feedback"].keys() == {name for name, form in gpu.FORMS.items() if not form.graphs}
    assert all(rate > 0 for of_work in rates.values() for rate in of_work.values())
    for work, of_work in rates.items():
        assert all(f"| {work} | {name} | {rate:,.0f} |" in shown.output for name, rate in of_work.items())
    seeds = written["seeds"]
    ratio = (
        f"3 seeds together take {seeds['together'] / seeds['alone']:.2f} times the time of one (goal: less than 3); "
    )
    assert f"{ratio}not offered: fewer than 4 are as fast so" in shown.output and "after the other" not in shown.output
    assert written["tests"] == "not run" and f"torch {torch.__version__}" in shown.output


def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shown = run(gpu.main, "--out", str(tmp_path))
    assert shown.exit_code == 1 and not list(tmp_path.iterdir())
    expected = f"make bench-gpu needs a CUDA device, and PyTorch {torch.__version__} finds none on this machine\n"
    assert shown.output == expected


def test_what_fails_is_a_row_and_the_others_come_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def figures(recipe: str, form: gpu.Form, *of: Any) -> Iterator[tuple[str, float, str]]:
        yield f"train/{recipe}", 8.0, ""
        if form.precision == "bf16-mixed":
            raise RuntimeError("CUDA error: out of luck\nCompile with something")

    def seeds_together(*of: Any) -> None:
        raise AssertionError

    for made in (figures, seeds_together):
        monkeypatch.setattr(gpu, made.__name__, made)
    monkeypatch.setattr(gpu, "gc", SimpleNamespace(collect=lambda: None))  # which takes seconds among tests
    shown = run(gpu.main, "--short", "--out", str(tmp_path))
    assert shown.exit_code == 1
    for expected in (
        "| train/mmlatch | bf16 | 8 | 1.00 | – |",
        "| mmlatch | bf16 | – | – | failed: CUDA error: out of luck |",
        "| train/no-feedback | graphs | 8 | 1.00 | – |",
        "| seeds | together | – | – | failed: AssertionError |",
    ):
        assert expected in shown.output
    (path,) = tmp_path.iterdir()
    assert len(json.loads(path.read_text())["failed"]) == 5


@pytest.mark.parametrize("code", [0, 1, None])
def test_the_tests_on_the_gpu_are_summed_up(
    code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[str] = []

    def done(command: list[str], **how: Any) -> Any:
        typed.extend(command)
        how["stdout"].write(b"F.\nAssertionError: far off\n===== 1 failed, 1 passed in 9 s =====\n")
        if code is None:
            raise subprocess.TimeoutExpired(command, how["timeout"])
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", done)
    log = tmp_path / "log.txt"
    last = "1 failed, 1 passed in 9 s"
    cut = f"failed: not done in {gpu.TESTS_SECONDS} s; {log} has what they printed"
    assert gpu.tested(log) == {0: f"passed: {last}", 1: f"failed: {last}", None: cut}[code]
    files = [Path(word).name for word in typed if word.endswith(".py")]
    assert {"test_on_gpu.py", "test_resident.py"} <= set(files) and "test_lockstep.py" not in files
    assert ("far off" in capsys.readouterr().out) == (code != 0) and "far off" in log.read_text()
