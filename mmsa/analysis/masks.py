"""The masks that a feedback lays on the inputs, compared between kinds of utterances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from mmsa.analysis.comparison import TrainedRun, about, comparable_groups
from mmsa.analysis.layout import LABELS, Column, Row, Table, counted
from mmsa.analysis.mask_words import WordMasks, chosen, step_masks, worded
from mmsa.analysis.runs import Group, Run
from mmsa.analysis.scores import Estimate
from mmsa.analysis.significance import CONFIDENCE, Interval
from mmsa.analysis.tables import data_line, estimates_row, notes_of
from mmsa.corpus.planted import CLEAR_MEANING, Truth
from mmsa.data.batches import Fold
from mmsa.errors import ConfigError
from mmsa.types import Batch, padding_mask

PLANTED_KINDS = ("contradicting", "agreeing")
SIGNS = ("negative", "neutral", "positive")

Part = Literal["mean", "distance"]
PARTS: tuple[Part, ...] = get_args(Part)
DISTANCE = "|mask - 0.5|"


class UtteranceMask(NamedTuple):
    """The mask of one modality of one utterance, over its valid steps and all features: its mean, in [0, 1], and the
    mean of |mask - 0.5|, in [0, 0.5]."""

    mean: float
    distance: float


Masks = Mapping[tuple[str, str], UtteranceMask]
"""By utterance and modality; an utterance that lacks the modality has none."""


@dataclass(frozen=True)
class MaskStudy:
    """The masks of runs, and the kinds of utterances to compare.

    Args:
        fold: the fold that was read.
        groups: the runs by configuration.
        masks: by the run's folder.
        kinds: kind -> its utterances; on the built-in corpus contradicting and agreeing ones, else signs of the label.
        drawn: the utterances whose masks are drawn over their words.
    """

    fold: str
    groups: tuple[Group, ...]
    masks: Mapping[Path, Masks]
    kinds: Mapping[str, tuple[str, ...]]
    drawn: tuple[WordMasks, ...] = ()

    @property
    def planted(self) -> bool:
        """The kinds are those of the planted truth."""
        return tuple(self.kinds) == PLANTED_KINDS

    @property
    def modalities(self) -> tuple[str, ...]:
        """Every modality that a run masks."""
        return tuple(dict.fromkeys(m for group in self.groups for run in group.runs for _, m in self.masks[run.folder]))

    def values(self, run: Run, modality: str, kind: str, part: Part = "mean") -> list[float]:
        """One number per utterance of a kind that has the modality."""
        masks = self.masks[run.folder]
        return [getattr(masks[name, modality], part) for name in self.kinds[kind] if (name, modality) in masks]

    def utterance_means(self, group: Group, modality: str, kind: str) -> np.ndarray:
        """(N,) mean masks of the utterances of a kind, each averaged over the group's runs."""
        return np.array([self.values(run, modality, kind) for run in group.runs]).mean(axis=0)

    def difference(self, group: Group, modality: str, part: Part = "mean") -> Interval | None:
        """Contradicting minus agreeing: over the seeds of a group, or over the utterances of its only run."""
        if not self.planted:
            return None
        pairs = [[self.values(run, modality, kind, part) for kind in PLANTED_KINDS] for run in group.runs]
        if any(not values for pair in pairs for values in pair):
            return None
        if len(pairs) == 1:
            return Interval.between(*pairs[0])
        return Interval.of([fmean(contradicting) - fmean(agreeing) for contradicting, agreeing in pairs])


def study_masks(
    runs: Iterable[TrainedRun], fold: Literal["valid", "test"] = "test", utterances: Sequence[str] = ()
) -> MaskStudy:
    """Read the masks of runs with a feedback; the test fold selects nothing here, see `robustness.probe`.

    On the built-in corpus utterances are compared whose truth is known (see `kind_of`); on other data those whose
    label is negative, zero or positive.

    Args:
        runs: loaded, one after the other.
        fold: "valid" or "test".
        utterances: ids of those to draw over their words; none: as of `mask_words.chosen`.

    Raises:
        ConfigError: a run has no feedback, or the fold has no such utterance.
        DataError: two runs predict different things.
    """
    masks: dict[Path, Masks] = {}
    kinds: dict[str, tuple[str, ...]] = {}
    drawn: dict[str, WordMasks] = {}
    for run in runs:
        rows = run.data.fold(fold)
        kinds = kinds or kinds_of(run, fold)
        drawn = drawn or {name: _drawn(run, rows, name, kinds) for name in chosen(rows, kinds, utterances)}
        masks[run.folder] = read_masks(run, fold)
        steps = step_masks(run, rows, list(drawn))
        drawn = {name: replace(one, means={**one.means, run.folder: steps[name]}) for name, one in drawn.items()}
    return MaskStudy(fold, tuple(comparable_groups(masks)), masks, kinds, tuple(drawn.values()))


def _drawn(run: TrainedRun, fold: Fold, name: str, kinds: Mapping[str, Sequence[str]]) -> WordMasks:
    """An utterance before its masks are read."""
    place = fold.ids.index(name)
    kind = next((f" ({kind})" for kind, names in kinds.items() if name in names), "")
    label = "" if run.task.columns else f", label {float(run.task.select(fold.targets)[place]):.3g}"
    return WordMasks(name, f"{kind}{label}", *worded(run, fold, name), {})


@torch.no_grad()
def read_masks(run: TrainedRun, fold: str) -> Masks:
    """The masks of every utterance of a fold; of several passes those of the last.

    Raises:
        ConfigError: the run has no feedback.
    """
    model = run.model.eval()
    masks: dict[tuple[str, str], UtteranceMask] = {}
    for batch in run.data.fold(fold).batches(int(run.config.trainer.batch_size)):
        found = model(batch).feedback
        if not found:
            raise ConfigError(
                f"{run.folder}: this run has no feedback, so there are no masks.\n"
                "  name runs that were trained with feedback=mmlatch or feedback=static"
            )
        for modality, mask in found.items():
            masks |= _per_utterance(batch, modality, mask)
    return masks


def kinds_of(run: TrainedRun, fold: str) -> dict[str, tuple[str, ...]]:
    """The kinds of utterances that are compared, and the utterances of each."""
    utterances = run.data.fold(fold)
    if run.data.store.report.get("planted"):
        from mmsa.dataset.synthetic import planted_truth

        truths = planted_truth()
        named = {name: kind_of(truths[name]) for name in utterances.ids}
        return {kind: tuple(name for name in named if named[name] == kind) for kind in PLANTED_KINDS}
    if run.task.columns:  # none of them is the sign of the utterance
        return {"all": tuple(utterances.ids)}
    labels = run.task.select(utterances.targets)
    signs = [SIGNS[int(np.sign(label)) + 1] for label in labels]
    return {sign: tuple(name for name, s in zip(utterances.ids, signs, strict=True) if s == sign) for sign in SIGNS}


def kind_of(truth: Truth) -> str | None:
    """Whether an utterance of the built-in corpus contradicts itself or agrees with itself; None where neither.

    Contradicting is what the corpus says (docs/synthetic.md): clear words that the voice mocks or outweighs with the
    opposite. Agreeing: words and voice are both there and both clear (0.5 or more), the voice does not mock, and its
    sign is that of the words. Neutral and silent utterances and faint voices are neither.
    """
    if truth.contradicts:
        return "contradicting"
    clear = min(abs(truth.meaning), abs(truth.voice)) >= CLEAR_MEANING and not truth.silent
    return "agreeing" if clear and not truth.mocking and truth.voice * truth.meaning > 0 else None


def make_tables(study: MaskStudy) -> list[Table]:
    """Per configuration a row per modality: the mean mask per kind, and the distance from 0.5; as CSV every mask."""
    counts = ", ".join(f"{len(names)} {kind}" for kind, names in study.kinds.items())
    return [
        Table(
            title=f"mean mask: {group.label}",
            notes=[
                f"{data_line(group.runs, study.fold)}; utterances: {counts}",
                *notes_of(group.runs[0], len(group.runs)),
            ],
            columns=[LABELS, *map(Column, study.kinds), Column(DISTANCE)],
            blocks=[[_row(study, group, modality) for modality in study.modalities]],
            foot=mask_lines(study, group),
            fields=["run", "seed", "id", "kind", "modality", "mean", "distance"],
            records=_records(study, group),
        )
        for group in study.groups
    ]


def mask_lines(study: MaskStudy, group: Group) -> list[str]:
    """The differences between contradicting and agreeing utterances, one line per modality."""
    found = {m: [study.difference(group, m, part) for part in PARTS] for m in study.modalities}
    known = {m: [one.text(4) for one in both if one is not None] for m, both in found.items()}
    lines = [f"  {m}: mean mask {both[0]}; {DISTANCE} {both[1]}" for m, both in known.items() if both]
    over = f"Student's t over {counted(len(group.runs))}" if len(group.runs) > 1 else "Welch's t over utterances"
    head = f"{group.label}: contradicting minus agreeing, mean and {100 * CONFIDENCE:.0f} % interval ({over})"
    return [head, *lines] if lines else []


def mean(values: Sequence[float]) -> float:
    """The mean, NaN without any value."""
    return fmean(values) if values else math.nan


def _row(study: MaskStudy, group: Group, modality: str) -> Row:
    means = [[mean(study.values(run, modality, kind)) for run in group.runs] for kind in study.kinds]
    far = [[v for k in study.kinds for v in study.values(run, modality, k, "distance")] for run in group.runs]
    return estimates_row(modality, map(Estimate.of, [*means, [mean(values) for values in far]]))


def _per_utterance(batch: Batch, modality: str, mask: Tensor) -> Masks:
    """Mask (B, T, D) -> its means over valid steps and features, of the utterances that have the modality."""
    lengths = batch.lengths[modality]
    valid = ~padding_mask(lengths, mask.shape[1])[:, :, None]  # (B, T, 1)
    count = (lengths * mask.shape[2]).clamp(min=1).double()
    means = torch.where(valid, mask, 0.0).double().sum(dim=(1, 2)) / count
    distances = torch.where(valid, (mask - 0.5).abs(), 0.0).double().sum(dim=(1, 2)) / count
    found = zip(batch.ids, lengths.tolist(), means.tolist(), distances.tolist(), strict=True)
    return {(name, modality): UtteranceMask(mean, distance) for name, steps, mean, distance in found if steps > 0}


def _records(study: MaskStudy, group: Group) -> list[list[object]]:
    kinds = {name: kind for kind, names in study.kinds.items() for name in names}
    return [
        [run.folder.name, run.seed, name, kinds.get(name, ""), modality, *mask]
        for run in group.runs
        for (name, modality), mask in study.masks[run.folder].items()
    ]


def content(study: MaskStudy) -> dict[str, Any]:
    """What masks.json holds: the means of every run and the differences."""
    return {
        **about(study.groups, study.fold),
        "utterances": {kind: len(names) for kind, names in study.kinds.items()},
        "groups": [
            {
                "label": group.label,
                "runs": [str(run.folder) for run in group.runs],
                "modalities": {modality: _described(study, group, modality) for modality in study.modalities},
            }
            for group in study.groups
        ],
    }


def _described(study: MaskStudy, group: Group, modality: str) -> dict[str, Any]:
    """Per run the mean of each kind, and on the built-in corpus the difference and each run's own."""
    return {
        part: {
            "kinds": {k: [mean(study.values(run, modality, k, part)) for run in group.runs] for k in study.kinds},
            "difference": study.difference(group, modality, part),
            "difference_of_each_run": [
                study.difference(replace(group, runs=(run,)), modality, part) for run in group.runs
            ],
        }
        for part in PARTS
    }
