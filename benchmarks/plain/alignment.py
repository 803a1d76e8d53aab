"""Alignment of frames to words as a loop, one video, one word and one frame interval after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

EPSILON = 1e-5


def mean_of(intervals: np.ndarray, features: np.ndarray, start: float, end: float) -> np.ndarray:
    """(D,) mean of the frames that overlap an interval; zeros where none does."""
    overlap = np.minimum(intervals[:, 1], end) - np.maximum(intervals[:, 0], start)
    frames = features[overlap > EPSILON]
    return frames.mean(axis=0) if len(frames) else np.zeros(features.shape[1], dtype=np.float32)


def aligned(files: Mapping[str, Path], modalities: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """The utterances of some sequences: the words that overlap each label, per modality (T, D), and the label."""
    opened = {role: h5py.File(path) for role, path in files.items()}
    data = {role: file[next(iter(file))]["data"] for role, file in opened.items()}
    utterances = []
    for video in data["labels"]:
        held = {role: (group[video]["intervals"][()], group[video]["features"][()]) for role, group in data.items()}
        words, _ = held["words"]
        by_word = {m: [mean_of(*held[m], start, end) for start, end in words] for m in modalities}
        for (start, end), label in zip(*held["labels"], strict=True):
            chosen = [i for i, word in enumerate(words) if min(word[1], end) - max(word[0], start) > EPSILON]
            features = {m: np.stack([by_word[m][i] for i in chosen]).astype(np.float32) for m in modalities}
            utterances.append(features | {"label": label[0]})
    for file in opened.values():
        file.close()
    return utterances
