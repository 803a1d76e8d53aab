"""Figures of one run, drawn from the files of its folder: learning curves, predictions, and the baselines beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa.data.naming import data_name
from mmsa.drawing import BLUE, GREY, INK, ORANGE, canvas, plain, save, words
from mmsa.record import RunRecord
from mmsa.run_folder import read_rows
from mmsa.training.metrics import METRICS, metric_mode, printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_figures(folder: Path, record: RunRecord) -> list[Path]:
    """Draw the figures of a run as PNG files into `folder/figures`; missing content is left out.

    Args:
        folder: a run folder with history.csv and predictions.csv.
        record: the run's record.

    Raises:
        OSError: the folder cannot be written.
    """
    drawings: dict[str, Callable[[Path, RunRecord], Figure | None]] = {
        "learning_curves.png": _learning_curves,
        "predictions.png": _predictions,
        "baselines.png": _baselines,
    }
    written = []
    (folder / "figures").mkdir(exist_ok=True)
    for name, draw in drawings.items():
        figure = draw(folder, record)
        if figure is not None:
            figure.suptitle(run_title(record), parse_math=False)
            save(figure, folder / "figures" / name)
            written.append(folder / "figures" / name)
    return written


def _learning_curves(folder: Path, record: RunRecord) -> Figure | None:
    epochs = read_rows(folder / "history.csv")
    history = {name: np.array([_number(row[name]) for row in epochs]) for name in (epochs[0] if epochs else ())}
    monitor = record.monitor
    shown: list[str] = [name for name in ("train/loss", "valid/loss") if name in history]
    if "epoch" not in history or not shown:
        return None
    from matplotlib.ticker import MaxNLocator

    panels = [shown] if monitor in shown or monitor not in history else [shown, [monitor]]
    figure, axes = _panels(4.6 * len(panels) + 0.4, 3.6, len(panels))
    best = record.best_epoch
    for panel, names in zip(axes, panels, strict=True):
        for name in names:
            colour = BLUE if name.startswith("train/") else ORANGE
            panel.plot(history["epoch"], history[name], color=colour, marker="o", markersize=3, label=_label(name))
        if best is not None and best in history["epoch"]:
            row = int(np.flatnonzero(history["epoch"] == best)[0])
            panel.axvline(best, color=GREY, linewidth=1, linestyle="--", zorder=0)
            label = f"best epoch: {best}"
            value = history[names[-1]][row]
            panel.plot(best, value, "o", markersize=9, markerfacecolor="none", color=INK, label=label)
        panel.set_xlabel("epoch")
        panel.set_ylabel("loss" if names is shown else _label(names[0]))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend(frameon=False)
    return figure


def _predictions(folder: Path, record: RunRecord) -> Figure | None:
    if not any(name.endswith("/mae") for name in record.metrics):
        return None
    fold = record.fold
    rows = read_rows(folder / "predictions.csv")
    pairs = [(_number(row.get("target")), _number(row.get("prediction"))) for row in rows if row.get("fold") == fold]
    points = np.array([pair for pair in pairs if all(map(math.isfinite, pair))])  # (N, 2)
    if not points.size:
        return None
    figure, (panel,) = _panels(5.0, 5.0, 1)
    low, high = float(points.min()), float(points.max())
    edge = 0.05 * max(high - low, 1.0)
    span = (low - edge, high + edge)
    panel.plot(span, span, color=GREY, linewidth=1.2, label="prediction = label", zorder=0)
    size = 14 if len(points) < 2000 else 5
    panel.scatter(points[:, 0], points[:, 1], s=size, color=BLUE, alpha=0.45, linewidths=0)
    panel.set(xlim=span, ylim=span, aspect="equal", xlabel="label", ylabel="prediction")
    error = float(np.abs(points[:, 1] - points[:, 0]).mean())
    panel.set_title(f"{fold} fold, {len(points):,} utterances, MAE {error:.3f}", fontsize=11)
    panel.legend(frameon=False, loc="upper left")
    return figure


def _baselines(folder: Path, record: RunRecord) -> Figure | None:
    metric = record.primary[0]
    fold = record.fold
    name = f"{fold}/{metric}"
    scores = {label: _number(found.get(name)) for label, found in record.baselines.items()}
    if not scores or name not in record.metrics:
        return None
    scores["this model"] = _number(record.metrics[name])
    better_last = metric in METRICS and metric_mode(metric) == "min"
    finite = [(value, label) for label, value in scores.items() if math.isfinite(value)]
    bars = sorted(finite, reverse=better_last)  # the best bar is on top
    if not bars:
        return None
    figure, (panel,) = _panels(6.4, 1.5 + 0.42 * len(bars), 1)
    colours = [ORANGE if label == "this model" else GREY for _, label in bars]
    drawn = panel.barh([words(label) for _, label in bars], [value for value, _ in bars], color=colours, height=0.68)
    panel.bar_label(drawn, fmt="%.3f", padding=4)
    panel.margins(x=0.14)
    panel.tick_params(axis="y", length=0)
    direction = "smaller is better" if better_last else "larger is better"
    panel.set_xlabel(f"{_label(metric)} on the {fold} fold ({direction})")
    return figure


def _panels(width: float, height: float, number: int) -> tuple[Figure, tuple[Axes, ...]]:
    """A figure with panels side by side."""
    figure = canvas(width, height)
    return figure, tuple(plain(figure.add_subplot(1, number, place + 1)) for place in range(number))


def run_title(record: RunRecord) -> str:
    """The run's name, and below it that of its data."""
    data = "(planted data)" if record.planted else data_name(record.dataset, record.data.source)
    return "\n".join(line if len(line) <= 44 else f"{line[:43]}…" for line in (record.name, data))


def _label(name: str) -> str:
    fold, _, metric = name.rpartition("/")
    return words(f"{fold} {printed(metric)}" if fold else printed(metric))


def _number(text: Any) -> float:
    """A number of a table; an empty or foreign cell is NaN and drawn as a gap."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
