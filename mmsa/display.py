"""What a run says: a live bar on a terminal, a few lines elsewhere; every line also goes to the run's log."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PIPED_LINES = 12
"""Lines at most that the epochs of one run take where there is no terminal."""


def screen() -> TextIO:
    """Standard output to print on, which costs nobody a result."""
    return cast(TextIO, _Screen(sys.stdout))


class _Screen:
    """A stream that ends no run: a sign that its encoding lacks becomes ?, and what a closed terminal, a
    program that reads no more or a full disk does not take is lost.

    Args:
        stream: such as sys.stdout.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):  # of a file that is closed
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Show it."""
        with suppress(OSError, ValueError):
            self._stream.flush()


class Display:
    """Says lines and shows the epochs of one run.

    Args:
        quiet: say nothing on the screen.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(
            file=screen(), quiet=quiet, highlight=False, soft_wrap=True, markup=False, force_jupyter=False
        )
        self.log: Path | None = None
        """A file that keeps every line too."""
        self._worker = multiprocessing.parent_process() is not None
        self._bar: Progress | None = None

    def say(self, text: str) -> None:
        """Print lines and log them."""
        self.console.print(text)
        if self.log is not None:
            with suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as log:
                log.write(text + "\n")

    @contextmanager
    def training(self, max_epochs: int, monitor: str) -> Iterator[None]:
        """Around the epochs: a bar where they can be seen live."""
        self._max_epochs, self._monitor = max_epochs, monitor
        if not self.console.is_terminal or self.console.quiet or self._worker:
            yield
            return
        columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as self._bar:
            self._bar.add_task("", total=max_epochs)
            yield

    def epoch(self, epoch: int, metrics: Mapping[str, float], best_epoch: int) -> None:
        """One epoch is done."""
        monitor = self._monitor
        text = f"loss {metrics['train/loss']:.4f}  {monitor} {metrics[monitor]:.4f}  lr {metrics['lr']:.1e}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=epoch, description=f"{text}  best epoch {best_epoch}")
        elif self._worker:
            return  # the epochs of runs side by side, without their names, would tell nothing
        elif epoch == 1 or epoch % max(1, -(-self._max_epochs // PIPED_LINES)) == 0:
            self.say(f"  epoch {epoch:>3}  {text}")
