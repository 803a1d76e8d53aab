"""What TAB offers for `mmsa` and `python train.py`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mmsa import cli
from mmsa.completion import SCRIPT
from tests.conftest import ROOT

OFFERED = {
    "mmsa tr": ["train ", "track "],
    "mmsa rer": ["rerun "],
    "mmsa prepare mus": ["mustard "],
    "mmsa report --s": ["--sweep ", "--seeds "],
    "mmsa report --format ": ["table ", "markdown ", "csv ", "latex ", "html "],
    "mmsa report mus": ["mustard "],
    "mmsa report feed": ["feedback="],
    "mmsa report --metrics acc2_non0_": ["acc2_non0_geq "],
    "mmsa leaderboard --": ["--outputs ", "--output ", "--reference ", "--help "],
    "mmsa leaderboard mus": ["mustard "],
    "mmsa evaluate outputs/": [],  # which the shell completes
    "mmsa nonsense ": [],
    "mmsa train fus": ["fusion.", "fusion="],
    "mmsa train -m seed=1,2 fusion=concat,at": ["fusion=concat,attention "],
    "mmsa train encoder/text=be": ["encoder/text=bert "],
    "mmsa train encoder/au": ["encoder/audio="],
    "mmsa train --mul": ["--multirun "],
    "mmsa train fusion=nonsense trainer.max_e": [],
    "mmsa train dataset.modalities=": [],
    "mmsa train paths.data=": [],
    "python train.py regular": ["regularizer.", "regularizer="],
    "python train.py dataset=cmu_mosi dataset.keep": ["dataset.keep_pauses="],
    ".venv/bin/python ../a/train.py sweep=search sweep.tri": ["sweep.trial_minutes=", "sweep.trials="],
    "python train.py trainer.resume=out": ["trainer.resume=outputs/"],
}


@pytest.mark.parametrize("line", OFFERED)
def test_what_is_offered(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "resume" in line:
        for name in ("outputs", "out of (reach)"):
            (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    cli.command(["completion", line])
    assert capsys.readouterr().out.splitlines() == OFFERED[line]


def completed(line: str, command: str, word: str, folder: Path) -> list[str]:
    """What bash's completion of a line sets for the part of the last word that it completes."""
    asked = 'eval "$1"; complete -p "$3" >/dev/null; COMP_LINE=$2; COMP_POINT=${#2}; _mmsa_completion "$3" "$4"'
    asked += "; printf '%s\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(
        ["bash", "-c", asked, "bash", SCRIPT, line, command, word], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


def test_bash_gets_the_part_after_the_equals_sign_and_runs_no_train_py_of_others(tmp_path: Path) -> None:
    assert completed("mmsa train fusion=con", "mmsa", "con", tmp_path) == ["concat "]
    assert completed("python train.py trainer.max_e", "python", "trainer.max_e", ROOT) == ["trainer.max_epochs="]
    (tmp_path / "train.py").write_text("open('started', 'w')")
    assert completed("python train.py tra", "python", "tra", tmp_path) == [""]
    assert not (tmp_path / "started").exists()
