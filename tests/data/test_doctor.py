"""The doctor finds each defect in a store that has just that one, and nothing wrong in a clean store."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmsa import cli
from mmsa.data import doctor_measures
from mmsa.data.cmu_mosi import CmuMosi
from mmsa.data.doctor import Diagnosis, brief, examine, summary
from mmsa.data.doctor_page import page
from mmsa.data.known_files import KNOWN_FILES, known_file
from mmsa.data.store import Prepared, Ragged, Store, write_store
from mmsa.data.ur_funny import UrFunny
from mmsa.errors import ConfigError, DataError
from tests.data.corpora import Tiny

WIDTHS = {"text": 5, "audio": 4, "visual": 3}
PER_FOLD = {"train": 24, "valid": 6, "test": 6}


def clean() -> Prepared:
    """36 utterances of 12 videos, three each, 3 to 9 steps, without any defect."""
    rng = np.random.default_rng(0)
    folds = [fold for fold, count in PER_FOLD.items() for _ in range(count)]
    videos = [f"v{i // 3:02d}" for i in range(len(folds))]
    lengths = rng.integers(3, 10, size=len(folds))
    return Prepared(
        ids=[f"{video}[{i % 3}]" for i, video in enumerate(videos)],
        videos=videos,
        folds=folds,
        targets={"sentiment": rng.uniform(-3, 3, size=len(folds)).astype(np.float32)},
        features={
            m: Ragged.join([rng.normal(1, 1, size=(n, width)).astype(np.float32) for n in lengths])
            for m, width in WIDTHS.items()
        },
        report={"non_finite": dict.fromkeys(WIDTHS, 0), "dropped": {}},
    )


def stored(folder: Path, prepared: Prepared, *, dataset: str = "tiny", sha256: str = "ab" * 32) -> Store:
    write_store(folder / "s.h5", prepared, dataset=dataset, sources={"pickle": sha256}, options={"keep_pauses": False})
    return Store.open(folder / "s.h5")


def diagnosed(folder: Path, prepared: Prepared) -> Diagnosis:
    return examine(stored(folder, prepared), Tiny())


def replace(prepared: Prepared, modality: str, row: int, steps: np.ndarray) -> None:
    """Give one utterance other features."""
    ragged = prepared.features[modality]
    sequences = [ragged[i] if i != row else steps.astype(np.float32) for i in range(len(ragged))]
    prepared.features[modality] = Ragged.join(sequences)


def copy_row(prepared: Prepared, source: int, target: int, modalities: tuple[str, ...]) -> None:
    for modality in modalities:
        replace(prepared, modality, target, prepared.features[modality][source])


def empty_test(prepared: Prepared) -> None:
    prepared.folds[:] = ["valid" if fold == "test" else fold for fold in prepared.folds]


def leak_video(prepared: Prepared) -> None:
    prepared.videos[24] = prepared.videos[0]
    prepared.ids[24] = f"{prepared.videos[0]}[9]"


def repeat_id(prepared: Prepared) -> None:
    prepared.ids[1] = prepared.ids[0]


def spoil_label(prepared: Prepared) -> None:
    prepared.targets["sentiment"][30] = np.nan


def spoil_feature(prepared: Prepared) -> None:
    prepared.features["audio"].values[3, 2] = -np.inf


def mended(prepared: Prepared) -> None:
    prepared.report["non_finite"]["audio"] = 7


def silence(prepared: Prepared) -> None:
    replace(prepared, "visual", 2, np.zeros((4, 3)))


def cut_to_one(prepared: Prepared) -> None:
    replace(prepared, "visual", 2, np.ones((1, 3)))


def take_away(prepared: Prepared) -> None:
    replace(prepared, "visual", 2, np.zeros((0, 3)))


def constant(prepared: Prepared) -> None:
    text = prepared.features["text"]
    text.values[: text.offsets[24], 4] = 2.0  # on the train fold


def zero(prepared: Prepared) -> None:
    prepared.features["text"].values[:, 4] = 0.0


def tell_label(prepared: Prepared) -> None:
    audio = prepared.features["audio"]
    audio.values[:, 1] = np.repeat(-prepared.targets["sentiment"], audio.lengths)


def normalise(prepared: Prepared) -> None:
    audio = prepared.features["audio"]
    for i in range(len(audio)):
        audio[i][:] = (audio[i] - audio[i].mean(axis=0)) / audio[i].std(axis=0)


def beyond(prepared: Prepared) -> None:
    prepared.targets["sentiment"][5] = 10 / 3


def one_label(prepared: Prepared) -> None:
    prepared.targets["sentiment"][:24] = 1.0


def lose_rows(prepared: Prepared) -> None:
    prepared.report["dropped"] = {"no steps": ["x[0]", "x[1]"], "label not finite": []}


DEFECTS: dict[str, tuple[str, Callable[[Prepared], None]]] = {
    "empty_fold": ("error", empty_test),
    "video_leakage": ("error", leak_video),
    "duplicate_ids": ("error", repeat_id),
    "labels_not_finite": ("error", spoil_label),
    "features_not_finite": ("error", spoil_feature),
    "content_across_folds": ("error", lambda p: copy_row(p, 0, 30, tuple(WIDTHS))),
    "content_within_fold": ("warning", lambda p: copy_row(p, 0, 10, tuple(WIDTHS))),
    "equal_modality": ("note", lambda p: copy_row(p, 0, 30, ("text",))),
    "non_finite": ("warning", mended),
    "zero_utterances": ("warning", silence),
    "one_step": ("note", cut_to_one),
    "absent": ("note", take_away),
    "constant_columns": ("warning", constant),
    "zero_columns": ("warning", zero),
    "suspicious_column": ("warning", tell_label),
    "normalised_per_utterance": ("warning", normalise),
    "labels_beyond_range": ("warning", beyond),
    "constant_labels": ("warning", one_label),
    "dropped": ("note", lose_rows),
}


def test_nothing_is_found_in_a_clean_store(tmp_path: Path) -> None:
    diagnosis = diagnosed(tmp_path, clean())
    assert diagnosis.findings == ()
    assert diagnosis.verdict == "0 errors, 0 warnings, 0 notes"


@pytest.mark.parametrize("block", [1, 200, 1 << 23])
@pytest.mark.parametrize("code", DEFECTS)
def test_each_defect_is_found_and_nothing_else(
    code: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_measures, "_BLOCK", block)  # what is found does not depend on how it is read
    severity, spoil = DEFECTS[code]
    prepared = clean()
    spoil(prepared)
    diagnosis = diagnosed(tmp_path, prepared)
    assert [(finding.severity, finding.code) for finding in diagnosis.findings] == [(severity, code)]
    assert any(character.isdigit() for character in diagnosis.findings[0].text) or code == "empty_fold"


@pytest.mark.parametrize("steps", [np.ones((6, 4)), np.repeat([[1.0], [2.0]], 3, axis=0) * np.ones(4)])
def test_a_copied_sensor_across_folds_is_an_error_but_one_that_hardly_changes_is_not(
    steps: np.ndarray, tmp_path: Path
) -> None:
    prepared = clean()
    copy_row(prepared, 0, 30, ("audio",))
    (error, note) = diagnosed(tmp_path, prepared).findings
    assert (error.severity, error.code) == ("error", "content_across_folds")
    assert "audio" in error.text and prepared.ids[0] in error.text and prepared.ids[30] in error.text
    assert note.code == "equal_modality"
    prepared = clean()
    for row in (1, 30):
        replace(prepared, "audio", row, steps)
    assert [finding.code for finding in diagnosed(tmp_path, prepared).findings] == ["equal_modality"]


def test_silent_utterances_are_no_copies_of_each_other(tmp_path: Path) -> None:
    prepared = clean()
    for row in (0, 30):
        for modality, width in WIDTHS.items():
            replace(prepared, modality, row, np.zeros((4, width)))
    assert {finding.code for finding in diagnosed(tmp_path, prepared).findings} == {"zero_utterances"}


def test_numbers_are_those_of_the_arrays(tmp_path: Path) -> None:
    prepared = clean()
    replace(prepared, "visual", 0, np.zeros((0, 3)))
    measured = diagnosed(tmp_path, prepared).numbers
    lengths = prepared.features["audio"].lengths
    audio = measured["modalities"]["audio"]
    spread = {"min": lengths.min(), "median": np.median(lengths), "mean": lengths.mean(), "max": lengths.max()}
    assert audio["steps"] == pytest.approx({**spread, "one": 0, "none": 0})
    assert sum(audio["step_histogram"]["counts"]) == len(lengths)
    assert measured["modalities"]["visual"]["steps"]["none"] == 1
    means = np.array([prepared.features["audio"][i].mean(axis=0) for i in range(24)])
    r = [np.corrcoef(column, prepared.targets["sentiment"][:24])[0, 1] for column in means.T]
    best = int(np.abs(r).argmax())
    assert audio["most_correlated"]["column"] == best
    assert audio["most_correlated"]["correlation"] == pytest.approx(r[best], rel=1e-4)
    labels = measured["targets"]["sentiment"]["folds"]["valid"]
    assert labels["mean"] == pytest.approx(prepared.targets["sentiment"][24:30].mean())
    assert sum(labels["histogram"]["counts"]) == sum(labels["signs"].values()) == 6


def test_columns_far_from_zero_keep_their_correlation(tmp_path: Path) -> None:
    prepared = clean()
    prepared.features["audio"].values[:] += 1e4
    shifted = diagnosed(tmp_path, prepared)
    assert shifted.findings == ()
    plain = diagnosed(tmp_path, clean()).numbers["modalities"]["audio"]["most_correlated"]
    assert shifted.numbers["modalities"]["audio"]["most_correlated"]["correlation"] == pytest.approx(
        plain["correlation"], abs=0.01
    )


def test_uneven_classes_and_published_sizes_are_named(tmp_path: Path) -> None:
    prepared = clean()
    prepared.targets = {"humor": np.array([i % 10 == 0 for i in range(36)], dtype=np.float32)}
    diagnosis = examine(stored(tmp_path, prepared, dataset="ur_funny"), UrFunny())
    assert [finding.code for finding in diagnosis.findings] == ["fold_sizes", "class_balance"]
    assert "train 24 instead of 10598" in diagnosis.findings[0].text
    assert "train 12.5%" in diagnosis.findings[1].text


@pytest.mark.parametrize("known", KNOWN_FILES, ids=lambda known: known.prefix)
def test_a_published_file_is_known_by_the_beginning_of_its_hash(tmp_path: Path, known: object) -> None:
    prefix, dataset = known.prefix, known.dataset  # type: ignore[attr-defined]
    assert known_file(prefix + "0" * 56) is known and known_file("0" + prefix[1:] + "0" * 56) is None
    found = examine(stored(tmp_path, clean(), dataset="cmu_mosi", sha256=prefix + "0" * 56), CmuMosi()).findings
    own = [finding for finding in found if finding.code in ("known_file", "other_data_set")]
    assert [f.code for f in own] == ["known_file" if dataset == "cmu_mosi" else "other_data_set"]


def test_a_store_without_features_or_with_other_names_is_examined(tmp_path: Path) -> None:
    prepared = clean()
    prepared.features = {}
    prepared.words = [["yes"]] * 36
    diagnosis = diagnosed(tmp_path, prepared)
    assert diagnosis.findings == () and "<h2>Modalities</h2>" in page(diagnosis)
    prepared = clean()
    prepared.features = {"$gaze_{": prepared.features["audio"]}
    assert "$gaze_{" in page(diagnosed(tmp_path, prepared))


class _Page(HTMLParser):
    """The tags of a page, what they point to, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.places: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.places += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


HOSTILE = "<script>x<b>'\"&\x1b[31m"


def test_the_page_is_one_file_and_escapes_what_comes_from_files(tmp_path: Path) -> None:
    prepared = clean()
    prepared.videos[0] = prepared.videos[24] = HOSTILE
    prepared.ids[0] = prepared.ids[1] = HOSTILE
    prepared.report["files"] = {"pickle": HOSTILE}
    prepared.report["family"] = HOSTILE
    prepared.report["dropped"] = {HOSTILE: ["x"]}
    prepared.features[HOSTILE] = prepared.features.pop("visual")
    prepared.targets[HOSTILE] = prepared.targets["sentiment"]
    diagnosis = diagnosed(tmp_path, prepared)
    html = page(diagnosis)
    parsed = _Page(html)
    assert "<script" not in html and "script" not in parsed.tags and "\x1b" not in html
    assert HOSTILE.replace("\x1b", "?") in parsed.words
    assert parsed.places and all(place.startswith("data:image/png;base64,") for place in parsed.places)
    assert all(base64.b64decode(place.partition(",")[2]).startswith(b"\x89PNG") for place in parsed.places)
    assert "url(" not in html and "@import" not in html
    assert "\x1b" not in "".join(summary(diagnosis) + brief(diagnosis))


def test_page_and_json_agree_and_the_screen_has_room(tmp_path: Path) -> None:
    prepared = clean()
    for code in ("content_across_folds", "labels_not_finite", "zero_columns", "beyond", "one_step", "zero_utterances"):
        (DEFECTS[code][1] if code in DEFECTS else beyond)(prepared)
    normalise(prepared)
    diagnosis = diagnosed(tmp_path, prepared)
    content = json.loads(json.dumps(diagnosis.as_json()))
    words = _Page(page(diagnosis)).words
    assert sum(content["counts"].values()) == len(content["findings"]) >= 6
    for finding in content["findings"]:
        assert finding["code"] in words and finding["text"] in words and finding["advice"] in words
    html = page(diagnosis)
    for severity, count in content["counts"].items():
        assert len(re.findall(f"badge {severity}'", html)) == count
    for fold, part in content["folds"].items():
        assert f"{fold}</td><td class='n'>{part['utterances']}</td>" in html
    assert len(summary(diagnosis)) <= 28 and len(brief(diagnosis)) <= 6
    severities = [finding["severity"] for finding in content["findings"]]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


def test_the_screen_says_how_much_it_leaves_out(tmp_path: Path) -> None:
    prepared = clean()
    for number in range(30):
        spoilt = prepared.targets["sentiment"].copy()
        spoilt[number] = np.nan
        prepared.targets[f"t{number}"] = spoilt
    diagnosis = diagnosed(tmp_path, prepared)
    lines = summary(diagnosis)
    shown = sum(line.startswith("error labels_not_finite") for line in lines)
    assert len(lines) <= 28 and lines[-1] == f"and {30 - shown} more findings"
    assert brief(diagnosis)[-1] == "  and 26 more: type mmsa doctor tiny"


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
    prepared = clean()
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
    write_store(path, clean(), dataset="cmu_mosi", sources={}, options={"keep_pauses": False})
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
