"""Shared by the figures of runs: their colours, and canvases outside pyplot, so that trials may draw side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa.files import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#2f6fb3", "#d9772b", "#b4bac2", "#30353b"


def canvas(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure as PNG; a link in the file's place is replaced, not followed."""
    with written(path) as file:
        figure.savefig(file, format="png", dpi=150, **options)


def words(text: str) -> str:
    """A name as a figure writes it: no formula."""
    return text.replace("$", r"\$")


def plain(panel: Axes) -> Axes:
    """The panel without the frame's upper and right side."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_axisbelow(True)
    return panel
