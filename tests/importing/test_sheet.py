"""Files of predictions as people have them are read, or refused with what to type."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmsa.errors import DataError
from mmsa.importing.sheet import number, read_sheet

PLAIN = {"id": ["a[1]", "b[2]"], "prediction": ["0.5", "-1.25"]}


@pytest.mark.parametrize(
    "content",
    [
        b"id,prediction\na[1],0.5\nb[2],-1.25\n",
        b"\xef\xbb\xbfID;Prediction\r\na[1];0,5\r\nb[2];-1,25\r\n",
        "Id\tPREDICTION\na[1]\t0.5\nb[2]\t-1,25\n".encode("utf-16"),
        b'id , " Prediction ",,\r"a[1]",0.5,,\r\rb[2] , -1.25 ,,\r,,,\r',
    ],
    ids=["plain", "semicolons, a mark and decimal commas", "tabs in UTF-16", "old line ends and empty cells"],
)
def test_what_a_spreadsheet_writes_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert read_sheet(tmp_path / "x.csv").columns == PLAIN


def test_arrays_are_columns(tmp_path: Path) -> None:
    values = {"id": np.array(["a[1]", "b[2]"]), "prediction": np.array([[0.5], [-1.25]])}
    np.savez_compressed(tmp_path / "x.npz", **values, features=np.zeros((2, 3, 4)))
    assert read_sheet(tmp_path / "x.npz").columns == PLAIN
    np.savez(tmp_path / "y.npz", Prediction_Happy=np.array([np.float32(0.1)]), seed=np.array([3]))
    columns = read_sheet(tmp_path / "y.npz").columns
    assert columns == {"prediction happy": [str(float(np.float32(0.1)))], "seed": ["3"]}


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as refused:
        read_sheet(path)
    said = str(refused.value)
    assert str(path) in said and len(said.splitlines()) == 2 and len(said) < 700
    return said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"id,prediction\na[1],0.5,7\n", "its row 2 has 3 cells, and its first line 2"),
        (b"id,prediction\na[1]\n", "its row 2 has 1 cells"),
        (b"id,prediction,prediction\na,1,2\n", "two columns 'prediction'"),
        ("id,prediction\né,1\n".encode("latin-1"), "save it as CSV"),
        (b'id,prediction\n"a,1\n', "unexpected end"),
        (b"id,prediction\n" + b"x" * 200_000 + b",1\n", "field larger"),
        (b"id,prediction\n" + b"a,1\n" * 1_000, "more than 1,000 rows"),
        (b"\x93NUMPY\x01\x00", "save it as CSV"),
        (b"PK\x03\x04" + b"\0" * 99, "cannot be read as arrays"),
        (b"<!doctype html><html>", "is a web page"),
        (b"\x00" * 99 + b"\n", "write|name"),
        (b"x" * (2**24 + 1), "more than 16,777,216 bytes"),
    ],
)
def test_another_file_is_refused_in_two_lines(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.importing.sheet._MOST_ROWS", 1000)
    (tmp_path / "x.csv").write_bytes(content)
    try:
        read_sheet(tmp_path / "x.csv").column("id")
    except DataError as error:
        assert len(str(error).splitlines()) == 2
        assert any(words in str(error) for words in said.split("|")), error
    else:
        pytest.fail("it was read")


def test_a_workbook_a_pipe_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "")
    assert "save its sheet as CSV" in refusal(tmp_path / "x.xlsx")
    assert "does not exist" in refusal(tmp_path / "absent.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is no file" in refusal(tmp_path / "pipe.csv")


def test_arrays_of_objects_or_of_other_lengths_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", id=np.array(["a"]), prediction=np.zeros(2))
    assert "have 1 and 2 entries" in refusal(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", id=np.array([print], dtype=object))
    with pytest.raises(DataError, match="has no column id; it has none"):
        read_sheet(tmp_path / "y.npz").column("id")


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("clip,score\x1b[31m\na,1\n")
    with pytest.raises(DataError, match=r"no column prediction; it has clip, score\\x1b\[31m") as refused:
        read_sheet(tmp_path / "x.csv").column("prediction")
    assert len(str(refused.value).splitlines()) == 2


def test_a_cell_is_a_number_or_none() -> None:
    assert number("-1e-3") == -0.001 and math.isnan(number("1_000")) and math.isnan(number("positive"))
