"""What a run says of its code is known of this code, or is nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mmsa.provenance import environment, git_state
from mmsa.record import Git

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b.c")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder of code in a repository that is clean."""
    folder = tmp_path / "checkout" / "mmsa"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("1")
    git(folder, "init", "-q", "..")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "code")
    return folder


def test_the_commit_and_whether_files_differ(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git(code, "rev-parse", "HEAD")
    assert git_state(code) == Git(commit=commit, dirty=False)
    (code / "code.py").write_text("2")
    monkeypatch.setenv("GIT_DIR", str(code))  # as a hook of another repository has it
    assert git_state(code) == Git(commit=commit, dirty=True)


def test_what_git_does_not_answer_is_unknown(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def slow(command: list[str], **options: object) -> object:
        if "status" in command:
            raise subprocess.TimeoutExpired(command, 10)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", slow)
    assert git_state(code).commit is not None and git_state(code).dirty is None


def test_a_repository_around_installed_code_is_not_its_own(code: Path) -> None:
    installed = code / "site-packages" / "mmsa"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("1")
    assert git_state(installed) == Git()


def test_a_machine_is_known_by_what_its_sums_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment("cpu", 3)
    assert here["processor"] and here["instructions"] and (here["device"], here["threads"]) == ("cpu", "3")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"the GPU {device}")
    assert environment("cuda:1", 3)["gpu"] == "the GPU cuda:1" and "gpu" not in here
