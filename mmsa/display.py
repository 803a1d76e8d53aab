"""The output of a run: lines, which also go to its log, and on a terminal a bar below them."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mmsa.errors import printable_lines

SPARSER = 1.5
"""Where there is no terminal, the epoch of a line is at least this many times that of the line before."""
REFRESH_SECONDS = 0.2
ESTIMATE_SECONDS = 3.0
"""Seconds of training before the time left is estimated."""
LEAST_BAR, LARGEST_BAR = 6, 40


def screen(name: Literal["stdout", "stderr"] = "stdout") -> TextIO:
    """Standard output, or standard error; its errors cost no result."""
    return cast(TextIO, _Screen(getattr(sys, name)))


class _Screen:
    """A stream that ends no run: a sign that its encoding lacks becomes ?, and what a closed terminal, a
    program that reads no more or a full disk does not take is lost.

    Args:
        stream: such as sys.stdout; None where it was closed from the start.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Whether somebody sees it live."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def write(self, text: str) -> int:
        """Write what can be written."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):  # of a file that is closed
            if self._stream is not None:
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Show it."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()


def console(quiet: bool = False) -> Console:
    """The screen for lines and bars. Only a terminal gets bars: FORCE_COLOR, as notebooks and CI set it, is none."""
    stream = screen()
    return Console(
        file=stream,
        quiet=quiet,
        emoji=False,
        force_terminal=stream.isatty(),
        highlight=False,
        soft_wrap=True,
        markup=False,
        force_jupyter=False,
    )


class Display:
    """Says lines and shows the epochs of one run.

    Args:
        quiet: say nothing on the screen.
        place: of the run among those of a multirun, such as "4 of 15"; empty for a run alone.
        beside: of a run that advances at the same time and shows the epochs of both.
    """

    def __init__(self, quiet: bool = False, place: str = "", beside: Display | None = None) -> None:
        self.console: Console = beside.console if beside else console(quiet)
        self.place = place
        self.log: Path | None = None
        """A file that keeps every line too."""
        self._beside_others = beside is not None or multiprocessing.parent_process() is not None
        self._bar: Live | None = None

    def say(self, text: str) -> None:
        """Print lines and log them."""
        self.console.print(printable_lines(text))
        self.keep(text)

    def note(self, text: str) -> None:
        """Log lines that do not name their run, and print them unless other runs print on the same screen."""
        if not self._beside_others:
            self.console.print(printable_lines(text))
        self.keep(text)

    def keep(self, text: str) -> None:
        """Log lines only."""
        if self.log is not None:
            with suppress(OSError), self.log.open("a", encoding="utf-8", errors="replace") as log:
                log.write(printable_lines(text) + "\n")

    @contextmanager
    def training(self, epoch: int, max_epochs: int, monitor: str) -> Iterator[None]:
        """Around the epochs: a bar where they can be seen live.

        Args:
            epoch: epochs that are done before, of a run that is resumed.
            max_epochs: most epochs.
            monitor: name of the metric that selects the epoch.
        """
        self._first, self._max_epochs, self._monitor = epoch, max_epochs, monitor
        self._at, self._value, self._said = (min(epoch + 1, max_epochs), 0.0), "", 0
        self._began = self._drawn = time.monotonic()
        if not self.console.is_interactive or self.console.quiet or self._beside_others:
            yield
            return
        with Live(console=self.console, get_renderable=self._line, auto_refresh=False, transient=True) as self._bar:
            self._bar.refresh()
            yield

    def batch(self, epoch: int, share: float) -> None:
        """A share of the batches of an epoch is done."""
        self._at = epoch, share
        if self._bar is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._bar.refresh()
            self._drawn = time.monotonic()

    def epoch(self, epoch: int, metrics: Mapping[str, float], best_epoch: int) -> None:
        """One epoch is done; it takes a line where it is the best so far."""
        self._value = f"{self._monitor} {metrics[self._monitor]:.4f}"
        if epoch != best_epoch:
            return
        text = f"  epoch {epoch:>3}  loss {metrics['train/loss']:.4f}  {self._value}  lr {metrics['lr']:.1e}"
        if self._bar is not None or epoch >= SPARSER * self._said:
            self._said = epoch
            self.note(text)
        else:
            self.keep(text)

    def _line(self) -> Text:
        """The bar as it is now: the epoch, its batches, the last monitored value and the time that is left."""
        epoch, share = self._at
        head = f"{self.place}  epoch {epoch} of {self._max_epochs}".strip()
        done, seconds = epoch - 1 + share, time.monotonic() - self._began
        tail = [self._value] if self._value else []
        if done > self._first and seconds > ESTIMATE_SECONDS:
            left = seconds / (done - self._first) * (self._max_epochs - done)
            tail.append(f"at most {duration(left)} left")  # less where patience ends it
        room = self.console.width - 1 - len(head)
        while tail and room - len("  ".join(["", *tail])) < LEAST_BAR + 2:
            del tail[0]
        size = min(room - 2 - len("  ".join(["", *tail])), LARGEST_BAR)
        signs = "━─" if (self.console.encoding or "").lower().startswith("utf") else "#-"
        full = round(share * size)
        line = Text.assemble(
            (head, ""), "  ", (signs[0] * full, "green"), (signs[1] * (size - full), "dim"), *("  " + t for t in tail)
        )
        line.truncate(self.console.width - 1)
        return line


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
