"""Figures of result tables: the score of every seed, and the differences between rows with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsa.analysis.differences import MARK, Difference
from mmsa.analysis.layout import counted, headed
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.shape import Shape
from mmsa.analysis.significance import CONFIDENCE, LEVEL, Interval
from mmsa.analysis.tables import PLANTED, Result, data_line
from mmsa.drawing import BLUE, GREY, INK, ORANGE, canvas, export, folded, plain
from mmsa.training.metrics import METRICS, is_share, metric_mode, printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ABREAST = 3
_WIDTH = 38  # signs of a line of a label, which has two
_INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
_BEYOND = 0.75  # of the span of the values may the intervals reach beyond them


def write_figures(results: Sequence[Result], shape: Shape, folder: Path) -> list[Path]:
    """Draw each table as `scores`, and where its rows are compared as `differences`, each as PDF, SVG and PNG.

    Args:
        results: the tables.
        shape: theirs.
        folder: is made where it is missing; figures of the second table end in `_2`, and so on.
    """
    paths: list[Path] = []
    for number, one in enumerate(results, start=1):
        end = f"_{number}" if number > 1 else ""
        paths += export(draw_scores(one.groups, one.metrics, shape.percent), folder, f"scores{end}")
        if one.differences:
            heading = _heading([run for group in one.groups for run in group.runs])
            paths += export(draw_differences(one.differences, shape.percent, heading), folder, f"differences{end}")
    return paths


def draw_scores(groups: Sequence[Group], metrics: Sequence[str], percent: bool = False) -> Figure:
    """Per metric a panel: a dot for each run of a row, below it the mean and its interval by Student's t.

    Args:
        groups: the rows of one table, at least one.
        metrics: names without a fold.
        percent: accuracies and F1 are drawn times 100.
    """
    labels = [f"{group.label} ({counted(len(group.runs), 'run')})" for group in groups]
    figure, panels = _forest(labels, metrics, percent)
    for panel, metric in zip(panels, metrics, strict=True):
        scale = 100.0 if percent and is_share(metric) else 1.0
        scores = [[scale * run.metrics.get(f"{run.fold}/{metric}", math.nan) for run in group.runs] for group in groups]
        for place, values in enumerate(scores):
            known = [value for value in values if math.isfinite(value)]
            panel.plot(known, [place - 0.12] * len(known), "o", color=BLUE, alpha=0.55, markersize=4.5, mew=0)
            _interval(panel, Interval.of(values), place + 0.18, INK, "|", 7.0)
        _limit(panel, [value for values in scores for value in values], [Interval.of(values) for values in scores])
    several = any(len(group.runs) > 1 for group in groups)
    over = f"; line: mean and {_INTERVAL} (Student's t over runs)" if several else ""
    runs = [run for group in groups for run in group.runs]
    _explain(figure, [*_heading(runs), f"dot: one run{over}"])
    return figure


def draw_differences(found: Sequence[Difference], percent: bool = False, heading: Sequence[str] = ()) -> Figure:
    """A forest plot, per metric a panel: each row minus its reference, and its interval over videos and seeds.

    Args:
        found: of one table, at least one.
        percent: accuracies and F1 are drawn times 100.
        heading: lines above it, such as the name of the data.
    """
    from matplotlib.lines import Line2D

    references = list(dict.fromkeys(one.reference for one in found))
    pairs = list(dict.fromkeys((one.row, one.reference) for one in found))
    metrics = list(dict.fromkeys(one.metric for one in found))
    alone = len(references) == 1
    figure, panels = _forest([row if alone else f"{row} − {other}" for row, other in pairs], metrics, percent)
    for panel, metric in zip(panels, metrics, strict=True):
        scale = 100.0 if percent and is_share(metric) else 1.0
        shown = {(one.row, one.reference): one for one in found if one.metric == metric}
        intervals = []
        panel.axvline(0.0, color=GREY, linewidth=1.0, zorder=0)
        for place, pair in enumerate(pairs):
            one, whole = shown[pair], shown[pair].difference
            intervals.append(Interval(scale * whole.mean, scale * whole.low, scale * whole.high, whole.num))
            colour = {True: BLUE, False: ORANGE, None: INK}[one.better]
            _interval(panel, intervals[-1], place, colour, "o" if one.better else "s", 6.0, one.marked)
        means = [one.mean for one in intervals if math.isfinite(one.mean)]
        _limit(panel, [0.0, *means] if means else [], intervals)
    keys: list[tuple[str, str, str, str]] = [
        (BLUE, "o", "none", "better"), (ORANGE, "s", "none", "worse"),
        (INK, "D", INK, f"filled: {MARK}, p ≤ {LEVEL} after Holm"),
    ]  # fmt: skip
    figure.legend(
        [Line2D([], [], color=colour, marker=sign, linestyle="", mfc=fill) for colour, sign, fill, _ in keys],
        [text for *_, text in keys], loc="outside lower center", ncols=3, frameon=False, fontsize=8,
    )  # fmt: skip
    against = f"each row minus {folded(references[0], 90, 1)}" if alone else "each row minus another"
    over = "over videos and seeds" if any(one.num_seeds > 1 for one in found) else "over videos"
    lesser = list(dict.fromkeys(printed(one.metric) for one in found if one.test == "t over seeds"))
    over += f"; of {', '.join(lesser)} over seeds alone" if lesser else ""
    _explain(figure, [*heading, f"{against}, with its {_INTERVAL} {over}"])
    return figure


def _forest(labels: Sequence[str], metrics: Sequence[str], percent: bool) -> tuple[Figure, list[Axes]]:
    """A panel per metric, in which the labels stand one below the other."""
    names = [folded(label, _WIDTH) for label in labels]
    abreast = min(_ABREAST, len(metrics))
    downward = -(-len(metrics) // abreast)
    width = 0.075 * max(len(line) for name in names for line in [*name.splitlines(), ""])
    height = sum(0.34 if "\n" in name else 0.27 for name in names)
    figure = canvas(0.6 + width + 2.5 * abreast, 0.9 + downward * (0.75 + height))
    grid = figure.subplots(downward, abreast, sharey=True, squeeze=False).ravel().tolist()
    for panel in grid[len(metrics) :]:
        panel.remove()
    panels: list[Axes] = grid[: len(metrics)]
    for panel, metric in zip(panels, metrics, strict=True):
        plain(panel)
        name = f"{printed(metric)}{' %' if percent and is_share(metric) else ''}"
        title = headed(name, metric_mode(metric)) if metric in METRICS else folded(name, 34)
        panel.set_title(title, fontsize=9.5, parse_math=False)
        panel.set_yticks(range(len(names)), names, fontsize=8.5, parse_math=False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=8)
        panel.locator_params(axis="x", nbins=5)
        panel.grid(axis="y", color=GREY, alpha=0.35, linewidth=0.6)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure, panels


def _interval(
    panel: Axes, one: Interval, place: float, colour: str, sign: str, size: float, filled: bool = True
) -> None:
    """A mean with its interval, if it has one; a row without a mean has a dash."""
    if not math.isfinite(one.mean):
        panel.text(0.5, place, "–", transform=panel.get_yaxis_transform(), ha="center", va="center", color=INK)
        return
    if math.isfinite(one.low):
        panel.plot([one.low, one.high], [place] * 2, color=colour, linewidth=1.4, solid_capstyle="butt")
    fill = colour if filled else "white"
    panel.plot(one.mean, place, sign, color=colour, markersize=size, markerfacecolor=fill, markeredgewidth=1.3)


def _limit(panel: Axes, values: Iterable[float], intervals: Sequence[Interval]) -> None:
    """Show all values; an interval that is far wider than they are, as of two seeds, leaves the panel."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        panel.set_xticks([])
        return
    low, high = min(known), max(known)
    spare = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9)
    least = min((one.low for one in intervals if math.isfinite(one.low)), default=low)
    most = max((one.high for one in intervals if math.isfinite(one.high)), default=high)
    reach = max(low - least, most - high, 0.0)
    edge = min(reach + 0.06 * spare, _BEYOND * spare) if len(known) > 2 else reach + 0.1 * spare
    panel.set_xlim(low - edge, high + edge)


def _heading(runs: Sequence[Run]) -> list[str]:
    return [data_line(runs, runs[0].fold), *([PLANTED] if runs[0].planted else [])]


def _explain(figure: Figure, lines: Iterable[str]) -> None:
    wide = int(14 * figure.get_figwidth())
    shown = "\n".join(folded(line, wide) for line in lines)
    figure.suptitle(shown, fontsize=9, parse_math=False)
