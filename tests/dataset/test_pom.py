"""POM: computational sequences with labels of whole videos in several files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmsa
from mmsa.data.store import FOLDS
from mmsa.dataset.pom import Pom
from mmsa.errors import DataError
from mmsa.readers.sequence_file import write_sequence
from tests.dataset.corpora import Video, labels, tiny_sequences

TRAITS = "POM_Labels_Video_Level_Personality_Traits"
PERSUASION = "POM_Labels_Video_Level_Persuasion"


def videos(each: int = 2) -> list[str]:
    """Some of every fold."""
    folds = Pom().fold_of(Path())
    return [name for fold in FOLDS for name in sorted(v for v, f in folds.items() if f == fold)[:each]]


def corpus(folder: Path, more: dict[str, dict[str, Video]] | None = None) -> Path:
    """The k-th video has the sentiment k + 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, (name, *_) in Pom.sequences.items():
        sequence = dict.fromkeys(videos(), tiny_sequences("a")[role]["a"])
        if role == "labels":
            sequence = {video: labels((0.0, 4.0, k + 1.0)) for k, video in enumerate(videos())}
        write_sequence(folder / f"{name}.csd", name, sequence)
    for name, sequence in (more or {}).items():
        write_sequence(folder / f"{name}.csd", name, sequence)
    return folder


def rated(width: int, start: int = 0) -> dict[str, Video]:
    """The k-th video is rated start + 10 k + column."""
    rows = {v: [start + 10.0 * k + column for column in range(width)] for k, v in enumerate(videos())}
    return {video: labels((0.0, 4.0, *row)) for video, row in rows.items()}


def test_the_standard_folds_are_600_100_and_203_videos() -> None:
    folds = list(Pom().fold_of(Path()).values())
    assert {fold: folds.count(fold) for fold in FOLDS} == Pom.canonical_sizes


def test_a_whole_video_is_an_utterance(tmp_path: Path) -> None:
    store = Pom(str(corpus(tmp_path / "pom"))).prepare(tmp_path, progress=False)
    assert store.ids == [f"{video}[0]" for video in videos()]
    assert list(store.targets) == ["sentiment"]
    assert store.targets["sentiment"].tolist() == [1, 2, 3, 4, 5, 6]
    assert store.features["text"].lengths.tolist() == [4] * 6


def test_further_labels_are_targets_by_number_and_join_their_videos(tmp_path: Path) -> None:
    more = {TRAITS: rated(16), PERSUASION: rated(1, start=3)}
    del more[PERSUASION][videos()[0]]
    more[TRAITS][videos()[5]] = labels((0.0, 4.0, *[np.nan] * 16))
    store = Pom(str(corpus(tmp_path / "pom", more))).prepare(tmp_path, progress=False)
    assert list(store.targets) == ["sentiment", "persuasion", *(f"trait_{k}" for k in range(1, 17))]
    assert store.videos == videos()[1:5]
    assert store.targets["sentiment"].tolist() == [2, 3, 4, 5]
    assert store.targets["persuasion"].tolist() == [13, 23, 33, 43]
    assert store.targets["trait_16"].tolist() == [25, 35, 45, 55]
    assert store.report["skipped_videos"] == {"absent from persuasion": [videos()[0]]}
    assert store.report["dropped"] == {"label not finite": [f"{videos()[5]}[0]"]}
    assert store.report["files"]["trait"] == f"{TRAITS}.csd"
    assert store.report["files"]["labels"] == "POM_Labels_Video_Level_Sentiment.csd"
    assert not list(tmp_path.glob(".pom.*/"))


def test_a_changed_file_of_labels_makes_another_store(tmp_path: Path) -> None:
    first = Pom(str(corpus(tmp_path / "a", {TRAITS: rated(2)}))).prepare(tmp_path, progress=False)
    second = Pom(str(corpus(tmp_path / "b", {TRAITS: rated(2, start=1)}))).prepare(tmp_path, progress=False)
    assert first.path != second.path


def test_labels_of_parts_of_a_video_are_refused(tmp_path: Path) -> None:
    more = {TRAITS: rated(2)}
    more[TRAITS][videos()[1]] = labels((0.0, 2.0, 1, 2), (2.0, 4.0, 1, 2))
    with pytest.raises(DataError, match=rf"video {videos()[1]} needs one row of 2 labels, got float32 \(2, 2\)"):
        Pom(str(corpus(tmp_path / "pom", more))).prepare(tmp_path)


def test_a_run_predicts_sentiment_or_a_trait(tmp_path: Path, small: list[str]) -> None:
    source = corpus(tmp_path / "pom", {TRAITS: rated(2)})
    run = [*small, "dataset=pom", f"dataset.source={source}", "trainer.max_epochs=1", "dataset.doctor=warn"]
    for typed in ([], ["task.target=trait_2"]):
        metrics = mmsa.run([*run, *typed], quiet=True).metrics
        assert "test/mae" in metrics and "test/acc7" not in metrics
