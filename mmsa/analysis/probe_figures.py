"""Figures of probed models: scores under missing inputs, and the feedback's masks by kind of utterance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mmsa.analysis import mask_words
from mmsa.analysis.corruption import WAYS, Condition
from mmsa.analysis.layout import counted
from mmsa.analysis.masks import MaskStudy
from mmsa.analysis.robustness import Probe
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.scores import Estimate
from mmsa.data.naming import data_name
from mmsa.drawing import BLUE, INK, ORANGE, canvas, plain, words
from mmsa.training.metrics import metric_mode, printed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (BLUE, ORANGE, "#4c9a5b", "#a24b7f", "#8a6d3b", "#5c6670", "#c9a227", "#3aa6a6")
LONGEST = 90  # characters of a label
_LEAST_SHARED = 10  # utterances of a kind that is drawn as a distribution; fewer are marks, one each
_PANELS = {
    "zero": "scattered steps: zeros",
    "repeat": "scattered steps: the step before",
    "stretch": "one stretch: zeros",
}


def draw_robustness(probed: Probe) -> Figure:
    """Bars for the modalities that are present, and per way of dropping a line over the rate, with its spread."""
    figure = canvas(11.0, 7.2 + 0.2 * len(probed.groups))
    panels = figure.subplot_mosaic([["present"] * len(WAYS), list(WAYS)], height_ratios=(1.0, 1.15))
    bars, *lines = map(plain, panels.values())
    _draw_subsets(bars, probed)
    for panel in lines[1:]:
        panel.sharey(lines[0])
    for way, panel in zip(WAYS, lines, strict=True):
        _draw_rates(panel, probed, way)
        panel.set_title(_PANELS[way], fontsize=10)
        panel.set_xlabel("steps dropped, of all modalities at once", fontsize=9)
        panel.tick_params(labelleft=panel is lines[0])
    lines[0].set_ylabel(printed(probed.metric))
    first = probed.groups[0].runs[0]
    better = "smaller is better" if metric_mode(probed.metric) == "min" else "larger is better"
    spread = any(len(group.runs) > 1 for group in probed.groups)
    explained = "mean over seeds, one standard deviation either way" if spread else ""
    _head(figure, first, f"{probed.fold} fold: {printed(probed.metric)}, {better}", explained)
    _legend(figure, bars)
    return figure


def draw_masks(study: MaskStudy) -> Figure:
    """Per configuration and modality the distributions of the utterances' mean masks, by kind of utterance."""
    modalities, num_rows = study.modalities, len(study.groups)
    figure = canvas(0.8 + 4.0 * len(modalities), 1.3 + 3.1 * num_rows)
    for group, part in zip(study.groups, figure.subfigures(num_rows, 1, squeeze=False)[:, 0], strict=True):
        if num_rows > 1:
            part.suptitle(_short(group.label), fontsize=10)
        for column, modality in enumerate(modalities, start=1):
            panel = plain(part.add_subplot(1, len(modalities), column))
            _draw_distribution(panel, study, group, modality)
            panel.set_xlabel("mean mask of an utterance")
            if column == 1:
                panel.set_ylabel("share of the utterances")
    first, several = study.groups[0].runs[0], any(len(group.runs) > 1 for group in study.groups)
    _head(figure, first, f"{study.fold} fold: masks of the feedback", "means over seeds" if several else "")
    _legend(figure, figure.subfigs[0].axes[0])
    return figure


def draw_mask_words(study: MaskStudy) -> Figure:
    """The masks over the words of the study's drawn utterances, at least one (see `mask_words.draw_mask_words`)."""
    first, several = study.groups[0].runs[0], any(len(group.runs) > 1 for group in study.groups)
    heading = [f"{_name(first)}, {study.fold} fold: masks of the feedback", *(["means over seeds"] if several else [])]
    return mask_words.draw_mask_words(study.groups, study.drawn, heading)


def _draw_subsets(panel: Axes, probed: Probe) -> None:
    subsets = [condition for condition in probed.conditions if condition.way == "present"]
    width = 0.8 / len(probed.groups)
    for number, group in enumerate(probed.groups):
        cells = [Estimate.of(probed.values(group, condition)) for condition in subsets]
        places = np.arange(len(subsets)) + (number - (len(probed.groups) - 1) / 2) * width
        panel.bar(
            places,
            [cell.mean for cell in cells],
            width * 0.92,
            yerr=[cell.std or 0.0 for cell in cells] if any(cell.std for cell in cells) else None,
            color=COLOURS[number % len(COLOURS)],
            ecolor=INK,
            error_kw={"linewidth": 1.0},
            label=_short(group.label),
        )
    panel.set_xticks(
        range(len(subsets)), [words(" +\n".join(condition.modalities)) for condition in subsets], fontsize=9
    )
    panel.tick_params(axis="x", length=0)
    panel.set_ylabel(printed(probed.metric))
    panel.set_title("only these modalities are present", fontsize=10)


def _draw_rates(panel: Axes, probed: Probe, way: str) -> None:
    """One line per group: every modality whose steps can be dropped at once."""
    for number, group in enumerate(probed.groups):
        known = [c for c in probed.scores[group.runs[0].folder] if c.way == way]
        if not known:
            continue
        largest = max((c.modalities for c in known), key=len)
        along: list[Condition] = [probed.clean(group.runs[0]), *(c for c in known if c.modalities == largest)]
        cells = [Estimate.of(probed.values(group, condition)) for condition in along]
        rates, means = [c.rate for c in along], np.array([cell.mean for cell in cells])
        spread = np.array([cell.std or 0.0 for cell in cells])
        colour = COLOURS[number % len(COLOURS)]
        panel.plot(rates, means, color=colour, marker="o", markersize=4, linewidth=1.6)
        panel.fill_between(rates, means - spread, means + spread, color=colour, alpha=0.18, linewidth=0)
    panel.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8], ["0", "20 %", "40 %", "60 %", "80 %"])


def _draw_distribution(panel: Axes, study: MaskStudy, group: Group, modality: str) -> None:
    shown = {kind: study.utterance_means(group, modality, kind) for kind in study.kinds}
    shown = {kind: values[np.isfinite(values)] for kind, values in shown.items()}
    everything = np.concatenate(list(shown.values())) if shown else np.empty(0)
    if not everything.size:
        panel.text(0.5, 0.5, "no utterance", transform=panel.transAxes, ha="center", color=INK)
        return
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(low, high if high > low else low + 1e-3, 16).tolist()
    for number, (kind, values) in enumerate(shown.items()):
        colour, label = COLOURS[number], f"{kind} ({counted(len(study.kinds[kind]), 'utterance')})"
        if len(values) < _LEAST_SHARED:  # their shares would be so large that nobody sees the other kinds
            marks = values.tolist() or [math.nan]
            panel.plot(marks, [0.03] * len(marks), "|", color=colour, label=label, markersize=9, markeredgewidth=1.8,
                       transform=panel.get_xaxis_transform(), zorder=3)  # fmt: skip
            continue
        share = np.full(len(values), 1.0 / len(values))
        panel.hist(values, edges, weights=share, histtype="stepfilled", color=colour, alpha=0.35, label=label)
        panel.hist(values, edges, weights=share, histtype="step", color=colour, linewidth=1.2)
        panel.axvline(float(values.mean()), color=colour, linewidth=1.5, linestyle="--")
    panel.locator_params(axis="x", nbins=5)
    difference = study.difference(group, modality)
    value = "" if difference is None else f"\n{' − '.join(study.kinds)}: {difference.text(4).replace('-', '−')}"
    panel.set_title(words(f"{modality}{value}"), fontsize=8.5)


def _head(figure: Figure, run: Run, shown: str, explained: str) -> None:
    figure.suptitle("\n".join(filter(None, [f"{_name(run)}, {shown}", explained])), parse_math=False, fontsize=11)


def _name(run: Run) -> str:
    return f"{run.dataset} (planted data)" if run.planted else data_name(run.dataset, run.data.source)


def _legend(figure: Figure, panel: Axes) -> None:
    """One legend for all panels, in a row where it fits the figure."""
    handles, labels = panel.get_legend_handles_labels()
    fits = sum(len(label) + 6 for label in labels) <= 10 * figure.get_figwidth()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, ncols=len(labels) if fits else 1)


def _short(label: str) -> str:
    return words(label if len(label) <= LONGEST else f"{label[: LONGEST - 1]}…")
