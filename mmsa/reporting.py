"""Errors as a few lines on the screen, for the commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from rich.filesize import decimal

from mmsa.commands import clean_command
from mmsa.config import conf_folder
from mmsa.display import screen
from mmsa.errors import MmsaError, first_line, printable, stopped_by, text_of
from mmsa.files import is_full
from mmsa.overrides import explained
from mmsa.program import program
from mmsa.secrets import hidden

MAX_LINES = 8
_WIDEST = 4000  # a line to type may be long


def report_errors(action: Callable[[], object], show_traceback: bool) -> int:
    """Run a command; print an error in a few lines and return the exit code.

    SIGTERM, and SIGHUP of a terminal that closes, stop it as Ctrl-C does. What the screen does not take stops nothing.

    Args:
        action: the command.
        show_traceback: let errors through as they are.
    """
    try:
        with _stopped_by_signals(), redirect_stdout(screen()), redirect_stderr(screen("stderr")):
            action()
    except KeyboardInterrupt as stopped:
        return _code_of(stopped)
    except Exception as error:
        if show_traceback:
            raise
        if not isinstance(error, MmsaError) and isinstance(behind := stopped_by(error), KeyboardInterrupt):
            return _code_of(behind)
        print(f"error: {in_few_lines(error)}", file=sys.stderr)
        return 1
    finally:
        _let_go(sys.stdout)
    return 0


def _code_of(stopped: KeyboardInterrupt) -> int:
    return 128 + signal.Signals[str(stopped) or "SIGINT"]


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """While it lasts, signals that would kill at once raise KeyboardInterrupt; what nohup ignores stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)  # once is enough: what follows leaves files whole
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _let_go(stream: TextIO | None) -> None:
    """Drop what a stream still holds where nobody reads it any more: Python would end by an error over it."""
    if stream is None:  # closed from the start
        return
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):  # it has no number
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except ValueError:  # it is closed
        return


def in_few_lines(error: Exception) -> str:
    """An error for the user, in at most 9 lines and at least one."""
    package, said = type(error).__module__.partition(".")[0], text_of(error)
    if isinstance(error, MmsaError) and said:
        text = said
    elif package in ("typer", "click"):
        text = _misused(error)
    elif said and (package in ("hydra", "omegaconf") or "Config group override" in said):  # a ValueError of Hydra's
        text = explained(said, conf_folder())
    elif "hydra._internal.config_loader_impl" in _modules(error):
        text = (
            f"the configuration cannot be composed: {type(error).__name__}: {error}\n"
            "  mend the option files of --config-dir"
        )
    elif isinstance(error, OSError) and is_full(error):
        text = _full(error)
    elif isinstance(error, OSError) and error.strerror:
        place = f"{error.filename} cannot be read or written: " if error.filename else ""
        text = (
            f"{place}{error.strerror}.\n  correct that, or name another folder: --output FOLDER where the command has "
            "it, or paths.outputs=FOLDER, paths.data=FOLDER"
        )
    elif package == "optuna" and error.__cause__ is not None:  # whose own words guess
        cause = getattr(error.__cause__, "orig", error.__cause__)
        why = first_line(cause)
        text = f"the study's storage cannot be read or written: {why}.\n  run the command again when it can"
    elif lacks_memory(error):
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))  # PyTorch's own, behind the place in its source
        said = f"The memory of this machine ran out: {int(asked[1]):,} bytes were asked for" if asked else ""
        said = said or next(iter(str(error).partition(". ")[0].splitlines()), "The memory of this machine ran out")
        elsewhere = ", or type device=cpu" if "CUDA" in said else ""
        text = f"{said}.\n  reduce trainer.batch_size or hidden_dim{elsewhere}"
    else:
        named = ": ".join(filter(None, [type(error).__name__, said]))
        text = f"{named}\n  this error is unexpected: HYDRA_FULL_ERROR=1 before the command shows the traceback"
    lines = [printable(line)[:_WIDEST] for line in hidden(text).splitlines() if line.strip()]
    return "\n".join(lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "…", lines[-1]])


def _modules(error: Exception) -> set[str]:
    """Names of the modules that an error came through."""
    return {str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)}


def _full(error: OSError) -> str:
    """The disk is full: of which file, the room that it needs, as far as is known, and how to make some."""
    place = Path(error.filename or "")
    outputs = next((str(folder.parent) for folder in place.parents if folder.name == "runs"), None)
    size = int(getattr(error, "needed", 0))
    needed = f"; it needs {decimal(size)}" if size else ""
    with suppress(OSError):
        needed += f", and {decimal(shutil.disk_usage(place.parent).free)} are free" if needed else ""
    shown = f": type {clean_command(outputs, remove=False)} to see what can go" if outputs else ""
    return (
        f"{f'{place} cannot be written: ' if error.filename else ''}{error.strerror}{needed}.\n"
        f"  make room{shown}, or name another folder: paths.outputs=FOLDER, paths.data=FOLDER"
    )


def lacks_memory(error: Exception) -> bool:
    """Whether a GPU, or PyTorch or numpy on the CPU, got no memory."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)  # PyTorch's own, a plain RuntimeError


def _misused(error: Any) -> str:
    """The error in the arguments of a command, and where its help is."""
    words = error.ctx.command_path.split()[1:] if getattr(error, "ctx", None) else []
    command, again = (" ".join([start, *words]) for start in ("mmsa", program("mmsa")))
    return f"{command}: {error.format_message().replace('Value error, ', '')}\n  type {again} --help"
