"""The masks of a feedback over the words of single utterances, as a heat map."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from mmsa.analysis.comparison import TrainedRun
from mmsa.analysis.runs import Group
from mmsa.data.batches import Fold
from mmsa.data.inputs import PieceInput
from mmsa.drawing import BLUE, GREY, ORANGE, canvas, folded, shades
from mmsa.errors import ConfigError, printable
from mmsa.training.metrics import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT = "text"
_OF_A_KIND = 2
_ABREAST = 24  # words of a line
_MOST_LINES = 4
_LONGEST = 14  # signs of a word
_LEAST_REACH = 0.02


@dataclass(frozen=True)
class WordMasks:
    """The masks of one utterance, step by step.

    Args:
        name: its id.
        about: its kind and label, in words.
        words: those that were read; None where steps have no words.
        of_words: modalities whose steps are the words.
        means: by the run's folder, modality -> (T,) means over the features, in [0, 1]; T is 0 where it is absent.
    """

    name: str
    about: str
    words: Sequence[str] | None
    of_words: frozenset[str]
    means: Mapping[Path, Mapping[str, Array]]


def chosen(fold: Fold, kinds: Mapping[str, Sequence[str]], named: Sequence[str]) -> list[str]:
    """The utterances to draw: the named ones; else two of each kind, whose lengths are nearest to the kind's median.

    The masks decide nothing.

    Raises:
        ConfigError: the fold has no utterance of a name.
    """
    steps = dict(zip(reversed(fold.ids), reversed(fold.steps.tolist()), strict=True))
    for name in named:
        if name not in steps:
            close = difflib.get_close_matches(name, steps, n=1) or list(steps)[-1:]
            raise ConfigError(
                f"--utterance {printable(name)}: the {fold.name} fold has no such utterance.\n"
                f"  type --utterance '{printable(close[0])}', or another id of predictions.csv"
            )
    if named:
        return list(dict.fromkeys(named))
    typical: list[str] = []
    for names in kinds.values():
        middle = float(np.median([steps[name] for name in names])) if names else 0.0
        typical += sorted(names, key=lambda name: abs(steps[name] - middle))[:_OF_A_KIND]
    return list(dict.fromkeys(typical))


@torch.no_grad()
def step_masks(run: TrainedRun, fold: Fold, names: Sequence[str]) -> dict[str, dict[str, Array]]:
    """The mask of each step of these utterances, mean over features, by utterance and modality."""
    places = [fold.ids.index(name) for name in names]
    batch = fold.batch(np.array(places))
    found: dict[str, dict[str, Array]] = {name: {} for name in names}
    for modality, mask in run.model.eval()(batch).feedback.items():
        means = mask.double().mean(dim=2).numpy()  # (B, T)
        for name, values, steps in zip(names, means, batch.lengths[modality].tolist(), strict=True):
            found[name][modality] = values[:steps]
    return found


class Worded(NamedTuple):
    """The words of an utterance's steps, None without any, and the modalities whose steps they are."""

    words: Sequence[str] | None
    of_words: frozenset[str]


def worded(run: TrainedRun, fold: Fold, name: str) -> Worded:
    """The words that a run reads of an utterance; other modalities have them where all share one time axis."""
    data, place = run.data, fold.ids.index(name)
    row, aligned, words = int(fold.rows[place]), data.aligned, data.store.words
    steps = {m: int(lengths[place]) for m, lengths in fold.lengths.items()}
    axis = next((m for m in (TEXT, *steps) if steps.get(m) and (m == TEXT or aligned)), None)
    if words is None or axis is None or data.loading.resample not in (None, axis):
        return Worded(None, frozenset())
    in_pieces = isinstance(fold.streams[axis], PieceInput)
    if not in_pieces and len(words[row]) != data.store.features[axis].lengths[row]:  # the source does not align them
        return Worded(None, frozenset())
    return Worded(words[row][: steps[axis]], frozenset(m for m in steps if m == axis or aligned))


def draw_mask_words(groups: Sequence[Group], utterances: Sequence[WordMasks], heading: Sequence[str]) -> Figure:
    """A heat map per utterance and row of runs, the masks averaged over the runs: a line per modality, along its words.

    A long utterance continues in further maps, up to 96 words. Modalities whose steps are no words have maps of their
    own, along their steps.

    Args:
        groups: the rows, at least one.
        utterances: at least one.
        heading: lines above.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    strips = [strip for one in utterances for group in groups for strip in _strips(one, group, len(groups) > 1)]
    known = np.concatenate([np.zeros(0), *(strip.values.ravel() for strip in strips)])
    known = known[np.isfinite(known)]
    reach = max(float(np.abs(known - 0.5).max(initial=0.0)), _LEAST_REACH)
    scale = Normalize(0.5 - reach, 0.5 + reach)
    colours = shades(BLUE, "#f7f7f5", ORANGE).with_extremes(bad=GREY)
    wide = max([8, *(strip.values.shape[1] for strip in strips if strip.words is not None)])
    figure = canvas(2.2 + 0.37 * max(wide, 14), 0.9 + sum(strip.height for strip in strips))
    ratios = [strip.height for strip in strips]
    panels = figure.subplots(len(strips), 1, squeeze=False, height_ratios=ratios)[:, 0].tolist()
    for panel, strip in zip(panels, strips, strict=True):
        num = strip.values.shape[1]
        panel.imshow(strip.values, cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
        panel.set_yticks(range(len(strip.modalities)), [folded(m, 16, 1) for m in strip.modalities], fontsize=8)
        panel.set_title(strip.title, fontsize=8.5, loc="left", parse_math=False)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        if strip.words is None:
            panel.set_xticks([0, num - 1] if num > 1 else [0], ["step 1", str(num)][: min(num, 2)], fontsize=7.5)
            continue
        shown = [word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…" for word in map(printable, strip.words)]
        panel.set_xlim(-0.5, wide - 0.5)
        panel.set_xticks(
            range(num), shown, fontsize=7.5, parse_math=False, rotation=35, ha="right", rotation_mode="anchor"
        )
        panel.set_xticks(np.arange(num + 1) - 0.5, minor=True)
        panel.grid(axis="x", which="minor", color="white", linewidth=0.8)
        panel.tick_params(which="minor", length=0)
    bar = figure.colorbar(ScalarMappable(scale, colours), ax=panels, pad=0.01, aspect=30, fraction=0.03)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("mask, mean over features", fontsize=8)
    figure.suptitle(
        "\n".join(folded(line, int(14 * figure.get_figwidth())) for line in heading), fontsize=9, parse_math=False
    )
    return figure


class _Strip(NamedTuple):
    """One map: values (M, n), NaN where a modality is absent; without words its columns are steps."""

    title: str
    modalities: Sequence[str]
    values: Array
    words: Sequence[str] | None

    @property
    def height(self) -> float:
        """In inches."""
        return 0.24 * len(self.modalities) + (0.95 if self.words is not None else 0.6)


def _strips(one: WordMasks, group: Group, labelled: bool) -> Iterator[_Strip]:
    of_runs = [one.means[run.folder] for run in group.runs]
    modalities = [m for m in of_runs[0] if all(m in found for found in of_runs)]
    means = {m: np.mean([found[m] for found in of_runs], axis=0) for m in modalities}
    title = folded(f"{one.name}{one.about}{f' · {group.label}' if labelled else ''}", 100, 1)
    together = [m for m in modalities if m in one.of_words]
    if one.words is not None and together:
        num, most = len(one.words), _ABREAST * _MOST_LINES
        for start in range(0, min(num, most), _ABREAST):
            stop = min(start + _ABREAST, num, most)
            rows = [means[m][start:stop] if len(means[m]) else np.full(stop - start, np.nan) for m in together]
            part = f"words {start + 1} to {stop} of {num}" if num > _ABREAST else ""
            part += ", the rest is left out" if stop == most < num else ""
            yield _Strip(f"{title} · {part}" if part else title, together, np.stack(rows), one.words[start:stop])
    for modality in modalities:
        if modality not in together or one.words is None:
            values = means[modality] if len(means[modality]) else np.full(1, np.nan)
            yield _Strip(f"{title} · {modality}: steps without words", [modality], values[None], None)
