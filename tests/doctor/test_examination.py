"""The doctor finds each defect in a store that has just that one, and nothing wrong in a clean store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmsa.data.naming import EMOTIONS
from mmsa.data.ragged import Ragged
from mmsa.data.store import Prepared, Store, write_store
from mmsa.dataset.cmu_mosi import CmuMosi
from mmsa.dataset.ur_funny import UrFunny
from mmsa.doctor import measures
from mmsa.doctor.examination import Diagnosis, examine
from mmsa.doctor.known_files import KNOWN_FILES, known_file
from mmsa.doctor.page import page
from tests.dataset.corpora import Tiny

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
    prepared.features["text"].values[:, 4] = 2.0


def constant_in_train(prepared: Prepared) -> None:
    text = prepared.features["text"]
    text.values[: text.offsets[24], 4] = 2.0


def take_away_from(*folds: str) -> Callable[[Prepared], None]:
    def spoil(prepared: Prepared) -> None:
        for row in np.flatnonzero(np.isin(prepared.folds, folds)):
            replace(prepared, "visual", row, np.zeros((0, 3)))

    return spoil


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
    "constant_in_train_only": ("warning", constant_in_train),
    "zero_columns": ("warning", zero),
    "suspicious_column": ("warning", tell_label),
    "normalised_per_utterance": ("warning", normalise),
    "labels_beyond_range": ("warning", beyond),
    "constant_labels": ("warning", one_label),
    "dropped": ("note", lose_rows),
    "ids_absent": ("warning", lambda p: p.report.update(ids={"absent": 3})),
    "ids_without_video": ("note", lambda p: p.report.update(ids={"own_video": 3})),
    "numbered_by_start": ("note", lambda p: p.report.update(ids={"numbered_by_start": 3})),
    "padding_assumed": ("note", lambda p: p.report.update(padding={"text": {"test": "left (assumed)"}})),
    "beyond_length": ("warning", lambda p: p.report.update(beyond_length={"text": 0, "audio": 3})),
    "without_steps": ("warning", lambda p: p.report.update(without_steps=["gaze"])),
    "uneven": ("warning", lambda p: p.report.update(uneven={"gaze": "has 3 features per step"})),
    "without_context": ("note", lambda p: p.report.update(without_context={"text": 3})),
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
    monkeypatch.setattr(measures, "_BLOCK", block)  # what is found does not depend on how it is read
    severity, spoil = DEFECTS[code]
    prepared = clean()
    spoil(prepared)
    diagnosis = diagnosed(tmp_path, prepared)
    assert [(finding.severity, finding.code) for finding in diagnosis.findings] == [(severity, code)]
    assert any(character.isdigit() for character in diagnosis.findings[0].text) or code == "empty_fold"


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    ("folds", "severity", "code"),
    [
        (("train",), "error", "never_trained"),
        (("train", "valid", "test"), "error", "never_trained"),
        (("valid",), "warning", "never_evaluated"),
        (("valid", "test"), "warning", "never_evaluated"),
    ],
)
def test_a_modality_that_a_whole_fold_lacks_is_named_with_the_fold(
    folds: tuple[str, ...], severity: str, code: str, silent: bool, tmp_path: Path
) -> None:
    prepared = clean()
    if silent:
        rows = np.repeat(np.isin(prepared.folds, folds), prepared.features["visual"].lengths)
        prepared.features["visual"].values[rows] = 0.0
    else:
        take_away_from(*folds)(prepared)
    beside = ("warning", "zero_utterances") if silent else ("note", "absent")
    diagnosis = diagnosed(tmp_path, prepared)
    assert [(finding.severity, finding.code) for finding in diagnosis.findings] == [(severity, code), beside]
    said = diagnosis.findings[0]
    assert said.modality == "visual"
    if code == "never_trained":
        assert said.advice == "Type dataset.modalities=[text,audio]"
    else:
        assert all((fold in said.text.partition("(")[0]) == (fold in folds) for fold in ("valid", "test"))


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


def test_the_first_of_what_is_counted_are_named(tmp_path: Path) -> None:
    prepared = clean()
    beyond(prepared)
    lost = [f"x[{k}]" for k in range(5)]
    prepared.report |= {"dropped": {"no steps": lost}, "skipped_videos": {"absent from audio": ["y"]}}
    prepared.report |= {"beyond_length": {"audio": 9}, "beyond_length_utterances": {"audio": lost}}
    diagnosis = diagnosed(tmp_path, prepared)
    said = {finding.code: finding.text for finding in diagnosis.findings}
    assert said["labels_beyond_range"].endswith(f"the furthest 3.33333: {prepared.ids[5]}.")
    assert "no steps 5 (x[0], x[1], x[2] and 2 more)" in said["dropped"]
    assert "absent from audio 1 (y)" in said["skipped_videos"] and "x[2] and 2 more" in said["beyond_length"]
    assert diagnosis.as_json()["dropped"] == {"no steps": lost}


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


def test_the_columns_of_a_target_have_the_names_that_are_known(tmp_path: Path) -> None:
    prepared = clean()
    drawn = np.random.default_rng(3).normal(size=(36, 6)).astype(np.float32)
    prepared.targets |= {"emotions": drawn, "trait": drawn[:, :2]}
    numbers = diagnosed(tmp_path, prepared).numbers
    names = ["sentiment", *(f"emotions {name}" for name in EMOTIONS), "trait 1", "trait 2"]
    assert list(numbers["targets"]) == names
