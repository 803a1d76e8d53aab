"""Finds on which side arrays of equal length were padded, and strips them to the true lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from mmsa.data.store import Ragged
from mmsa.errors import DataError

Side = Literal["left", "right"]


def strip_padding(
    array: np.ndarray, lengths: ArrayLike | None = None, documented: Side = "right"
) -> tuple[Ragged, str]:
    """Cut every row to its true length, at the side on which the fold is padded.

    The side is that with more zero steps over all rows: padding outweighs what a row has of its own. Without `lengths`
    a row ends at its last step that is not zero, so zeros of its own at that end go with the padding, and a row of
    nothing but zeros has no steps: the modality is absent there. Values that are not finite are no zeros.

    Args:
        array: (N, T, D) numbers, one fold.
        lengths: (N,) true steps of every row where the source states them; more than T counts as T.
        documented: the family's side, taken where the rows do not tell.

    Returns:
        The steps, and what the side is: "left", "right", "left (assumed)", "right (assumed)", or "none" where no row
        begins or ends in zeros.

    Raises:
        DataError: there are not as many lengths as rows, or some are no counts.
    """
    filled = _filled(array)
    stated = None if lengths is None else _checked(lengths, filled)
    side = _told(filled) if stated is None else _told_by(filled, stated)
    found = side or documented
    return _cut(array, _span(filled, found) if stated is None else stated, found), _named(filled, side, found)


def strip_together(
    arrays: Mapping[str, np.ndarray], documented: Side = "right"
) -> tuple[dict[str, Ragged], dict[str, str]]:
    """Cut the modalities of one fold, those on one time axis to the same lengths.

    Modalities whose arrays all have the same T are taken for aligned: a row has as many steps in each of them as in the
    longest, since the zeros of one, a face that is not seen, are a gap and no padding. Where T differs, each is cut
    on its own.

    Args:
        arrays: (N, T, D) numbers per modality.
        documented: the family's side, taken where the rows do not tell.

    Returns:
        The steps and the side per modality, as of `strip_padding`.
    """
    if len({array.shape[1] for array in arrays.values()}) != 1:
        cut = {modality: strip_padding(array, documented=documented) for modality, array in arrays.items()}
        return {m: ragged for m, (ragged, _) in cut.items()}, {m: side for m, (_, side) in cut.items()}
    filled = {modality: _filled(array) for modality, array in arrays.items()}
    # A step that is zero in every modality is padding, hardly ever data; only mixed sides leave none of them.
    joint = _told(np.any(list(filled.values()), axis=0))
    sides = {modality: joint or _told(steps) for modality, steps in filled.items()}
    used = np.max([_span(steps, sides[modality] or documented) for modality, steps in filled.items()], axis=0)
    return (
        {modality: _cut(array, used, sides[modality] or documented) for modality, array in arrays.items()},
        {m: _named(steps, sides[m], sides[m] or documented) for m, steps in filled.items()},
    )


def _filled(array: np.ndarray) -> np.ndarray:
    """(N, T) whether a step holds anything but zeros; NaN is something."""
    return np.asarray(np.asarray(array).any(axis=2))


def _runs(filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) zero steps before the first and after the last filled step; none in a row that has no filled step."""
    some = filled.any(axis=1)
    if not filled.shape[1]:
        return np.zeros(len(filled), np.int64), np.zeros(len(filled), np.int64)
    return np.where(some, filled.argmax(axis=1), 0), np.where(some, filled[:, ::-1].argmax(axis=1), 0)


def _told(filled: np.ndarray) -> Side | None:
    """The side with more zero steps; None where both have as many."""
    head, tail = (int(run.sum()) for run in _runs(filled))
    return None if head == tail else "left" if head > tail else "right"


def _told_by(filled: np.ndarray, lengths: np.ndarray) -> Side | None:
    """The side on which the stated lengths leave fewer filled steps outside; None where both leave as many."""
    place = np.arange(filled.shape[1])
    tail = int((filled & (place >= lengths[:, None])).sum())
    head = int((filled & (place < filled.shape[1] - lengths[:, None])).sum())
    return None if head == tail else "left" if head < tail else "right"


def _span(filled: np.ndarray, side: Side) -> np.ndarray:
    """(N,) steps from the side that is not padded to the last filled step; 0 in a row that has none."""
    head, tail = _runs(filled)
    lengths: np.ndarray = np.where(filled.any(axis=1), filled.shape[1] - (head if side == "left" else tail), 0)
    return lengths


def _cut(array: np.ndarray, lengths: np.ndarray, side: Side) -> Ragged:
    num_steps = array.shape[1]
    place = np.arange(num_steps)
    kept = place >= num_steps - lengths[:, None] if side == "left" else place < lengths[:, None]  # (N, T)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is not finite, and counted as that
        return Ragged(np.asarray(array)[kept].astype(np.float32, copy=False), offsets)


def _checked(lengths: ArrayLike, filled: np.ndarray) -> np.ndarray:
    stated = np.asarray(lengths)
    if stated.shape != filled.shape[:1] or stated.dtype.kind not in "fiu" or not np.all(stated >= 0):
        raise DataError(
            f"{len(filled)} lengths, one per utterance and none below 0, are required; "
            f"got {stated.dtype} of shape {stated.shape}."
        )
    clipped: np.ndarray = np.minimum(stated, filled.shape[1]).astype(np.int64)
    return clipped


def _named(filled: np.ndarray, side: Side | None, found: Side) -> str:
    if side is not None:
        return side
    return f"{found} (assumed)" if any(run.any() for run in _runs(filled)) else "none"
