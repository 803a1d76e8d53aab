"""What a user meets who types `python train.py`: help, errors, methods of one's own, Ctrl-C."""

from __future__ import annotations

import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.outside import package
from tests.warm import FOREIGN, Program, in_a_job, train, typed

MAX_LINES = 10
MAX_LINES_OF_A_RUN = 40
FOLDER = "a=b (1) it's é"
"""A name that needs care in a shell, and in Hydra."""


def start_python(*overrides: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`python train.py OVERRIDES` in a Python of its own."""
    return subprocess.run(
        [sys.executable, "train.py", *overrides],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )


def test_the_help_of_training_is_quick_and_names_every_option_keys_and_examples() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = start_python("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # not the clock: others compute too
    assert done.returncode == 0 and seconds < 1
    for group in {path.parent.name for path in (ROOT / "conf").glob("*/*.yaml")}:
        options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert re.search(rf"^{group}: {', '.join(options)}$", done.stdout, flags=re.MULTILINE), group
    assert (
        "trainer.resume" in done.stdout and "python train.py -m seed=1,2,3 feedback=none,static,mmlatch" in done.stdout
    )
    assert len(done.stdout.splitlines()) <= 40
    shown = train("--cfg", "job", "hidden_dim=7")
    assert shown.returncode == 0 and re.search("^hidden_dim: 7$", shown.stdout, flags=re.MULTILINE)


def test_ctrl_c_while_train_py_is_imported_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "mmsa.train", Stopped())
    with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
        runpy.run_path(str(ROOT / "train.py"))
    assert isinstance(ended.value, SystemExit) and ended.value.code == 130


def test_a_python_without_the_environment_says_how_to_enter_it(tmp_path: Path) -> None:
    """In another folder, whose path needs quotes."""
    checkout = tmp_path / "it's (1)"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "train.py", checkout)
    (tmp_path / "hydra.py").write_text("raise ModuleNotFoundError(\"No module named 'hydra'\", name='hydra')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}

    def said() -> str:
        command = [sys.executable, "it's (1)/train.py", "name=a b"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        why, line = done.stderr.splitlines()
        assert why == "train.py needs mmsa's environment, and this Python has no hydra."
        return line.removeprefix("  type ")

    assert said() == """make -C 'it'"'"'s (1)' setup"""
    (checkout / ".venv" / "bin" / "activate").write_text("python() { printf '%s,' \"$@\"; }")
    done = subprocess.run(["bash", "-c", said()], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "it's (1)/train.py,name=a b,", done.stderr


def test_train_py_says_errors_in_few_lines(tmp_path: Path) -> None:
    done = train("optimizer.lr=fast", f"paths.outputs={tmp_path}", environment={"HYDRA_FULL_ERROR": ""})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1] == "  type for example optimizer.lr=0.001"
    assert len(done.stderr.splitlines()) == 2
    done = train("fusion=conkat", environment={"HYDRA_FULL_ERROR": "1"})
    assert done.returncode == 1 and "Traceback" in done.stderr


def own_methods(folder: Path) -> tuple[list[str], dict[str, str]]:
    """A fusion and an encoder outside the repository, and the arguments and environment that admit them."""
    source = (
        "import torch\n"
        "from mmsa.encoder.bilstm import RecurrentEncoder\n"
        "from mmsa.fusion.concat import ConcatFusion\n"
        "class GatedFusion(ConcatFusion):\n"
        "    def __init__(self, input_dims, power: float = 1.0):\n"
        "        super().__init__(input_dims)\n"
        "        self.gate = torch.nn.Linear(self.output_dim, self.output_dim)\n"
        "class SmallEncoder(RecurrentEncoder):\n"
        "    pass\n"
    )
    options = {
        "fusion/gated": "_target_: my_methods.methods.GatedFusion\npower: 2.0\n",
        "encoder/small": (
            "# @package encoder.default\n_target_: my_methods.methods.SmallEncoder\nhidden_dim: ${hidden_dim}\n"
        ),
    }
    return package(folder, "my_methods", source, options)


def test_methods_of_ones_own_train_from_the_command_line_in_few_lines(small: list[str], tmp_path: Path) -> None:
    own, environment = own_methods(tmp_path / "own")
    done = train(*own, *small, "trainer.max_epochs=1", "fusion=gated", "encoder/audio=small", environment=environment)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) <= MAX_LINES_OF_A_RUN
    assert "fusion=gated encoder/audio=small: synthetic, " in done.stdout.splitlines()[0]
    assert f"mmsa report --outputs {tmp_path / 'outputs'}" in done.stdout.splitlines()[-1]


def test_ctrl_c_keeps_what_was_learnt_and_the_line_to_paste_goes_on(small: list[str], tmp_path: Path) -> None:
    places = [small[0], f"paths.outputs={tmp_path / FOLDER}"]
    overrides = [*places, *small[2:], "fusion=concat", "trainer.max_epochs=12", "trainer.patience=12"]
    overrides += ["encoder/text=bigru", "name=stopped"]
    with Program(*overrides) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/runs/*_stopped/checkpoints/last.pt")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err and len(err.splitlines()) <= MAX_LINES
    stopped, line = out.splitlines()[-2:]
    assert re.match(r"stopped by Ctrl-C after \d+ s and \d+ epochs?; best so far: epoch \d+, valid/mae \d", stopped)
    assert line.startswith("resume it: python train.py ")
    job = in_a_job(tmp_path)
    line = line.removeprefix("resume it: ")
    done = subprocess.run(line, shell=True, cwd=ROOT, env=job, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and not FOREIGN.search(done.stdout), done.stderr + done.stdout
    assert re.search(r"^resumes after \d+ epochs?; best so far: epoch \d", done.stdout, flags=re.MULTILINE)
    assert "; stopped: trainer.max_epochs=12 reached; " in done.stdout
    assert len(list(tmp_path.glob("*/runs/*"))) == 1
    line = done.stdout.splitlines()[-1]
    assert line.startswith("all runs in one table: mmsa report --outputs ")
    assert "(1 seed)" in typed(line.removeprefix("all runs in one table: ")).stdout
