"""How the user starts our programs again: words that the shell understands where a line to type is printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
"""The checkout, or the folder of packages where there is none."""


def installed(name: str) -> Path:
    """A file or folder beside the package: of the checkout, or the one that was installed with the package."""
    package = Path(__file__).resolve().parent
    return CHECKOUT / name if (CHECKOUT / name).exists() else package / name


def program(name: str, folder: Path | None = None) -> str:
    """A program of this environment: its name where the shell finds it, else its path.

    Where `mmsa` was not installed, Python starts it.

    Args:
        name: the program's.
        folder: where it is typed; None is the working folder.
    """
    called = Path(sys.argv[0])
    here = (called if called.name == name else Path(sys.executable).with_name(name)).absolute()
    found = shutil.which(name)
    if found and Path(found).parent.resolve() == here.parent.resolve():
        return name
    if name == "mmsa" and not here.is_file():
        return f"{python(folder)} -m mmsa.cli"
    folder = folder or Path.cwd()
    near = here.is_relative_to(folder) and here.parent != folder
    return shlex.quote(str(here.relative_to(folder) if near else here))


def python(folder: Path | None = None) -> str:
    """The Python that runs."""
    return program(Path(sys.executable).name, folder)


def training(folder: Path | None = None) -> str:
    """What trains: `python train.py` where that was typed, else `mmsa train`."""
    if folder is None and Path(sys.argv[0]).resolve() == CHECKOUT / "train.py":
        return f"{python()} {shlex.quote(sys.argv[0])}"
    return f"{program('mmsa', folder)} train"


def environment_of_ours() -> dict[str, str]:
    """The environment of a Python process that is to import this `mmsa`, installed or not."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def make(target: str) -> str | None:
    """`make TARGET`; None where there is no make, or no checkout of ours to make it in."""
    if not Path("Makefile").is_file() or Path.cwd().resolve() != CHECKOUT or not shutil.which("make"):
        return None
    usual = Path(sys.prefix).resolve() == Path(".venv").resolve()
    return f"make {target}" if usual else f"make {target} VENV={shlex.quote(sys.prefix)}"
