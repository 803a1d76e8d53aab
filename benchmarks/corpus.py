"""Utterances in the shape of CMU-MOSEI, made on the spot from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsa.data.store import Prepared, Ragged, Store, offsets_of, write_store

WIDTHS = {"text": 300, "audio": 74, "visual": 35}
LONGEST = 50
_SHAPE, _SCALE = 2.821, 8.146  # mean 22.5 once cut, 4.6 % at the cut


def lengths(count: int, seed: int = 1) -> np.ndarray:
    """(count,) int64 gamma-shaped numbers of words, cut at 50, at least 1."""
    drawn = np.random.default_rng(seed).gamma(_SHAPE, _SCALE, count)
    return np.clip(np.rint(drawn), 1, LONGEST).astype(np.int64)


def prepared(count: int, seed: int = 1) -> Prepared:
    """Word-aligned normal features and uniform labels of `count` utterances: four fifths train, the rest valid and test."""
    generator = np.random.default_rng(seed)
    steps = lengths(count, seed)
    offsets = offsets_of(steps)
    features = {
        m: Ragged(generator.standard_normal((int(offsets[-1]), width), dtype=np.float32), offsets)
        for m, width in WIDTHS.items()
    }
    num_train, num_valid = count - count // 5, count // 10
    folds = ["train"] * num_train + ["valid"] * num_valid + ["test"] * (count - num_train - num_valid)
    videos = [f"video{i // 8}" for i in range(count)]
    ids = [f"{video}[{i % 8}]" for i, video in enumerate(videos)]
    sentiment = generator.uniform(-3, 3, count).astype(np.float32)
    return Prepared(ids, videos, folds, {"sentiment": sentiment}, features)


def store(folder: Path, count: int, seed: int = 1) -> Store:
    """The same as a store of CMU-MOSEI in a folder."""
    path = folder / f"cmu_mosei-{count}-{seed}.h5"
    if not path.exists():
        write_store(path, prepared(count, seed), dataset="cmu_mosei", sources={}, options={"seed": seed})
    return Store.open(path)
