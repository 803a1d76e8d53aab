"""Parallel coordinates of trials: an axis per objective and parameter, a line per trial."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmsa.drawing import BLUE, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_FAINT = "#dfe4ea"


@dataclass(frozen=True)
class Scale:
    """Where a value stands between the lower (0) and the upper (1) end of an axis, and the ticks beside it."""

    low: float
    high: float
    log: bool = False
    choices: tuple[Any, ...] = ()

    def height(self, value: Any) -> float:
        """NaN where a trial has no value."""
        if value is None:
            return math.nan
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high, at = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return min(max((at - low) / (high - low), -0.04), 1.04) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Height and text."""
        if self.choices:
            return [(self.height(choice), _short(str(choice))) for choice in self.choices]
        if not self.high > self.low:
            return [(0.5, f"{self.low:.3g}")]
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            ends = [] if len(powers) > 1 else [self.low, self.high]
            return [(self.height(value), f"{value:.3g}") for value in (*ends, *(10.0**power for power in powers))]
        values = [self.low + part * (self.high - self.low) for part in (0, 0.25, 0.5, 0.75, 1)]
        return [(self.height(value), f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}") for value in values]


def draw_coordinates(
    panel: Axes, trials: Sequence[FrozenTrial], best: Collection[int], objectives: Mapping[str, tuple[float, float]]
) -> None:
    """Draw the lines of trials, and the axes with their ticks and names.

    Args:
        panel: an empty panel.
        trials: done ones, the best last, which lies on top.
        best: numbers of the trials that stand out.
        objectives: name -> lowest and highest value to show, in the order of the trials' values.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    parameters = _scales(trials)
    scales = [*(Scale(low, high) for low, high in objectives.values()), *parameters.values()]
    lines = []
    for trial in trials:
        values = [*trial.values, *(trial.params.get(name) for name in parameters)]
        lines.append(
            [(place, scale.height(value)) for place, (scale, value) in enumerate(zip(scales, values, strict=True))]
        )
    shades = LinearSegmentedColormap.from_list("shades", [_FAINT, BLUE])
    colours: list[Any] = [shades((rank + 1) / len(trials)) for rank in range(len(trials))]
    colours = [ORANGE if trial.number in best else colour for trial, colour in zip(trials, colours, strict=True)]
    widths = [2.4 if trial.number in best else 1.1 for trial in trials]
    panel.add_collection(LineCollection(lines, colors=colours, linewidths=widths))
    for place, scale in enumerate(scales):
        panel.axvline(place, color=INK, linewidth=0.8)
        for height, text in scale.ticks():
            panel.plot(place, height, "_", color=INK, markersize=7, markeredgewidth=0.8)
            box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
            panel.text(place + 0.06, height, text, fontsize=8, va="center", color=INK, bbox=box, parse_math=False)
    names = [re.sub(r"([./])(?=.)", r"\1\n", name) for name in (*objectives, *parameters)]
    panel.set(xlim=(-0.15, len(scales) - 0.55), ylim=(-0.06, 1.06), yticks=[])
    panel.set_xticks(range(len(scales)), names, fontsize=9, parse_math=False)
    panel.tick_params(axis="x", length=0)
    panel.spines[["top", "right", "left", "bottom"]].set_visible(False)
    panel.set_title("orange: the best; the darker, the better", fontsize=9, loc="left")


def _scales(trials: Sequence[FrozenTrial]) -> dict[str, Scale]:
    """An axis per parameter, over all that was searched; where a space was changed, over both."""
    found: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            found.setdefault(name, []).append(distribution)
    return {name: _scale(distributions) for name, distributions in found.items()}


def _scale(distributions: Sequence[Any]) -> Scale:
    if all(hasattr(distribution, "choices") for distribution in distributions):
        choices = dict.fromkeys(choice for distribution in distributions for choice in distribution.choices)
        return Scale(0.0, 1.0, choices=tuple(choices))
    low = min(float(distribution.low) for distribution in distributions)
    high = max(float(distribution.high) for distribution in distributions)
    return Scale(low, high, log=all(distribution.log for distribution in distributions))


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"
