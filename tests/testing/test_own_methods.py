"""docs/own_methods.md, as it stands: its files in a folder of one's own train, and keep the laws by its lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmsa.record import RunRecord
from tests.conftest import ROOT
from tests.warm import train

PAGE = (ROOT / "docs" / "own_methods.md").read_text(encoding="utf-8")
FEW = "-k", "Calm and (goes_on or 3)"
"""What is quickly tested; the rest, and a regularizer with every other stage, takes longer."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 7
    for name, text in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    (folder / "my_methods" / "__init__.py").touch()
    return folder


def typed(start: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Type the page's line that starts so, and more behind it."""
    (line,) = re.findall(rf"^{start}.*$", PAGE, re.MULTILINE)
    words = line.replace("FOLDER", str(folder)).split()
    exported = dict(re.findall(r"(\w+)=(\S+)", re.findall(r"^export .*$", PAGE, re.MULTILINE)[0]))
    own = {name: value.replace("FOLDER", str(folder)) for name, value in exported.items()}
    if words[:2] == ["python", "train.py"]:
        return train(*words[2:], *more, environment=own)
    command = [sys.executable, "-m", *words, *more]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True, check=False)


def test_the_methods_train(folder: Path) -> None:
    done = typed("python train.py", folder, "debug=fast", f"paths.outputs={folder / 'outputs'}")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "outputs" / "runs").iterdir()
    assert RunRecord.read(run).status == "finished"
    history = (run / "history.csv").read_text(encoding="utf-8")
    assert "train/calm" in history, "each loss of an objective is in the history"


@pytest.mark.slow
def test_the_methods_keep_the_laws_by_the_lines_of_the_page(folder: Path) -> None:
    done = typed("pytest", folder, "-q", "-p", "no:cacheprovider", *FEW)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_they_keep_them_with_every_other_stage(folder: Path) -> None:
    done = typed("pytest", folder, "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_method_that_breaks_a_law_is_told_which(folder: Path) -> None:
    lost = folder / "my_methods" / "lost.py"
    sound = lost.read_text(encoding="utf-8")
    lost.write_text(sound.replace("or not self.training", ""))
    try:
        done = typed("pytest", folder, "-q", "-p", "no:cacheprovider", "-k", "Lost and regularizers_are_off", "-x")
    finally:
        lost.write_text(sound, encoding="utf-8")
    assert done.returncode == 1 and "the regularizer acts at evaluation" in done.stdout
