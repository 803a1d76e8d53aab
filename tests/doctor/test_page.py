"""What the doctor shows: the page, the JSON, the screen and the exit code, on every sample."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmsa import cli
from mmsa.data.store import write_store
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.ur_funny import UrFunny
from mmsa.doctor.examination import brief, diagnosis_lines, examine
from mmsa.doctor.page import page
from mmsa.errors import ConfigError, DataError
from tests.doctor.test_examination import DEFECTS, beyond, clean, diagnosed, leak_video, normalise
from tests.pages import Page


def parsed(html: str) -> Page:
    found = Page()
    found.feed(html)
    return found


MARKUP = "<script>x<b>'\"&"
HOSTILE = f"{MARKUP}\x1b[31m"


def test_the_page_is_one_file_and_escapes_what_comes_from_files(tmp_path: Path) -> None:
    prepared = clean()
    prepared.videos[0] = prepared.videos[24] = HOSTILE
    prepared.ids[0] = prepared.ids[1] = HOSTILE
    prepared.report["files"] = {"pickle": HOSTILE}
    prepared.report["family"] = HOSTILE
    prepared.report["dropped"] = {HOSTILE: ["x"]}
    prepared.features[MARKUP] = prepared.features.pop("visual")
    prepared.targets[MARKUP] = prepared.targets["sentiment"]
    diagnosis = diagnosed(tmp_path, prepared)
    html = page(diagnosis)
    found = parsed(html)
    places = {value for name, value in found.attributes if name in ("src", "href")}
    assert "<script" not in html and "script" not in found.seen and "\x1b" not in html
    assert HOSTILE.replace("\x1b", r"\x1b") in found.text
    assert places and all(place.startswith("data:image/png;base64,") for place in places)
    assert all(base64.b64decode(place.partition(",")[2]).startswith(b"\x89PNG") for place in places)
    assert "url(" not in html and "@import" not in html
    assert "\x1b" not in "".join(diagnosis_lines(diagnosis) + brief(diagnosis, ""))


def test_a_main_target_of_several_columns_has_a_page(tmp_path: Path) -> None:
    prepared = clean()
    prepared.targets = {"mood": np.stack([prepared.targets["sentiment"]] * 3, axis=1)}
    assert parsed(page(diagnosed(tmp_path, prepared))).text.count("mood") >= 3


def test_page_and_json_agree_and_the_screen_has_room(tmp_path: Path) -> None:
    prepared = clean()
    for code in ("content_across_folds", "labels_not_finite", "zero_columns", "beyond", "one_step", "zero_utterances"):
        (DEFECTS[code][1] if code in DEFECTS else beyond)(prepared)
    normalise(prepared)
    diagnosis = diagnosed(tmp_path, prepared)
    content = json.loads(json.dumps(diagnosis.as_json()))
    words = parsed(page(diagnosis)).text
    assert sum(content["counts"].values()) == len(content["findings"]) >= 6
    for finding in content["findings"]:
        assert finding["code"] in words and finding["text"] in words and finding["advice"] in words
    html = page(diagnosis)
    for severity, count in content["counts"].items():
        assert len(re.findall(f"badge {severity}'", html)) == count
    for fold, part in content["folds"].items():
        assert f"{fold}</td><td class='n'>{part['utterances']}</td>" in html
    assert len(diagnosis_lines(diagnosis)) <= 28 and len(brief(diagnosis, "")) <= 6
    severities = [finding["severity"] for finding in content["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_the_screen_says_how_much_it_leaves_out(tmp_path: Path) -> None:
    prepared = clean()
    for number in range(30):
        spoilt = prepared.targets["sentiment"].copy()
        spoilt[number] = np.nan
        prepared.targets[f"t{number}"] = spoilt
    diagnosis = diagnosed(tmp_path, prepared)
    lines = diagnosis_lines(diagnosis)
    shown = sum(line.startswith("error labels_not_finite") for line in lines)
    assert len(lines) <= 28 and lines[-1] == f"and {30 - shown} more findings"
    assert brief(diagnosis, "mmsa doctor tiny --source x")[-1] == "  and 26 more: type mmsa doctor tiny --source x"


def test_the_command_writes_its_report_and_finds_no_error_in_the_built_in_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data"), f"paths.outputs={tmp_path / 'outputs'}"]
    cli.command(["doctor", "synthetic", *data])
    said = capsys.readouterr().out
    (folder,) = (tmp_path / "outputs" / "doctor").iterdir()
    assert folder.name.startswith("synthetic-") and str(folder / "report.html") in said
    report = json.loads((folder / "report.json").read_text())
    assert report["counts"]["error"] == 0 and "0 errors" in said and len(said.splitlines()) <= 30
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    cli.command(["prepare", "synthetic", *data])
    assert "the doctor: 0 errors" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is a file"):
        cli.command(["doctor", "synthetic", *data, "--output", str(folder / "report.json")])


def test_the_command_fails_on_errors_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, sound = clean(), clean()
    sound.report["ids"] = prepared.report["ids"] = {"own_video": 36}  # they state no video of CMU-MOSI's
    leak_video(prepared)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "cmu_mosi-0.h5"
    words = ["doctor", "cmu_mosi", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "report")]
    write_store(path, prepared, dataset="cmu_mosi", sources={}, options={"keep_pauses": False})
    with pytest.raises(DataError, match="1 error"):
        cli.command(words)
    assert "video_leakage" in capsys.readouterr().out
    assert json.loads((tmp_path / "report" / "report.json").read_text())["leaking_videos"] == ["v00"]
    monkeypatch.setattr("sys.argv", ["mmsa", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "Traceback" not in capsys.readouterr().err
    write_store(path, sound, dataset="cmu_mosi", sources={}, options={"keep_pauses": False})
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "fold_sizes" in capsys.readouterr().out  # a warning


SAMPLES = {
    "mmsa_aligned_50.pkl": ("cmu_mosi", {"normalised_per_utterance", "fold_sizes", "content_within_fold"}),
    "mmsa_unaligned_50.pkl": ("cmu_mosi", {"non_finite", "fold_sizes"}),
    "mult_mosi_data.pkl": ("cmu_mosi", {"normalised_per_utterance"}),
    "multibench_mosi_raw.pkl": ("cmu_mosi", {"zero_columns"}),
    "misa": ("cmu_mosi", {"normalised_per_utterance", "zero_columns"}),
    "ur_funny_v2": ("ur_funny", {"zero_columns", "class_balance"}),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_samples_of_every_family_have_no_error(name: str, tmp_path: Path, shared: Path) -> None:
    dataset, expected = SAMPLES[name]
    kind = {"cmu_mosi": CmuMosi, "ur_funny": UrFunny}[dataset]
    made = kind(source=str(shared / "data" / "pickles" / name), modalities=["audio", "visual"])
    diagnosis = examine(made.prepare(tmp_path, progress=False), made)
    assert diagnosis.of("error") == []
    assert expected <= {finding.code for finding in diagnosis.findings}


def test_computational_sequences_have_no_error(tmp_path: Path, csd_folder: Path) -> None:
    made = CmuMosi(source=str(csd_folder))
    diagnosis = examine(made.prepare(tmp_path, progress=False), made)
    assert diagnosis.of("error") == []
    constant = diagnosis.numbers["modalities"]["audio"]["constant_columns"]
    assert constant == [73]
    assert diagnosis.numbers["modalities"]["visual"]["zero_utterances"] == {"train": 1, "valid": 0, "test": 1}
