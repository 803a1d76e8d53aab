"""Shared by the figures of runs: their colours, and canvases outside pyplot, so that trials may draw side by side."""

from __future__ import annotations

import io
import logging
import re
import textwrap
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mmsa.errors import printable
from mmsa.files import written
from mmsa.process import silence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#2f6fb3", "#d9772b", "#b4bac2", "#30353b"
Kind = Literal["pdf", "svg", "png"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NO_TIME: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
_FAMILY = "DejaVu Sans"


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    silence(logging.ERROR, "matplotlib")  # it warns of a home that may only be read
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure as PNG; a link in the file's place is replaced, not followed."""
    with written(path) as file:
        figure.savefig(file, format="png", dpi=150, **options)


def export(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as `name`.pdf, .svg and .png into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in KINDS]
    for path, kind in zip(paths, KINDS, strict=True):
        content = drawn(figure, kind)
        with written(path) as file:
            file.write(content)
    return paths


def drawn(figure: Figure, kind: Kind) -> bytes:
    """A finished figure in one format: equal bits whenever it is made, and text that stays text in PDF and SVG.

    Signs that the default font lacks come from fonts of this machine. Those that none has are boxes in PDF and PNG; an
    SVG has them as text, for the fonts of whoever opens it.
    """
    import matplotlib
    from matplotlib.text import Text

    more = _families(frozenset("".join(text.get_text() for text in figure.findobj(Text))))
    settings: dict[Any, Any] = {
        "font.sans-serif": [_FAMILY, *more],
        "svg.fonttype": "none",
        "svg.hashsalt": "mmsa",
        "pdf.fonttype": 3 if more else 42,  # publishers want 42, which not every font of a machine can be
    }
    page = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(page, format=kind, dpi=150, metadata=_NO_TIME[kind])
    figure.set_layout_engine("none")  # it stands, and takes longer than the drawing
    return page.getvalue()


@cache
def _families(signs: frozenset[str]) -> tuple[str, ...]:
    """Fonts of this machine, as few as possible, that have what the default font lacks of these signs."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font

    def held(path: str) -> set[int]:
        try:
            return lacking & FT2Font(path).get_charmap().keys()
        except (OSError, RuntimeError):  # a damaged font, or one of coloured pictures
            return set()

    lacking = set(map(ord, signs)) - {ord("\n")}
    lacking -= held(findfont(FontProperties(family=_FAMILY)))
    if not lacking:
        return ()
    upright = [font for font in fontManager.ttflist if (font.style, font.weight) == ("normal", 400)]
    known = {font.name: held(font.fname) for font in upright if not font.name.startswith("Last Resort")}
    chosen: list[str] = []
    while best := max(sorted(known), key=lambda name: len(known[name] & lacking), default=""):
        if not known[best] & lacking:
            break
        chosen.append(best)
        lacking -= known[best]
    return tuple(chosen)


def folded(text: str, width: int, num_lines: int = 2) -> str:
    """A name on at most this many lines of this width; of a longer one the middle is left out."""
    shown = re.sub(r"\s+", " ", printable(text)).strip()
    most = num_lines * width
    while True:
        kept = shown if len(shown) <= most else f"{shown[: most // 2]}…{shown[-(most - 1) // 2 :]}"
        lines = textwrap.wrap(kept, width, break_on_hyphens=False)
        if len(lines) <= num_lines or most <= width:
            return "\n".join(lines[:num_lines])
        most -= 2


def shades(*colours: str) -> Colormap:
    """Colours of values, from that of the least to that of the largest."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", colours)


def words(text: str) -> str:
    """A name as a figure writes it: no formula."""
    return text.replace("$", r"\$")


def plain(panel: Axes) -> Axes:
    """The panel without the frame's upper and right side."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_axisbelow(True)
    return panel
