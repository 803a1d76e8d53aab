"""Where a result comes from: code, machine and versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmsa.record import Git

PACKAGES = ("torch", "lightning-fabric", "numpy", "hydra-core", "omegaconf", "mlflow", "h5py")


def git_state() -> Git:
    """Commit of this checkout and whether it has uncommitted changes; None outside a repository."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return Git(commit=commit, dirty=bool(git("status", "--porcelain")) if commit else None)


def environment(device: str, threads: int) -> dict[str, str]:
    """Versions of Python and of the libraries, and the machine."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"cpus": str(os.cpu_count()), "device": device, "threads": str(threads)}
