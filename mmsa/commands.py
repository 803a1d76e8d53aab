"""Lines to type next, correct where they are printed: in this folder, with this environment."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsa import config
from mmsa.config import PACKAGES_VARIABLE
from mmsa.tracking.tracker import without_password


def train_command(overrides: Sequence[str], config_folders: Sequence[str] = ()) -> str:
    """The command line of a run.

    Args:
        overrides: as typed.
        config_folders: further folders of configuration files (--config-dir).
    """
    words = [f"{PACKAGES_VARIABLE}={shlex.quote(','.join(config.PACKAGES))}"] if config.PACKAGES else []
    words += [_tool("python"), "train.py"]
    words += [f"--config-dir={shlex.quote(folder)}" for folder in config_folders]
    return " ".join([*words, *map(shlex.quote, overrides)])


def report_command(outputs: str, sweep: str | None = None) -> str:
    """The command line of the table of all runs, or of one multirun."""
    words = [_tool("mmsa"), "report"]
    words += ["--outputs", shlex.quote(outputs)] if outputs != "outputs" else []
    words += ["--sweep", sweep] if sweep else []
    return " ".join(words)


def doctor_command(arguments: Sequence[str]) -> str:
    """The command line of the doctor's report."""
    return " ".join([_tool("mmsa"), "doctor", *map(shlex.quote, arguments)])


def browse_command(outputs: str, uri: str | None = None) -> str:
    """The command line of the MLflow UI, or the address of a server.

    Args:
        outputs: the outputs folder.
        uri: an MLflow tracking URI; None is the database in `outputs`.
    """
    if uri is not None:
        shown = without_password(uri)
        return shown if shown.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(shown)}"
    in_checkout = Path("Makefile").is_file() and Path(__file__).resolve().parents[1] == Path.cwd().resolve()
    if outputs != "outputs" or not in_checkout:
        return f"{_tool('python')} -m mmsa.tracking.ui --outputs {shlex.quote(outputs)}"
    usual = Path(sys.prefix).resolve() == Path(".venv").resolve()
    return "make ui" if usual else f"make ui VENV={shlex.quote(sys.prefix)}"


def _tool(name: str) -> str:
    """A program of this environment: its name where the shell finds it, else its path."""
    here = Path(sys.executable).parent / name
    found = shutil.which(name)
    return name if found and Path(found).parent == here.parent else shlex.quote(str(here))
