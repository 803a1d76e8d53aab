"""Shared by the figures of runs: their colours, and canvases outside pyplot, so that trials may draw side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def plain(panel: Axes) -> Axes:
    """The panel without the frame's upper and right side."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_axisbelow(True)
    return panel
