"""result.json is read as it was written, or refused with the reason."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from mmsa.errors import DataError
from mmsa.record import FORMAT, RunRecord
from tests.records import documented, fields, record


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record(metrics={"test/mae": 0.1 + 0.2, "valid/corr": math.nan}, seconds=math.inf)
    written.write(tmp_path)
    read = RunRecord.read(tmp_path)
    assert read.metrics["test/mae"] == 0.1 + 0.2 and math.isnan(read.metrics["valid/corr"])
    assert json.loads((tmp_path / "result.json").read_text())["format"] == FORMAT
    assert read.model_dump(exclude={"metrics", "seconds"}) == written.model_dump(exclude={"metrics", "seconds"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: {k: v for k, v in content.items() if k != "seed"}, "lacks seed"),
        (lambda content: content | {"data": {"fingerprint": "a"}}, "lacks data.store"),
        (lambda content: content | {"metrics": "many"}, "is damaged"),
        (lambda content: content | {"status": "odd"}, "is damaged"),
        (lambda content: [content], "is damaged"),
        (lambda content: content | {"format": FORMAT + 1}, "newer mmsa"),
        (lambda content: content | {"seed": True}, r"is damaged \(seed: "),
        (lambda content: content | {"seed": "1"}, r"is damaged \(seed: "),
        (lambda content: content | {"planted": 1}, r"is damaged \(planted: "),
        (lambda content: content | {"num_parameters": 10**400}, r"is damaged \(num_parameters: "),
        (lambda content: content | {"metrics": {"test/mae": 10**400}}, r"is damaged \(metrics.test/mae: "),
        (lambda content: content | {"metrics": {"test/mae": 1e101}}, r"is damaged \(metrics.test/mae: "),
        (lambda content: content | {"primary": []}, r"is damaged \(primary: "),
        (
            lambda content: content | {"data": content["data"] | {"fingerprint": "../*"}},
            r"is damaged \(data.fingerprint: ",
        ),
    ],
)
def test_what_is_no_record_is_refused_with_the_reason(spoil: Any, said: str, tmp_path: Path) -> None:
    content = record().model_dump(mode="json")
    (tmp_path / "result.json").write_text(json.dumps(spoil(content)))
    with pytest.raises(DataError, match=said):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "null", '"text"', "[" * 100_000, '{"seed": ' + "9" * 5000 + "}", "{}" + " " * 2**24]
)
def test_a_file_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError, match=r"is damaged|cannot be read"):
        RunRecord.read(tmp_path)


def test_a_pipe_a_device_and_a_folder_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.mkdir):
        make()
        with pytest.raises(DataError, match="cannot be read"):
            RunRecord.read(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()


def test_what_a_newer_version_adds_within_the_format_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(record().model_dump(mode="json") | {"added": 1}))
    assert RunRecord.read(tmp_path) == record()


def test_the_page_of_results_lists_every_field_with_its_type() -> None:
    assert documented() == fields()
