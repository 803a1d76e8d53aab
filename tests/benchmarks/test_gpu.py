"""`make bench-gpu`: its short form works on a CPU, and without a GPU it says what is missing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from tests.benchmarks.test_suite import run


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
    assert f"{ratio}not offered: 3 of them are faster so" in shown.output and "after the other" not in shown.output
    assert written["tests"] == "not run" and f"torch {torch.__version__}" in shown.output


def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shown = run(gpu.main, "--out", str(tmp_path))
    assert shown.exit_code == 1 and not list(tmp_path.iterdir())
    expected = f"make bench-gpu needs a CUDA device, and PyTorch {torch.__version__} finds none on this machine\n"
    assert shown.output == expected


@pytest.mark.parametrize(("rc", "verdict"), [(0, "passed"), (1, "failed")])
def test_the_tests_on_the_gpu_are_summed_up(
    rc: int, verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "F.\nAssertionError: far off\n===== 1 failed, 1 passed in 9 s =====\n"
    typed: list[str] = []

    def done(command: list[str], **how: Any) -> Any:
        typed.extend(command)
        return subprocess.CompletedProcess([], rc, said, "")

    monkeypatch.setattr(subprocess, "run", done)
    assert gpu.tested() == f"{verdict}: 1 failed, 1 passed in 9 s"
    files = [Path(word).name for word in typed if word.endswith(".py")]
    assert {"test_on_gpu.py", "test_resident.py"} <= set(files) and "test_lockstep.py" not in files
    assert ("far off" in capsys.readouterr().out) == bool(rc)
