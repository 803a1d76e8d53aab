"""Stripping gives back what was padded, on either side, wherever the side can be told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsa.data.ragged import Ragged
from mmsa.errors import DataError
from mmsa.readers.padding import PaddedFold, Side, padded_rows, strip_folds
from tests.readers.pickles import padded

NUM_STEPS = 7
steps = st.lists(st.sampled_from([0.0, 0.0, 1.0, -2.0, np.nan]), max_size=NUM_STEPS)
folds = st.lists(steps, min_size=1, max_size=6)
sides = st.sampled_from(["left", "right"])


def strip_padding(array: np.ndarray, lengths: object = None, documented: Side = "right") -> tuple[Ragged, str]:
    """One modality of a file of one fold."""
    stated = {} if lengths is None else {"m": np.asarray(lengths)}
    (cut,) = strip_folds([PaddedFold({"m": array}, stated)], documented)
    return Ragged.join(cut.steps["m"]), cut.sides["m"]


def strip_together(arrays: dict[str, np.ndarray]) -> tuple[dict[str, Ragged], dict[str, str]]:
    """The modalities of a file of one fold."""
    (cut,) = strip_folds([PaddedFold(arrays, {})])
    return {m: Ragged.join(steps) for m, steps in cut.steps.items()}, cut.sides


def rows_of(fold: list[list[float]]) -> list[np.ndarray]:
    """(T_i, 2) arrays; a step is zero in both features or in none."""
    return [np.repeat(np.array(row, dtype=np.float32)[:, None], 2, axis=1).reshape(-1, 2) for row in fold]


def zeros_at_ends(array: np.ndarray) -> tuple[int, int]:
    """Zero steps at the head and at the tail of the rows that are not all zero."""
    filled = [np.flatnonzero(row.any(axis=1)) for row in array]
    return sum(int(f[0]) for f in filled if len(f)), sum(array.shape[1] - 1 - int(f[-1]) for f in filled if len(f))


def without_end(row: np.ndarray, side: str) -> np.ndarray:
    """A row without its zeros at that end."""
    used = np.flatnonzero(row.any(axis=1))
    if not len(used):
        return row[:0]
    return row[used[0] :] if side == "left" else row[: used[-1] + 1]


@given(folds, sides)
def test_the_side_is_that_with_more_zeros_and_only_they_go(fold: list[list[float]], side: str) -> None:
    rows = rows_of(fold)
    array = padded(rows, NUM_STEPS, side)
    head, tail = zeros_at_ends(array)
    ragged, found = strip_padding(array)
    if (
        (head > tail) if side == "left" else (tail > head)
    ):  # decidable: padding outweighs what the rows have of their own
        assert found == side
        assert all(np.array_equal(ragged[i], without_end(row, side), equal_nan=True) for i, row in enumerate(rows))
    elif head == tail:
        assert found == ("none" if not head else "right (assumed)")


@given(folds, sides)
def test_rows_that_do_not_end_in_zeros_come_back_as_they_were(fold: list[list[float]], side: str) -> None:
    rows = rows_of([[1.0, *row[1:-1], 2.0][: max(len(row), 1)] for row in fold])
    ragged, _ = strip_padding(padded(rows, NUM_STEPS, side))
    assert [len(row) for row in rows] == ragged.lengths.tolist()
    assert all(np.array_equal(ragged[i], row, equal_nan=True) for i, row in enumerate(rows))


@given(folds, sides)
def test_stated_lengths_give_back_everything_where_they_tell_the_side(fold: list[list[float]], side: str) -> None:
    rows = rows_of(fold)
    array = padded(rows, NUM_STEPS, side)
    lengths = [len(row) for row in rows]
    other = [row[: NUM_STEPS - n] if side == "right" else row[n:] for row, n in zip(array, lengths, strict=True)]
    ragged, found = strip_padding(array, lengths)
    assert ragged.lengths.tolist() == lengths
    if any(part.any() for part in other):  # cut on the wrong side, a value would be lost
        assert found == side
        assert all(np.array_equal(ragged[i], row, equal_nan=True) for i, row in enumerate(rows))


@given(folds, sides, sides, st.data())
def test_modalities_on_one_axis_keep_it_whatever_their_sides(
    fold: list[list[float]], side: str, other: str, data: st.DataObject
) -> None:
    rows = rows_of([[1.0, *row[1:-1], 2.0][: max(len(row), 1)] for row in fold])
    # A modality that is silent throughout some utterances; zero times NaN would not be silence.
    gaps = [row if data.draw(st.booleans()) else np.zeros_like(row) for row in rows]
    arrays = {
        "text": padded(rows, NUM_STEPS, side),
        "audio": padded(rows, NUM_STEPS, other),
        "visual": padded(gaps, NUM_STEPS, side),
    }
    stripped, _ = strip_together(arrays)
    for modality, expected in (("text", rows), ("audio", rows), ("visual", gaps)):
        assert stripped[modality].lengths.tolist() == [len(row) for row in rows]
        assert all(np.array_equal(stripped[modality][i], row, equal_nan=True) for i, row in enumerate(expected))


def test_a_gap_at_the_padded_end_of_one_aligned_modality_is_kept() -> None:
    text = padded([np.ones((3, 2)), np.ones((5, 2))], NUM_STEPS, "left")
    visual = text.copy()
    visual[1, :5] = 0  # no face in the first three of five words
    stripped, sides = strip_together({"text": text, "visual": visual})
    assert stripped["visual"].lengths.tolist() == [3, 5]
    assert stripped["visual"][1].any(axis=1).tolist() == [False, False, False, True, True]
    assert sides == {"text": "left", "visual": "left"}


def test_a_zero_step_at_every_head_is_no_padding_where_more_follows() -> None:
    rows = [np.array([[0.0], [1.0], [1.0], [0.0]])[:n] for n in (3, 4, 3)]  # as at MMSA's [CLS]
    ragged, side = strip_padding(padded(rows, 12, "right"))
    assert side == "right"
    assert ragged.lengths.tolist() == [3, 3, 3]


def test_modalities_on_axes_of_their_own_are_cut_on_their_own() -> None:
    arrays = {
        "text": padded([np.ones((3, 2)), np.ones((4, 2))], 5, "left"),
        "audio": padded([np.ones((9, 1)), np.ones((2, 1))], 20, "right"),
    }
    stripped, sides = strip_together(arrays)
    assert {m: ragged.lengths.tolist() for m, ragged in stripped.items()} == {"text": [3, 4], "audio": [9, 2]}
    assert sides == {"text": "left", "audio": "right"}


def test_where_the_side_cannot_be_told_the_documented_one_is_assumed_and_said() -> None:
    array = padded([np.ones((3, 1))], 4, "left")
    array = np.concatenate([array, array[:, ::-1]])
    for documented, lengths in (("left", [3, 4]), ("right", [4, 3])):
        ragged, side = strip_padding(array, documented=documented)
        assert side == f"{documented} (assumed)"
        assert ragged.lengths.tolist() == lengths
    assert strip_padding(np.ones((2, 3, 1)))[1] == "none"
    assert strip_padding(np.zeros((2, 3, 1)))[0].lengths.tolist() == [0, 0]


@pytest.mark.parametrize("lengths", [[1], [1, -1], [1, np.nan], [[1], [2]], ["a", "b"]])
def test_lengths_that_are_none_are_refused(lengths: list[object]) -> None:
    with pytest.raises(DataError, match="2 lengths"):
        strip_padding(np.ones((2, 3, 1)), np.array(lengths))


def test_a_length_beyond_the_array_is_the_array() -> None:
    assert strip_padding(np.ones((1, 3, 1)), [9])[0].lengths.tolist() == [3]


def test_a_fold_that_does_not_tell_its_side_follows_the_others() -> None:
    told = PaddedFold({"m": padded([np.ones((2, 1))] * 3, NUM_STEPS, "right")}, {})
    late = np.array([0, 0, 0, 0, 1, 1, 0.0]).reshape(1, NUM_STEPS, 1)  # begins with more zeros than it ends in
    *_, cut = strip_folds([told, PaddedFold({"m": np.zeros((0, 3, 1))}, {}), PaddedFold({"m": late}, {})])
    assert cut.sides == {"m": "right"}
    assert cut.steps["m"][0].ravel().tolist() == [0, 0, 0, 0, 1, 1]


def test_a_gap_at_the_other_end_of_one_aligned_modality_does_not_turn_its_side() -> None:
    text = padded([np.ones((5, 2)), np.ones((4, 2))], NUM_STEPS, "right")
    visual = text.copy()
    visual[:, :3] = 0  # no face in the first three words, as many as are padding or more
    *_, cut = strip_folds(
        [
            PaddedFold({"text": np.zeros((0, 3, 2)), "visual": np.zeros((0, 4, 2))}, {}),  # of no rows, and so no axis
            PaddedFold({"text": text, "visual": visual}, {}),
        ]
    )
    assert cut.sides == {"text": "right", "visual": "right"}
    assert list(map(len, cut.steps["visual"])) == [5, 4]
    assert cut.steps["visual"][0].any(axis=1).tolist() == [False, False, False, True, True]


def test_lengths_that_cut_nothing_on_either_side_leave_it_to_the_zeros() -> None:
    left = padded([np.ones((3, 1)), np.ones((2, 1))], NUM_STEPS, "left")
    left[:, :, 0] *= np.array([[1], [0]])
    late = padded([np.array([[0.0], [1.0], [0.0]])], 5, "left")  # zeros on both sides: 3 and 1
    assert strip_padding(late, [3])[1] == "left"
    assert strip_padding(late, [3])[0].values.ravel().tolist() == [0, 1, 0]
    assert strip_padding(left, [3, 0])[0].lengths.tolist() == [3, 0]


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_column_that_is_nowhere_finite_does_not_hide_the_padding(value: float, side: str) -> None:
    array = padded([np.ones((3, 2)), np.ones((5, 2))], NUM_STEPS, side)
    array[:, :, 1] = value
    ragged, found = strip_padding(array)
    assert found == side
    assert ragged.lengths.tolist() == [3, 5]
    assert strip_padding(np.full((2, 3, 2), value))[0].lengths.tolist() == [3, 3]  # nothing else says what is padding


def test_rows_of_their_own_lengths_are_padded_on_the_right_and_their_lengths_kept() -> None:
    rows = [np.ones((2, 3)), None, [[0.0, 0.0, 0.0]]]
    for held in (rows, tuple(rows), np.array(rows, dtype=object)):
        array, lengths = padded_rows(held, "audio")
        assert array.shape == (3, 2, 3)
        assert lengths is not None
        assert lengths.tolist() == [2, 0, 1]
        assert strip_padding(array, lengths)[0].lengths.tolist() == [2, 0, 1]


def test_rows_of_one_length_are_an_array_however_they_are_held() -> None:
    array = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    of_rows = np.empty(2, dtype=object)
    of_rows[:] = list(array)
    for held in (array, list(array), array.tolist(), of_rows, array.astype(object), array.astype(">f4")):
        same, lengths = padded_rows(held, "audio")
        assert lengths is None
        np.testing.assert_array_equal(same, array)
    assert padded_rows([], "audio")[0].shape == (0, 0, 0)


@pytest.mark.parametrize("silent_row", [False, True])
def test_modalities_of_one_file_may_be_padded_on_different_sides(silent_row: bool) -> None:
    lengths = [3, 5, 2, 6]
    rows = [np.ones((length, 2), np.float32) for length in lengths]
    arrays = {"text": padded(rows, NUM_STEPS, "right"), "audio": padded(rows, NUM_STEPS, "left")}
    arrays["audio"][0, -1] = 0  # a zero of its own, where text is padded: padding in both says little
    if silent_row:
        arrays["audio"][1] = 0
    cut, found = strip_together(arrays)
    assert found == {"text": "right", "audio": "left"}
    assert cut["text"].lengths.tolist() == cut["audio"].lengths.tolist() == lengths
