"""The predictions of a file: of each seed and fold, in the order of the fold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mmsa.data.batches import Fold
from mmsa.data.store import FOLDS, Store
from mmsa.errors import DataError
from mmsa.importing.sheet import Sheet, number, shown
from mmsa.importing.utterances import check_once, rows_of, some
from mmsa.record import NO_SEED
from mmsa.stages import Task

_CALLED = {"val": "valid", "dev": "valid", "validation": "valid"}
"""Other names of folds."""


@dataclass(frozen=True)
class Part:
    """The predicted utterances of a fold.

    Args:
        name: of the fold.
        ids, videos: of N utterances.
        places: their positions in the fold, (N,).
        truths: (N,) or (N, K), as of the task.
        predicted: by seed, of the same shape.
        size: utterances of the whole fold.
    """

    name: str
    ids: Sequence[str]
    videos: Sequence[str]
    places: np.ndarray
    truths: np.ndarray
    predicted: Mapping[int, np.ndarray]
    size: int


class Lines:
    """The lines of a file, each of one utterance, seed and prediction.

    Args:
        sheet: the file.
        store: the prepared data set.
        task: predicted.
        seed: of all lines, where the file has no column of seeds; None: not known.

    Raises:
        DataError: the file is not one of predictions of these data and this task.
    """

    def __init__(self, sheet: Sheet, store: Store, task: Task, seed: int | None = None) -> None:
        self.path, self._store, self._task = sheet.path, store, task
        ids = sheet.column("id")
        names = [f"prediction {column}".rstrip().casefold() for column in task.columns or ("",)]
        cells = list(zip(*(sheet.column(name) for name in names), strict=True))
        if not ids:
            raise DataError(f"{self.path} has no line below its first.\n  write one line per prediction")
        self._rows = rows_of(self.path, ids, store)
        self._values = np.array([[number(cell) if cell else math.nan for cell in line] for line in cells])  # (L, K)
        self._blank = np.array([not any(line) for line in cells])  # (L,)
        self._seeds = self._by_seed(sheet, seed)
        self._states_folds = "fold" in sheet.columns
        self._check_folds(sheet, ids)
        check_once(self.path, ids, self._rows, self._seeds)
        self._check_values(ids, cells)

    @property
    def seeds(self) -> list[int]:
        """In their order."""
        return list(self._seeds)

    @property
    def folds(self) -> list[str]:
        """The folds that are scored where none is asked for: test, and valid where a column of folds names it."""
        here = self._here
        return [fold for fold in FOLDS[1:] if fold == "test" or (self._states_folds and fold in here)]

    def left_out(self, folds: Sequence[str]) -> list[str]:
        """A line per fold that is not scored."""
        here = self._here
        return [
            f"{here.count(fold):,} lines of the {fold} fold left out" for fold in FOLDS if fold in set(here) - {*folds}
        ]

    def part(self, fold: Fold, partial: bool) -> Part:
        """The predictions of a fold: of the utterances that every seed has.

        Args:
            fold: of the data.
            partial: some may be missing.

        Raises:
            DataError: some are missing though they may not, or all are.
        """
        lines = {seed: {self._rows[at]: at for at in of if not self._blank[at]} for seed, of in self._seeds.items()}
        shared = set.intersection(*(set(of_seed) for of_seed in lines.values()))
        places = np.flatnonzero([row in shared for row in fold.rows.tolist()])
        if not len(places):
            self._refuse_none(fold.name)
        if len(places) < len(fold) and not partial:
            missing = [fold.ids[place] for place in sorted({*range(len(fold))} - {*places.tolist()})]
            of_a_seed = " for some seed" if len(lines) > 1 else ""
            raise DataError(
                f"{self.path}: {len(missing):,} of {len(fold):,} utterances of the {fold.name} fold have no prediction"
                f"{of_a_seed}: {some(missing)}.\n"
                "  type --partial to score the others, in a table in which every row is scored on these alone"
            )
        truths = self._task.truths(fold.targets)[places]
        rows = fold.rows[places].tolist()
        predicted = {
            seed: self._values[[of_seed[row] for row in rows]].reshape(truths.shape) for seed, of_seed in lines.items()
        }
        ids, videos = ([column[place] for place in places] for column in (fold.ids, fold.videos))
        return Part(fold.name, ids, videos, places, truths, predicted, len(fold))

    @cached_property
    def _here(self) -> list[str]:
        return [str(self._store.folds[row]) for row in self._rows]

    def _by_seed(self, sheet: Sheet, seed: int | None) -> dict[int, list[int]]:
        if "seed" not in sheet.columns:
            return {NO_SEED if seed is None else seed: list(range(len(self._rows)))}
        if seed is not None:
            raise DataError(f"seed={seed}: {self.path} has a column of seeds.\n  leave one of them out")
        found: dict[int, list[int]] = {}
        for at, cell in enumerate(sheet.columns["seed"]):
            value = number(cell)
            if not (0 <= value < 2**53 and value.is_integer()):
                raise DataError(
                    f"{self.path}: a seed is {shown(cell)!r}.\n  write a whole number from 0 on in each line"
                )
            found.setdefault(int(value), []).append(at)
        return dict(sorted(found.items()))

    def _check_folds(self, sheet: Sheet, ids: Sequence[str]) -> None:
        """Refuse a file whose folds are not those of the data."""
        if not self._states_folds:
            return
        stated = [_CALLED.get(cell.casefold(), cell.casefold()) for cell in sheet.columns["fold"]]
        wrong = [at for at, (ours, theirs) in enumerate(zip(self._here, stated, strict=True)) if ours != theirs]
        if wrong:
            at = wrong[0]
            raise DataError(
                f"{self.path}: {len(wrong):,} lines are of other folds than in these data: {shown(ids[at])} is "
                f"of {self._here[at]}, the file says {shown(sheet.columns['fold'][at])!r}.\n"
                "  import it against the data that have its folds, or leave the column out if they are a mistake"
            )

    def _check_values(self, ids: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        task, truths = self._task, self._task.truths(self._store.targets)
        whole = truths.dtype.kind in "iu"
        count = (2 if task.columns else task.output_dim) if whole else 0
        finite = np.isfinite(self._values) & (np.abs(self._values) <= 1e30)
        fine = finite & (np.isin(self._values, range(count)) if whole else True)
        wrong = np.flatnonzero(~fine.all(axis=1) & ~self._blank)
        if len(wrong):
            needed = f"class, a whole number from 0 to {count - 1}" if whole else "finite number"
            kind = "another task: task=regression" if whole else "another task: task=classification for classes"
            named = [f"{shown(', '.join(cells[at]))!r} of {shown(ids[at])}" for at in wrong[:3]]
            raise DataError(
                f"{self.path}: {len(wrong):,} predictions are no {needed}: {'; '.join(named)}.\n"
                f"  write one for each utterance, or import it for {kind}"
            )
        held = self._values[~self._blank]
        if getattr(task, "kind", "") == "binary" and not whole and np.isin(held, (0, 1)).all():
            raise DataError(
                f"{self.path}: its predictions are 0 and 1, and task=regression of {task.target} goes from -1 to 1.\n"
                "  type task=classification behind the file"
            )

    def _refuse_none(self, fold: str) -> None:
        """Raise the reason why a fold has no prediction."""
        others = [name for name in FOLDS[1:] if name != fold and name in self._here]
        again = f"type --fold {others[0]}" if others else "write a prediction for each of its utterances"
        shared = " that all its seeds share" if len(self._seeds) > 1 else ""
        raise DataError(f"{self.path} has no prediction of the {fold} fold{shared}.\n  {again}")
