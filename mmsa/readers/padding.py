"""Finds on which side arrays of equal length were padded, and strips them to the true lengths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mmsa.errors import DataError
from mmsa.readers.rows import as_steps, numbers

Side = Literal["left", "right"]


class PaddedFold:
    """The padded modalities of one fold.

    Args:
        arrays: (N, T, D) numbers per modality.
        lengths: (N,) true steps of every row for the modalities of which the source states them; more than T counts
            as T.
        where: named in errors.

    Raises:
        DataError: there are not as many lengths as rows, or some are no counts.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], lengths: Mapping[str, ArrayLike], where: str = "") -> None:
        self.arrays = dict(arrays)
        self.filled = {modality: _filled(array) for modality, array in arrays.items()}
        self.lengths = {m: _checked(stated, self.filled[m], f"{where}{m}") for m, stated in lengths.items()}

    @property
    def aligned(self) -> bool:
        """Whether all modalities have the same T, and none has stated lengths."""
        return not self.lengths and len({steps.shape[1] for steps in self.filled.values()}) <= 1


@dataclass(frozen=True)
class Stripped:
    """One fold without its padding.

    Args:
        steps: (T_i, D) of every row per modality, views of its fold's array.
        sides: of the padding, per modality: "left", "right", "left (assumed)", "right (assumed)", or "none" where no
            row begins or ends in zeros.
        beyond: (N,) steps that hold something beyond the stated lengths, which were dropped, per modality.
    """

    steps: dict[str, list[np.ndarray]]
    sides: dict[str, str]
    beyond: dict[str, np.ndarray]


def strip_folds(folds: Sequence[PaddedFold], documented: Side = "right") -> Iterator[Stripped]:
    """Cut every row of a file to its true length, at the side on which its modality is padded.

    A modality has one side in the whole file, since few rows may not show it: where lengths are stated, that on
    which they leave fewer filled steps outside; else, or where they leave as many, that with more zero steps, for
    padding outweighs what rows have of their own. Without stated lengths a row ends at its last step that is not zero:
    zeros of its own at that end go with the padding, and a row of nothing but zeros has no steps, the modality is
    absent there. Values that are not finite are no zeros, unless a column holds nothing else.

    Where no length is stated and all modalities have the same T they are taken for aligned: a row has as many steps in
    each of them as in the longest, since the zeros of one, a face that is not seen, are a gap and no padding.

    Args:
        folds: all of the file, with the same modalities each.
        documented: the family's side, taken where the rows do not show one.
    """
    inhabited = [fold for fold in folds if any(map(len, fold.filled.values()))]
    aligned = all(fold.aligned for fold in inhabited)
    sides = dict.fromkeys(folds[0].filled) | _sides(inhabited, aligned)
    for fold in folds:
        used = {m: fold.lengths.get(m, _span(filled, sides[m] or documented)) for m, filled in fold.filled.items()}
        if aligned and used:
            used = dict.fromkeys(used, np.max(list(used.values()), axis=0))
        cut = Stripped({}, {}, {})
        for modality, filled in fold.filled.items():
            side, lengths = sides[modality], used[modality].tolist()
            kept = _kept(filled.shape[1], used[modality], side or documented)
            starts = [filled.shape[1] - n if (side or documented) == "left" else 0 for n in lengths]
            rows = zip(fold.arrays[modality], starts, lengths, strict=True)
            cut.steps[modality] = [row[start : start + length] for row, start, length in rows]
            cut.sides[modality] = side or (f"{documented} (assumed)" if any(map(np.any, _runs(filled))) else "none")
            cut.beyond[modality] = (filled & ~kept).sum(axis=1)
        yield cut


def padded_rows(values: object, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of one modality as (N, T, D) numbers; rows that are not padded yet are, on the right.

    Args:
        values: an array, or N rows of steps, a row that is None having none.
        where: named in errors.

    Returns:
        The array, and (N,) lengths where the rows had different ones.

    Raises:
        DataError: they are no numbers, or not of three axes.
    """
    rows = values.tolist() if isinstance(values, np.ndarray) and values.dtype.hasobject else values
    if not isinstance(rows, list | tuple) or len({_count(row) for row in rows}) <= 1:
        array = numbers(values, where)
        if not array.size and 0 < array.ndim < 3:  # empty lists say neither T nor D
            array = array.reshape(len(array), 0, 0)
        return numbers(array, where, num_axes=3), None
    steps = [as_steps(row, f"{where}, row {i}") for i, row in enumerate(rows)]
    widths = sorted({row.shape[1] for row in steps if len(row)})
    if len(widths) > 1:
        raise DataError(f"{where}: as many features per step are required in every row, got {widths}.")
    lengths = np.array([len(row) for row in steps])
    array = np.zeros((len(rows), lengths.max(), widths[0]), np.float32)
    for padded, row in zip(array, steps, strict=True):
        padded[: len(row)] = row if len(row) else 0
    return array, lengths


def _count(row: object) -> int:
    return len(row) if isinstance(row, list | tuple) or (isinstance(row, np.ndarray) and row.ndim) else 0


def _sides(folds: Sequence[PaddedFold], aligned: bool) -> dict[str, Side | None]:
    """The side of every modality in all folds; None where they do not show it."""
    found: dict[str, Side | None] = {}
    # A step that is zero in every modality is padding, hardly ever data; only mixed sides leave none of them.
    joint = [np.any(list(fold.filled.values()), axis=0) for fold in folds] if aligned else []
    for modality in folds[0].filled if folds else ():
        stated = [(fold.filled[modality], fold.lengths[modality]) for fold in folds if modality in fold.lengths]
        own = _zeros_at_ends(fold.filled[modality] for fold in folds)
        clearer = max(_zeros_at_ends(joint), own, key=lambda ends: abs(ends[0] - ends[1]))
        found[modality] = _more((_outside(stated, "right"), _outside(stated, "left"))) or _more(clearer)
    return found


def _filled(array: np.ndarray) -> np.ndarray:
    """(N, T) whether a step holds anything but zeros; NaN is something."""
    filled = np.asarray(array.any(axis=2))
    if filled.size and filled.all():
        # A column that is nowhere finite, as the logarithm of padding, would hide all of it.
        suspects = np.flatnonzero(~np.isfinite(array[0]).any(axis=0))  # few or none, so that large arrays cost nothing
        empty = suspects[~np.isfinite(array[:, :, suspects]).any(axis=(0, 1))]
        if 0 < len(empty) < array.shape[2]:
            return np.asarray(np.delete(array, empty, axis=2).any(axis=2))
    return filled


def _runs(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) zero steps before the first and after the last filled step; none in a row that has no filled step."""
    some = filled.any(axis=1)
    if not filled.shape[1]:
        return np.zeros(len(filled), np.int64), np.zeros(len(filled), np.int64)
    return np.where(some, filled.argmax(axis=1), 0), np.where(some, filled[:, ::-1].argmax(axis=1), 0)


def _zeros_at_ends(folds: Iterable[np.ndarray]) -> tuple[int, int]:
    """How many steps at the heads and at the tails of all rows are zero."""
    runs = [_runs(filled) for filled in folds]
    return sum(int(head.sum()) for head, _ in runs), sum(int(tail.sum()) for _, tail in runs)


def _outside(stated: Iterable[tuple[np.ndarray, np.ndarray]], side: Side) -> int:
    """How many filled steps lie outside the stated lengths if the padding is on this side."""
    return sum(int((filled & ~_kept(filled.shape[1], lengths, side)).sum()) for filled, lengths in stated)


def _more(ends: tuple[int, int]) -> Side | None:
    return None if ends[0] == ends[1] else "left" if ends[0] > ends[1] else "right"


def _span(filled: np.ndarray, side: Side) -> np.ndarray:
    """(N,) steps from the side that is not padded to the last filled step; 0 in a row that has none."""
    head, tail = _runs(filled)
    lengths: np.ndarray = np.where(filled.any(axis=1), filled.shape[1] - (head if side == "left" else tail), 0)
    return lengths


def _kept(num_steps: int, lengths: np.ndarray, side: Side) -> np.ndarray:
    """(N, T) whether a step lies within the length."""
    place = np.arange(num_steps)
    kept: np.ndarray = place >= num_steps - lengths[:, None] if side == "left" else place < lengths[:, None]
    return kept


def _checked(lengths: ArrayLike, filled: np.ndarray, where: str) -> np.ndarray:
    stated = np.asarray(lengths)
    whole = stated.dtype.kind in "fiu" and np.all(stated >= 0) and np.all(np.floor(stated) == stated)
    if stated.shape != filled.shape[:1] or not whole:
        raise DataError(
            f"{where}: {len(filled)} lengths, whole numbers from 0 and one per utterance, are required; "
            f"got {stated.ravel()[:4].tolist()} of shape {stated.shape}."
        )
    clipped: np.ndarray = np.minimum(stated, filled.shape[1]).astype(np.int64)
    return clipped
