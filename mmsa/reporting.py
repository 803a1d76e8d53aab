"""Errors as a few lines on the screen, for the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable

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
    if isinstance(error, MmsaError):
        text = str(error)
    elif type(error).__module__.partition(".")[0] in ("hydra", "omegaconf", "typer", "click"):
        text = explained(str(error), conf_folder())
    else:
        kind = type(error).__name__
        text = f"{kind}: {error}\n  mmsa does not expect this: HYDRA_FULL_ERROR=1 before the command shows where it is"
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…", lines[-1]])
