"""Errors that a user can mend: each says what was required, what came, and what to type."""

from __future__ import annotations

import sys
from collections.abc import Callable


class MmsaError(Exception):
    """Base of every error that is the user's to mend; shown as a few lines, without a traceback."""


class ConfigError(MmsaError):
    """An option is unknown, of the wrong type, out of range, or does not fit another option."""


class DataError(MmsaError):
    """A source file or a store is missing, damaged, or not what the data set states."""


class TrainingError(MmsaError):
    """Training met a value with which it cannot go on."""


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
    except Exception as error:  # the one place that turns every error into lines
        if show_traceback:
            raise
        print(f"error: {_in_few_lines(error)}", file=sys.stderr)
        return 1
    return 0


def _in_few_lines(error: Exception) -> str:
    """The message of the first cause that says something, at most 8 lines."""
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, MmsaError):
        cause = cause.__cause__
    text = str(cause if isinstance(cause, MmsaError) else error) or type(error).__name__
    lines = [line for line in text.splitlines() if line.strip()][:8]
    if not isinstance(cause, MmsaError) and type(error).__module__.partition(".")[0] not in ("hydra", "omegaconf"):
        lines[0] = f"{type(error).__name__}: {lines[0]}"
        lines.append("  this is not an error that mmsa expects: HYDRA_FULL_ERROR=1 shows where it comes from")
    return "\n".join(lines)
