"""Ids of all families name the same video and segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsa.errors import DataError
from mmsa.readers.ids import as_text, column, name_rows, segment_ids

videos = st.text(st.sampled_from("aZ09_-$[]."), min_size=1, max_size=12)


@given(videos, st.integers(0, 10**6))
def test_every_form_is_read_back_whatever_the_video_is_called(video: str, segment: int) -> None:
    for name in (f"{video}$_${segment}", f"{video}[{segment}]", f"{video}_{segment}"):
        if name == f"{video}_{segment}" and video.endswith("$"):
            continue  # "a$_$3" is the first form
        for raw in (name, name.encode(), np.str_(name), np.bytes_(name.encode()), [name], np.array([name])):
            assert segment_ids([raw]) == ([(video, segment)], {})
        assert segment_ids([[name.encode(), b"1.5", b"2.5"]]) == ([(video, segment)], {})


def test_zeros_before_the_number_do_not_count() -> None:
    assert segment_ids(["video_0001$_$0010"]) == ([("video_0001", 10)], {})


@pytest.mark.parametrize("raw", ["", [], ["a_1", "2"], ["", "1.5", "2.5"]])
def test_what_is_no_id_is_refused(raw: object) -> None:
    with pytest.raises(DataError, match="an id such as"):
        segment_ids([raw])


@given(st.permutations(range(6)))
def test_times_number_the_segments_of_each_video_by_start(order: list[int]) -> None:
    rows = [[video, str(start), str(start + 5)] for video in ("a_1", "b") for start in (2.5, 9.0, 10.0)]
    names, report = segment_ids([np.array(rows[i]) for i in order])
    assert names == [("a_1" if i < 3 else "b", i % 3) for i in order]
    assert report == {"numbered_by_start": 6}


def test_first_fields_that_all_name_a_different_clip_are_clips_not_videos() -> None:
    rows = [[b"a_2", b"0.0", b"1.0"], [b"a_1", b"5.0", b"6.0"]]
    assert segment_ids([np.array(row) for row in rows]) == ([("a", 2), ("a", 1)], {})
    assert segment_ids([*rows, [b"a_1", b"9.0", b"9.5"]])[0] == [("a", 2), ("a", 1), ("a", 1)], "a slip names no video"
    again = [[name, b"9.0", b"9.5"] for name in (b"a_1", b"a_2", b"a_1")]  # then they are videos that end in a number
    assert segment_ids([*rows, *again])[0] == [("a_2", 0), ("a_1", 0), ("a_1", 1), ("a_2", 1), ("a_1", 2)]


def test_an_id_without_a_segment_is_a_video_of_its_own_and_counted() -> None:
    assert segment_ids([17, "18", b"x_4"]) == ([("17", 0), ("18", 0), ("x", 4)], {"own_video": 2})


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="times in seconds, got 'soon'"):
        segment_ids([["video", "soon", "2"]])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("视频_1", "视频_1"),
        ("视频_1".encode(), "视频_1"),
        ("视频_1".encode().decode("latin-1"), "视频_1"),  # a string of Python 2
        ("caf\u00e9", "café"),  # latin-1 that is no UTF-8
        (3.0, "3"),
        (3.5, "3.5"),
        (7, "7"),
    ],
)
def test_text_is_the_same_whoever_wrote_it(raw: object, said: str) -> None:
    assert as_text(raw) == said


def test_a_row_without_an_id_is_a_video_of_its_own_beside_those_that_have_one() -> None:
    folds = {"train": [None, "a_3"], "valid": [None], "test": [b"17"]}
    names = [("train-0", 0), ("a", 3), ("valid-0", 0), ("17", 0)]
    assert name_rows(folds) == (names, {"own_video": 1, "absent": 2})
    assert name_rows({"train": ["a_3"]}) == ([("a", 3)], {})


def test_a_column_has_an_entry_per_row() -> None:
    assert column(None, 2, "id") == [None, None]
    assert column(np.array(["a", "b"]), 2, "id") == ["a", "b"]
    for odd in ("ab", 7, np.array("ab"), {"a": 1}):
        with pytest.raises(DataError, match="id: one entry per utterance is required"):
            column(odd, 2, "id")
