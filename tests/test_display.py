"""What a run says on a terminal and elsewhere: a bar that fits, improved epochs, a screen that is not there."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from mmsa import display as module
from mmsa.analysis.layout import Table
from mmsa.analysis.rendering import rendered
from mmsa.data.prepare import announce, progress_bar
from mmsa.display import Display, duration, screen
from mmsa.reporting import report_errors
from tests.test_closing import Gone

MONITOR = "valid/mae"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time in seconds, which a test lets pass."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    yield now


def shown(width: int | None = None, place: str = "", encoding: str = "utf-8") -> tuple[Display, io.TextIOWrapper]:
    """A display on a terminal of so many columns, or on a pipe, and its file."""
    page = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    display = Display(place=place)
    terminal = {"force_terminal": width is not None, "width": width or 100}
    display.console = Console(file=page, soft_wrap=True, highlight=False, markup=False, **terminal)  # type: ignore[arg-type]
    return display, page


def printed(page: io.TextIOWrapper) -> str:
    page.flush()
    page.seek(0)
    return page.read()


def drawn(page: io.TextIOWrapper) -> list[str]:
    """What stood in the bar's line, time after time."""
    text = re.sub(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]", "", printed(page))
    bars = [line.rpartition("\x1b[2K")[2] for line in re.split("[\r\n]", text)]
    return [bar for bar in bars if re.match(r"(14 of 15  )?epoch +\d", bar)]


def train(display: Display, clock: list[float], epochs: range, scores: list[float], batches: int = 5) -> None:
    """Epochs of ten seconds."""
    best = epochs.start - 1
    with display.training(epochs.start - 1, 1000, MONITOR):
        for epoch, score in zip(epochs, scores, strict=True):
            for batch in range(1, batches + 1):
                clock[0] += 10 / batches
                display.batch(epoch, batch / batches)
            best = epoch if score == min(scores[: epoch - epochs.start + 1]) else best
            display.epoch(epoch, {"train/loss": 1.0, MONITOR: score, "lr": 1e-3}, best)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize(("place", "encoding"), [("", "utf-8"), ("14 of 15", "ascii")])
def test_the_bar_takes_one_line_moves_within_an_epoch_and_tells_the_time_that_is_left(
    width: int, place: str, encoding: str, clock: list[float]
) -> None:
    display, page = shown(width, place, encoding)
    train(display, clock, range(1, 4), [0.5, 0.4, 0.6])
    bars = drawn(page)
    assert len(bars) > 12 and max(map(len, bars)) < width, bars
    if width >= 60:
        assert bars[-1].startswith(f"{place}  epoch 3 of 1000  ".strip())
        full = [sum(map(bar.count, "━#")) for bar in bars if "epoch 2 of" in bar]
        assert full == sorted(full) and len(set(full)) >= 5
        assert bars[-1].endswith("at most 2 h 46 min left"), "997 epochs of ten seconds"
    if width >= 80:
        assert any(f"{MONITOR} 0.4000" in bar for bar in bars if "epoch 3 of" in bar), "of the last whole epoch"


def test_a_run_that_goes_on_tells_the_time_by_its_own_epochs(clock: list[float]) -> None:
    display, page = shown(80)
    train(display, clock, range(991, 996), [0.5] * 5)
    assert drawn(page)[-1].endswith("at most 50 s left")


def test_improved_epochs_take_a_line_each_on_a_terminal_and_in_the_log_and_fewer_in_a_pipe(
    clock: list[float], tmp_path: Path
) -> None:
    scores = [1 / epoch for epoch in range(1, 201)]
    scores[150:160] = [9.0] * 10
    improved = [epoch for epoch in range(1, 201) if not 150 < epoch <= 160]
    said = {}
    for width in (80, None):
        display, page = shown(width)
        display.log = tmp_path / f"run-{width}.log"
        train(display, clock, range(1, 201), scores)
        said[width], logged = (
            [int(epoch) for epoch in re.findall(r"^\W*  epoch +(\d+)  loss ", text, flags=re.MULTILINE)]
            for text in (re.sub("\x1b\\[[\\d;?]*[a-zA-Z]", "", printed(page)), display.log.read_text())
        )
        assert logged == improved
    assert said[80] == improved
    assert said[None][:5] == [1, 2, 3, 5, 8] and len(said[None]) <= 13


def test_runs_side_by_side_share_a_screen_without_a_bar(clock: list[float], tmp_path: Path) -> None:
    display, page = shown(80, "2 of 4")
    display._beside_others = True
    display.log = tmp_path / "run.log"
    train(display, clock, range(1, 3), [0.5, 0.4])
    display.note("selected epoch 2")
    display.say("2 of 4: done")
    assert printed(page) == "2 of 4: done\n"
    assert len(display.log.read_text().splitlines()) == 4


def test_lines_of_a_data_set_that_is_prepared_stand_above_its_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(True) as shown_by:
        for _ in shown_by([1, 2], "reading", 2):
            announce("a line")
    assert capsys.readouterr().err.count("\x1b[2Ka line\n") == 2


def test_times_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 99.4, 100, 5940, 9960)] == ["0 s", "99 s", "2 min", "99 min", "2 h 46 min"]


def test_a_screen_that_is_closed_from_the_start_or_full_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table("title")
    for out, err in ((None, None), (Gone(io.BytesIO()), Gone(io.BytesIO()))):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        Display().say("a line")
        assert rendered([table], "table") == "title"
        assert (
            report_errors(lambda: print("out"), False) == report_errors(lambda: print(1, file=sys.stderr), False) == 0
        )
        assert not screen().isatty() and not screen("stderr").isatty()


def test_a_forced_color_makes_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks and CI force it where there is nothing that a bar could be drawn over."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console().is_terminal and not module.console().is_terminal
    with progress_bar(shown=True) as progress:
        assert isinstance(progress([1], "title", 1), type(iter([])))
