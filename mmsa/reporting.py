"""Errors as a few lines on the screen, for the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mmsa.config import conf_folder
from mmsa.errors import MmsaError
from mmsa.overrides import explained

MAX_LINES = 8


def report_errors(action: Callable[[], object], show_traceback: bool) -> int:
    """Run a command; say an error in a few lines and return the exit code.

    Args:
        action: the command.
        show_traceback: let errors through as they are.
    """
    try:
        action()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if show_traceback:
            raise
        print(f"error: {in_few_lines(error)}", file=sys.stderr)
        return 1
    return 0


def in_few_lines(error: Exception) -> str:
    """What the user has to know of an error, in at most 9 lines."""
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, MmsaError):
        text = str(error)
    elif package in ("typer", "click"):
        text = _misused(error)
    elif package in ("hydra", "omegaconf") or "Config group override" in str(error):  # which Hydra lets be a ValueError
        text = explained(str(error), conf_folder())
    elif isinstance(error, OSError) and error.strerror:
        place = f"{error.filename} cannot be read or written: " if error.filename else ""
        text = f"{place}{error.strerror}.\n  mend that, or type another folder: paths.outputs=FOLDER, paths.data=FOLDER"
    elif lacks_memory(error):
        said = next(iter(str(error).partition(". ")[0].splitlines()), "") or "The memory of this machine ran out"
        elsewhere = ", or device=cpu" if "CUDA" in said else ""
        text = f"{said}.\n  type a smaller trainer.batch_size, or hidden_dim{elsewhere}"
    else:
        kind = type(error).__name__
        text = f"{kind}: {error}\n  mmsa does not expect this: HYDRA_FULL_ERROR=1 before the command shows where it is"
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…", lines[-1]])


def lacks_memory(error: Exception) -> bool:
    """Whether a GPU, or PyTorch or numpy on the CPU, got no memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)  # PyTorch's own, a plain RuntimeError


def _misused(error: Any) -> str:
    """What is wrong with the arguments of a command, and where its help is."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "mmsa"
    return f"{command}: {error.format_message().replace('Value error, ', '')}\n  type {command} --help"
