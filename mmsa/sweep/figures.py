"""Figures of a study, as Optuna draws them: its course, which parameters matter, and where its good trials lie."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from optuna.trial import FrozenTrial

from mmsa.drawing import BLUE, ORANGE, save
from mmsa.sweep.summary import Summary, summarise

_LEAST_TRIALS = 2
_FOR_IMPORTANCE = 10
"""Trials below which the importance of a parameter is noise."""
_NAMED = 12  # trials of a front whose numbers a figure can hold


def write_study_figures(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw a study's figures as PNG files into `folder`; one that cannot be drawn yet is left out.

    Args:
        study: a study of ours.
        folder: is made where it is missing.
    """
    summary = summarise(study)
    written = []
    for name, draw in _due(study, summary):
        try:
            with _pyplot():
                panel = draw()
                panel.set_title("", loc="left")  # one of Optuna's titles stands there
                panel.set_title(_title(summary), fontsize=11, parse_math=False)
                folder.mkdir(parents=True, exist_ok=True)
                save(pyplot.gcf(), folder / name, bbox_inches="tight")
                written.append(folder / name)
        # A figure shows what the study holds anyway: an odd value, a full disk or a font must not end a sweep.
        except Exception:  # noqa: BLE001
            continue
    return written


@contextmanager
def _pyplot() -> Iterator[None]:
    """Optuna draws with pyplot: without a screen, and so that neither its style nor a figure outlives the drawing."""
    backend, others = matplotlib.get_backend(), set(pyplot.get_fignums())
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # Optuna's, that these drawings are experimental, and Matplotlib's on ranges
        matplotlib.use("agg")
        try:
            yield
        finally:
            for number in set(pyplot.get_fignums()) - others:
                pyplot.close(number)
            matplotlib.use(backend)


def _due(study: optuna.Study, summary: Summary) -> Iterator[tuple[str, Callable[[], Axes]]]:
    """The figures for which the study has enough trials: name of the file, and what draws it."""
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if len(done) >= _LEAST_TRIALS:
        for place in range(len(summary.objectives)):
            number = f"_{place + 1}" if place else ""
            yield f"history{number}.png", partial(_history, study, summary, place)
            if len(done) >= _FOR_IMPORTANCE and len(summary.varying()) > 1:
                yield f"importances{number}.png", partial(_importances, study, summary, place)
        if len(summary.varying()) > 1:
            yield "parallel_coordinates.png", partial(_coordinates, study, summary, done)
        if len(summary.objectives) == 2:
            yield "pareto_front.png", partial(_front, study, summary)
    lengths = sorted(len(trial.intermediate_values) for trial in trials if trial.state.name != "FAIL")
    if len(lengths) >= _LEAST_TRIALS and lengths[-1] > 1 and lengths[-2] > 0:
        yield "curves.png", partial(_curves, study, summary)


def _history(study: optuna.Study, summary: Summary, place: int) -> Axes:
    """Every trial's value by its number, and the best so far."""
    panel = optuna.visualization.matplotlib.plot_optimization_history(
        _alone(study, place), target_name=_labels(summary)[place]
    )
    _limit(panel, [row.values[place] for row in summary.rows if row.values], summary.modes[place])
    return panel


def _importances(study: optuna.Study, summary: Summary, place: int) -> Axes:
    """Which parameters tell good trials from the others (PED-ANOVA)."""
    panel = optuna.visualization.matplotlib.plot_param_importances(
        _alone(study, place), target_name=summary.objectives[place]
    )
    pyplot.gcf().set_size_inches(7.2, 1.5 + 0.42 * len(panel.get_yticks()))
    return panel


def _coordinates(study: optuna.Study, summary: Summary, done: Sequence[FrozenTrial]) -> Axes:
    """A line per trial through the values of its parameters; the darker, the better."""
    columns = zip(*(trial.values for trial in done), strict=True)
    spans = [visible_range(values, mode) for values, mode in zip(columns, summary.modes, strict=True)]
    shown = optuna.create_study(directions=study.directions)
    for trial in done:
        if all(low <= value <= high for (low, high), value in zip(spans, trial.values, strict=True)):
            shown.add_trial(trial)
    panel = optuna.visualization.matplotlib.plot_parallel_coordinate(shown, target_name=_labels(summary)[0])
    names = [*_labels(summary), *sorted({name for trial in shown.trials for name in trial.params})]
    panel.set_xticks(range(len(names)), names, rotation=330, ha="left", parse_math=False)
    pyplot.gcf().set_size_inches(2.6 + 1.5 * len(names), 4.8)
    for axis in panel.figure.axes[2:]:  # after the objective and the colours
        axis.tick_params(axis="y", labelsize=8)
        for tick in axis.get_yticklabels():
            tick.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})
    return panel


def _curves(study: optuna.Study, summary: Summary) -> Axes:
    """The monitored metric by epoch; the best trial stands out."""
    panel = optuna.visualization.matplotlib.plot_intermediate_values(study)
    if legend := panel.get_legend():
        legend.remove()  # which has an entry per trial
    best = {f"Trial{row.number}" for row in summary.best}
    for line in panel.lines:
        line.set(color=BLUE, alpha=0.25)
        if line.get_label() in best:
            line.set(color=ORANGE, alpha=1.0, zorder=3)
    _limit(panel, [value for line in panel.lines for value in np.asarray(line.get_ydata())], summary.modes[0])
    panel.set(xlabel="epoch (orange: the best)", ylabel=_labels(summary)[0])
    return panel


def _front(study: optuna.Study, summary: Summary) -> Axes:
    """Two objectives against each other."""
    panel = optuna.visualization.matplotlib.plot_pareto_front(study, target_names=_labels(summary))
    for row in summary.best[:_NAMED]:
        panel.annotate(
            str(row.number), (row.values[0], row.values[1]), textcoords="offset points", xytext=(5, 5), fontsize=8
        )
    return panel


def _alone(study: optuna.Study, place: int) -> optuna.Study:
    """The study as if one of its objectives were the only one."""
    if len(study.directions) == 1:
        return study
    alone = optuna.create_study(direction=study.directions[place])
    for trial in study.get_trials():
        if trial.values is not None:
            trial.values = [trial.values[place]]
        alone.add_trial(trial)
    return alone


def _limit(panel: Axes, values: Sequence[float], mode: str) -> None:
    """Show the visible range of the values, with an edge."""
    low, high = visible_range(values, mode)
    edge = 0.06 * (high - low) or 0.5
    panel.set_ylim(low - edge, high + edge)


def visible_range(values: Sequence[float], mode: str) -> tuple[float, float]:
    """Lowest and highest value to show: all of the good side, and no diverged trial that would flatten the others."""
    ordered = sorted(value for value in values if math.isfinite(value))
    middle, best = ordered[len(ordered) // 2], ordered[0] if mode == "min" else ordered[-1]
    reach = 4.0 * abs(middle - best)
    if not reach:
        return ordered[0], ordered[-1]
    kept = [value for value in ordered if abs(value - best) <= reach]
    return kept[0], kept[-1]


def _title(summary: Summary) -> str:
    name = summary.study if len(summary.study) <= 44 else f"{summary.study[:43]}…"
    data = "planted data" if summary.planted else summary.source
    return f"study {name}, {summary.dataset}" + (f"\n({data})" if data else "")


def _labels(summary: Summary) -> list[str]:
    """The objectives, and which way they are better."""
    return [
        f"{name} {'↓' if mode == 'min' else '↑'}" for name, mode in zip(summary.objectives, summary.modes, strict=True)
    ]
