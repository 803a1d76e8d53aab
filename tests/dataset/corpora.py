"""Small corpora of computational sequences for the tests of the data layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mmsa.dataset.dataset import Dataset
from mmsa.dataset.sequences import Sequences
from mmsa.readers.sequence_file import write_sequence

Video = tuple[np.ndarray, np.ndarray]
WIDTHS = {"text": 4, "audio": 3, "visual": 2}


class Tiny(Dataset):
    """A data set of three videos, declared as a user would declare one."""

    name = "tiny"
    title = "Tiny"
    nominal_range = (-3.0, 3.0)
    stated_bound = (-6.0, 6.0)
    format = Sequences()
    sequences: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "words": ("TINY_Words",),
        "text": ("TINY_Vectors",),
        "audio": ("TINY_Audio", "TINY_OldAudio"),
        "visual": ("TINY_Visual",),
        "labels": ("TINY_Labels",),
    }
    origin = "It is made by the tests."

    def fold_of(self, source: Path) -> Mapping[str, str]:
        return {"a": "train", "b": "valid", "c": "test"}


def words(*timed: tuple[float, float, str]) -> Video:
    """Word intervals and words."""
    return np.array([word[:2] for word in timed], dtype=np.float64).reshape(-1, 2), np.array(
        [[word[2].encode()] for word in timed], dtype="S24"
    )


def frames(count: int, width: int, seconds: float = 4.0, value: float = 1.0) -> Video:
    """`count` equal frames over `seconds`; frame i holds value + i."""
    edges = np.linspace(0.0, seconds, count + 1)
    values = np.repeat(value + np.arange(count, dtype=np.float32)[:, None], width, axis=1)
    return np.stack([edges[:-1], edges[1:]], axis=1), values.astype(np.float32)


def labels(*timed: tuple[float, ...]) -> Video:
    """Label intervals in float32, as genuine files hold them, and label rows."""
    table = np.array(timed, dtype=np.float32)
    return table[:, :2], table[:, 2:]


def tiny_sequences(videos: str = "abc") -> dict[str, dict[str, Video]]:
    """Per role the videos of a corpus: two utterances each, two words and a pause, then two words."""
    timed = words((0.0, 1.0, "very"), (1.0, 1.5, "sp"), (1.5, 2.0, "good"), (2.0, 3.0, "not"), (3.0, 4.0, "bad"))
    return {
        "words": dict.fromkeys(videos, timed),
        "text": {video: (timed[0], np.arange(20, dtype=np.float32).reshape(5, 4)) for video in videos},
        "audio": {video: frames(40, WIDTHS["audio"]) for video in videos},
        "visual": {video: frames(20, WIDTHS["visual"]) for video in videos},
        "labels": {video: labels((0.0, 2.0, 1.5), (2.0, 4.0, -2.0)) for video in videos},
    }


def write_corpus(folder: Path, sequences: Mapping[str, Mapping[str, Video]]) -> dict[str, Path]:
    """Write a corpus under Tiny's names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for role, videos in sequences.items():
        name = Tiny.sequences[role][0]
        files[role] = folder / f"{name}.csd"
        write_sequence(files[role], name, videos)
    return files


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "source", tiny_sequences())
    return tmp_path / "source"


@pytest.fixture
def stores(tmp_path: Path) -> Path:
    return tmp_path / "stores"
