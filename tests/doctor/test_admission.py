"""A run says what the doctor knows of its data, and trains on none with errors unless it is told to."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmsa
from mmsa import build, cli
from mmsa.analysis.runs import by_configuration, read_run
from mmsa.compose import compose
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.dataset import Dataset
from mmsa.doctor import admission
from mmsa.doctor.examination import Diagnosis
from mmsa.errors import DataError
from mmsa.run_folder import run_name
from tests.data.test_unlearnt import NUM, TRAIN, Arrays, arrays, overrides, silence
from tests.readers.pickles import left_padded, write

pytestmark = pytest.mark.usefixtures("undrawn")
QUICK = "trainer.max_epochs=1"


def leaking() -> Arrays:
    """A video in two folds, and audio that is silent in one utterance."""
    content = arrays()
    content["id"][-1] = "v0_2"
    silence(content, "audio", np.arange(NUM) == 1)
    return content


def pickled(folder: Path, videos: type[Dataset] | None) -> Path:
    """A pickle whose ids are videos of a data set's folds, or no data set's."""
    of_fold: dict[str, list[str]] = {fold: [f"made{i}{fold}" for i in range(3)] for fold in ("train", "valid", "test")}
    if videos is not None:
        of_fold = {fold: [] for fold in of_fold}
        for video, fold in videos().fold_of(folder).items():
            of_fold[fold].append(video)
    return drawn(folder, {fold: [f"{video}_1" for video in sorted(held)[:3]] for fold, held in of_fold.items()})


def drawn(folder: Path, ids: dict[str, list[str]]) -> Path:
    """A pickle of utterances of these ids, no two of which are equal."""
    rng, content = np.random.default_rng(0), left_padded(ids)
    for part in content.values():
        part |= {key: part[key] * rng.uniform(1, 2, part[key].shape) for key in ("text", "audio", "vision")}
    return write(folder / "data.pkl", content)


def opened(folder: Path, asked: list[str]) -> list[str]:
    return build.open_data(compose(asked), progress=True)[1].remarks


def test_errors_stop_a_run_unless_it_is_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = overrides(tmp_path, leaking(), QUICK)
    with pytest.raises(
        DataError, match=r"1 error in .*\nvideo_leakage: 1 video .* v0\.\n.*\n.*\n  type dataset.doctor=warn"
    ):
        mmsa.run(asked, quiet=True)
    assert not (tmp_path / "outputs" / "runs").exists()
    folder = mmsa.run([*asked, "dataset.doctor=warn"]).folder
    said = capsys.readouterr()
    assert "the doctor has 1 error and 1 warning of these data: " in said.out
    assert "the doctor has 1 error" in (folder / "run.log").read_text()
    assert "warning zero_utterances" not in said.err  # it was found before this run
    mmsa.load(folder).evaluate("test")


def test_warnings_are_printed_when_they_are_found_and_then_counted_with_the_line_that_shows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = arrays()
    silence(content, "audio", np.arange(NUM) == 1)
    asked = overrides(tmp_path, content, "dataset.name=my_own")
    remarks = []
    for found_now in (True, False):
        remarks.append(opened(tmp_path, asked))
        assert ("warning zero_utterances: audio" in capsys.readouterr().err) == found_now
    assert remarks[0] == remarks[1]
    (said,) = remarks[0]
    counted, _, line = said.partition(": ")
    assert counted == "the doctor has 1 warning of these data"
    program, *typed = shlex.split(line)
    assert Path(program).name == "mmsa" and "--source" in typed
    stores = sorted(tmp_path.glob("*.h5"))
    cli.command([*typed, "--output", str(tmp_path / "report")])
    assert "warning zero_utterances: audio" in capsys.readouterr().out
    assert sorted(tmp_path.glob("*.h5")) == stores  # the same store, not another
    assert opened(tmp_path, [*asked, "dataset.modalities=[text,visual]"]) == []


def test_a_store_is_examined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examined = []
    original = admission.examine
    monkeypatch.setattr(admission, "examine", lambda *both: (examined.append(both), original(*both))[1])
    asked = overrides(tmp_path, arrays())
    for more in ([], ["dataset.modalities=[text]"], ["dataset.normalize=none"]):
        opened(tmp_path, [*asked, *more])
    assert len(examined) == 1
    (kept,) = tmp_path.glob("*-doctor-*.json")
    kept.write_text(kept.read_text()[:-9])
    assert opened(tmp_path, asked) == [] and len(examined) == 2
    (store,) = tmp_path.glob("*.h5")
    later = kept.stat().st_mtime_ns + 10**9
    os.utime(store, ns=(later, later))  # it was made again
    opened(tmp_path, asked)
    assert len(examined) == 3
    diagnosis, _ = admission.diagnosed(*_store(asked))
    assert Diagnosis.from_json(json.loads(json.dumps(diagnosis.as_json()))) == diagnosis


def _store(asked: list[str]) -> tuple[Any, Any]:
    cfg = compose(asked)
    return build.open_data(cfg)[0], build.build_dataset(cfg)


def test_the_built_in_corpus_is_not_examined(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "diagnosed", None)
    assert opened(Path(), small) == []


@pytest.mark.parametrize(
    ("videos", "said"),
    [(CmuMosi, r"9 are videos of cmu_mosi\.\n  Type dataset=cmu_mosi\n"), (None, "made0"), (CmuMosei, "")],
)
def test_a_file_of_another_data_set_is_refused(tmp_path: Path, videos: type[Dataset] | None, said: str) -> None:
    asked = ["dataset=cmu_mosei", f"dataset.source={pickled(tmp_path, videos)}", f"paths.data={tmp_path}"]
    if not said:
        assert "warning" in opened(tmp_path, asked)[0]  # fewer utterances than published
        return
    with pytest.raises(DataError, match=rf"none of 9 videos is in the published folds of CMU-MOSEI.*{said}"):
        opened(tmp_path, asked)
    assert "1 error" in opened(tmp_path, [*asked, "dataset.doctor=warn"])[0]


def test_ids_that_state_no_video_say_nothing_of_their_origin(tmp_path: Path) -> None:
    path = drawn(tmp_path, {fold: [f"{fold}x{i}" for i in range(3)] for fold in ("train", "valid", "test")})
    asked = ["dataset=cmu_mosei", f"dataset.source={path}", f"paths.data={tmp_path}"]
    assert "error" not in opened(tmp_path, asked)[0]


def test_the_option_decides_no_result(tmp_path: Path) -> None:
    asked = overrides(tmp_path, arrays(), QUICK)
    both = [mmsa.run([*asked, *more], quiet=True).folder for more in ([], ["dataset.doctor=warn"])]
    (group,) = by_configuration(map(read_run, both))
    assert "doctor" not in group.label and run_name(["dataset.doctor=warn"]) == "default"


def test_prepare_ends_with_a_line_that_trains_in_spite_of_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = leaking()
    silence(content, "text", TRAIN)
    source = overrides(tmp_path, content)[1].partition("=")[2]
    cli.command(["prepare", "custom", "--source", source, "--data", str(tmp_path)])
    out = capsys.readouterr().out
    assert "error never_trained" in out and "error video_leakage" in out
    typed = shlex.split(out.splitlines()[-1].partition("mmsa train ")[2])
    assert typed[-2:] == ["dataset.modalities=[audio,visual]", "dataset.doctor=warn"]
    quick = ["tracking=none", "device=cpu", "hidden_dim=4", QUICK, f"paths.outputs={tmp_path / 'outputs'}"]
    assert mmsa.run([*typed, *quick], quiet=True).metrics
