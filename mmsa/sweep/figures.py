"""Figures of a study: its course, which parameters matter, and where its good trials lie."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmsa.drawing import BLUE, GREY, INK, ORANGE, canvas, plain
from mmsa.sweep.coordinates import draw_coordinates
from mmsa.sweep.summary import Summary, TrialRecord, summarise

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

_LEAST_TRIALS = 2
_FOR_IMPORTANCE = 10
"""Trials below which the importance of a parameter is noise."""
_CURVES = 100  # curves that a figure can hold
_NAMED = 12  # trials of a front whose numbers a figure can hold


@dataclass(frozen=True)
class _Drawn:
    """What the figures show: one snapshot of a study."""

    study: optuna.Study
    summary: Summary
    trials: Mapping[int, FrozenTrial]

    @property
    def done(self) -> list[TrialRecord]:
        return [row for row in self.summary.rows if row.state == "done"]


def write_study_figures(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw a study's figures as PNG files into `folder`; one that cannot be drawn yet is left out.

    Args:
        study: a study of ours.
        folder: is made where it is missing.
    """
    shown = _Drawn(study, summarise(study), {trial.number: trial for trial in study.get_trials(deepcopy=False)})
    drawings: dict[str, Callable[[_Drawn], Figure | None]] = {
        "history.png": _history,
        "importances.png": _importances,
        "parallel_coordinates.png": _coordinates,
        "curves.png": _curves,
        "pareto_front.png": _front,
    }
    written = []
    for name, draw in drawings.items():
        try:
            figure = draw(shown)
            if figure is not None:
                folder.mkdir(parents=True, exist_ok=True)
                figure.savefig(folder / name, dpi=150)
                written.append(folder / name)
        # A figure shows what the study holds anyway: an odd value, a full disk or a font must not end a sweep.
        except Exception:  # noqa: BLE001
            continue
    return written


def _history(shown: _Drawn) -> Figure | None:
    """Every trial's value by its number, and the best so far."""
    done, summary = shown.done, shown.summary
    if len(done) < _LEAST_TRIALS:
        return None
    number = len(summary.objectives)
    figure = canvas(7.2, 1.0 + 3.2 * number)
    for place, (name, mode) in enumerate(zip(summary.objectives, summary.modes, strict=True)):
        panel = plain(figure.add_subplot(number, 1, place + 1))
        values = [row.values[place] for row in done]
        low, high = visible_range(values, mode)
        inside = [(row.number, value) for row, value in zip(done, values, strict=True) if low <= value <= high]
        _points(panel, inside)
        best = _best_so_far(values, mode)
        panel.step([row.number for row in done], best, where="post", color=ORANGE, linewidth=2, label="best so far")
        _mark_ends(panel, shown)
        edge = 0.06 * (high - low) or 0.5
        panel.set(ylim=(low - 2 * edge, high + edge), ylabel=_label(name, mode))
        if len(inside) < len(values):
            panel.set_title(f"{len(values) - len(inside)} worse trials lie outside", fontsize=9, loc="right")
        panel.margins(x=0.03)
        _thousands(panel, summary.objectives[place], "y")
        panel.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
    panel.set_xlabel("trial")
    figure.suptitle(_title(summary), parse_math=False)
    return figure


def _points(panel: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Trials as points."""
    across, up = zip(*points, strict=True)
    panel.scatter(across, up, s=18, color=BLUE, alpha=0.6, linewidths=0, label="trial")


def _mark_ends(panel: Axes, shown: _Drawn) -> None:
    """Marks at the lower edge for trials that have no value."""
    for state, marker, colour in (("pruned", "|", GREY), ("failed", "x", INK)):
        numbers = [row.number for row in shown.summary.rows if row.state == state]
        if numbers:
            heights = [0.02] * len(numbers)
            place = panel.get_xaxis_transform()
            panel.plot(numbers, heights, marker, color=colour, transform=place, markersize=6, label=state)


def _importances(shown: _Drawn) -> Figure | None:
    """Which parameters tell good trials from the others (PED-ANOVA)."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    summary = shown.summary
    if len(shown.done) < _FOR_IMPORTANCE or len(summary.varying()) < 2:
        return None
    found: list[dict[str, float]] = []
    for place in range(len(summary.objectives)):

        def loss(trial: FrozenTrial, place: int = place) -> float:
            return float(trial.values[place]) * (1.0 if summary.modes[place] == "min" else -1.0)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a smaller value has to be the better one, as it is here
            found.append(get_param_importances(shown.study, evaluator=PedAnovaImportanceEvaluator(), target=loss))
    names = sorted(found[0], key=lambda name: found[0][name])
    figure = canvas(4.4 * len(found) + 2.2, 1.5 + 0.42 * len(names))
    for place, scores in enumerate(found):
        panel = plain(figure.add_subplot(1, len(found), place + 1))
        shares = [scores.get(name, 0.0) for name in names]
        bars = panel.barh(names, shares, color=BLUE, height=0.68)
        panel.bar_label(bars, labels=[f"{share:.0%}" for share in shares], padding=4)
        panel.tick_params(axis="y", length=0, labelleft=place == 0)
        panel.set(xlim=(0, 1.14 * max(shares)), xticks=[])
        panel.spines["bottom"].set_visible(False)
        panel.set_xlabel(f"importance for {summary.objectives[place]}")
    figure.suptitle(_title(summary), parse_math=False)
    return figure


def _coordinates(shown: _Drawn) -> Figure | None:
    """A line per trial through the values of its parameters; the darker, the better."""
    summary = shown.summary
    if len(shown.done) < _LEAST_TRIALS or len(summary.varying()) < 2:
        return None
    trials = [shown.trials[row.number] for row in reversed(summary.ranked())]
    figure = canvas(2.6 + 1.5 * (len(summary.varying()) + len(summary.objectives)), 4.6)
    panel = figure.add_subplot()
    names = [_label(name, mode) for name, mode in zip(summary.objectives, summary.modes, strict=True)]
    spans = [visible_range([trial.values[place] for trial in trials], mode) for place, mode in enumerate(summary.modes)]
    best = {row.number for row in summary.best}
    draw_coordinates(panel, trials, best, dict(zip(names, spans, strict=True)))
    figure.suptitle(_title(summary), parse_math=False)
    return figure


def _curves(shown: _Drawn) -> Figure | None:
    """The monitored metric by epoch: of the best trial, the others, and the pruned ones."""
    summary = shown.summary
    best = {row.number for row in summary.best}
    rows = [row for row in summary.rows if row.state in ("done", "pruned")][-_CURVES:]
    rows += [row for row in summary.best if row not in rows]
    curves = {row: sorted(shown.trials[row.number].intermediate_values.items()) for row in rows}
    curves = {row: points for row, points in curves.items() if len(points) > 1 or row.state == "pruned"}
    if len(curves) < _LEAST_TRIALS or not any(len(points) > 1 for points in curves.values()):
        return None
    from matplotlib.ticker import MaxNLocator

    figure = canvas(7.2, 4.2)
    panel = plain(figure.add_subplot())
    labels: set[str] = set()
    for row, points in sorted(curves.items(), key=lambda item: (item[0].number in best, item[0].state == "pruned")):
        label = "best trial" if row.number in best else row.state
        colour = {"best trial": ORANGE, "done": BLUE, "pruned": INK}[label]
        strength = {"best trial": 1.0, "done": 0.25, "pruned": 0.6}[label]
        panel.plot(
            *zip(*points, strict=True),
            color=colour,
            alpha=strength,
            linewidth=2.2 if label == "best trial" else 1.0,
            marker="o" if label == "pruned" else None,
            markevery=[-1],
            markersize=4,
            label=None if label in labels else label,
        )
        labels.add(label)
    low, high = visible_range([value for points in curves.values() for _, value in points], summary.modes[0])
    edge = 0.04 * (high - low) or 0.5
    panel.set(xlabel="epoch", ylabel=_label(summary.objectives[0], summary.modes[0]), ylim=(low - edge, high + edge))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
    figure.suptitle(_title(summary), parse_math=False)
    return figure


def _front(shown: _Drawn) -> Figure | None:
    """Two objectives against each other."""
    summary = shown.summary
    if len(summary.objectives) != 2 or len(shown.done) < _LEAST_TRIALS:
        return None
    figure = canvas(6.2, 5.0)
    panel = plain(figure.add_subplot())
    others = [(row.values[0], row.values[1]) for row in shown.done if row not in summary.best]
    if others:
        _points(panel, others)
    front = sorted((row.values[0], row.values[1], row.number) for row in summary.best)
    panel.plot(
        [point[0] for point in front],
        [point[1] for point in front],
        "o-",
        color=ORANGE,
        markersize=6,
        label="Pareto front",
    )
    for x, y, number in front[:_NAMED]:
        panel.annotate(str(number), (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8, color=INK)
    labels = [_label(name, mode) for name, mode in zip(summary.objectives, summary.modes, strict=True)]
    panel.set(xlabel=labels[0], ylabel=labels[1])
    for name, axis in zip(summary.objectives, ("x", "y"), strict=True):
        _thousands(panel, name, axis)
    panel.legend(frameon=False, fontsize=9)
    figure.suptitle(_title(summary), parse_math=False)
    return figure


def visible_range(values: Sequence[float], mode: str) -> tuple[float, float]:
    """Lowest and highest value to show: all of the good side, and no diverged trial that would flatten the others."""
    ordered = sorted(value for value in values if math.isfinite(value))
    middle, best = ordered[len(ordered) // 2], ordered[0] if mode == "min" else ordered[-1]
    reach = 4.0 * abs(middle - best)
    if not reach:
        return ordered[0], ordered[-1]
    kept = [value for value in ordered if abs(value - best) <= reach]
    return kept[0], kept[-1]


def _thousands(panel: Axes, objective: str, axis: str) -> None:
    """Large counts with their thousands apart."""
    if objective == "num_parameters":
        getattr(panel, f"{axis}axis").set_major_formatter("{x:,.0f}")


def _best_so_far(values: Sequence[float], mode: str) -> list[float]:
    best: list[float] = []
    for value in values:
        best.append(value if not best else min(best[-1], value) if mode == "min" else max(best[-1], value))
    return best


def _title(summary: Summary) -> str:
    name = summary.name if len(summary.name) <= 44 else f"{summary.name[:43]}…"
    return f"study {name}, {summary.dataset}" + ("\n(planted data)" if summary.planted else "")


def _label(name: str, mode: str) -> str:
    return f"{name} {'↓' if mode == 'min' else '↑'}"
