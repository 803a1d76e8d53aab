"""Utterances in the shape of CMU-MOSEI, made on the spot from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.measuring import Size
from benchmarks.shape import lengths
from mmsa.data.ragged import Ragged, offsets_of
from mmsa.data.store import FOLDS, Prepared, Store, write_store
from mmsa.dataset.cmu_mosei import CmuMosei
from mmsa.dataset.folds import standard_folds
from mmsa.readers.sequence_file import write_sequence

WORDS_A_SECOND = 3


def prepared(size: Size, steps: np.ndarray | None = None) -> Prepared:
    """Normal features, word-aligned, and uniform labels; four fifths are train, the rest valid and test.

    Args:
        size: how many utterances, and how wide.
        steps: (num_utterances,) of each; None has those of CMU-MOSEI's shape.
    """
    count = size.num_utterances
    generator = np.random.default_rng(1)
    offsets = offsets_of(lengths(count) if steps is None else steps)
    features = {
        m: Ragged(generator.standard_normal((int(offsets[-1]), width), dtype=np.float32), offsets)
        for m, width in size.widths.items()
    }
    num_train, num_valid = count - count // 5, count // 10
    folds = ["train"] * num_train + ["valid"] * num_valid + ["test"] * (count - num_train - num_valid)
    videos = [f"{fold}{i // 8}" for i, fold in enumerate(folds)]
    ids = [f"{video}[{i % 8}]" for i, video in enumerate(videos)]
    sentiment = generator.uniform(-3, 3, count).astype(np.float32)
    return Prepared(ids, videos, folds, {"sentiment": sentiment}, features)


def store(folder: Path, size: Size) -> Store:
    """The same as a store of CMU-MOSEI in a folder, made where it is not there yet."""
    path = folder / f"cmu_mosei-{size.num_utterances}-{size.widths['text']}.h5"
    if not path.exists():
        write_store(path, prepared(size), dataset="cmu_mosei", sources={}, options={})
    return Store.open(path)


def sequences(folder: Path, size: Size) -> dict[str, Path]:
    """Sequences, a file per role: 7 utterances a video, 3 words, 100 audio and 30 visual frames a second."""
    folder.mkdir(exist_ok=True)
    files = {role: folder / f"{names[0]}.csd" for role, names in CmuMosei.sequences.items()}
    if all(path.exists() for path in files.values()):
        return files
    generator = np.random.default_rng(1)
    videos: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {role: {} for role in files}
    folds = standard_folds(CmuMosei.sdk_name, CmuMosei.sdk_folds)
    chosen = [next(video for video, of in folds.items() if of == fold) for fold in FOLDS]
    chosen += [video for video in folds if video not in chosen][: size.num_videos - len(chosen)]
    for number, video in enumerate(chosen):
        steps = lengths(7, number)
        ends = np.cumsum(steps) / WORDS_A_SECOND
        num_words = int(steps.sum())
        timed = _intervals(num_words, WORDS_A_SECOND)
        videos["words"][video] = timed, np.full((num_words, 1), b"word", dtype="S24")
        videos["text"][video] = timed, generator.standard_normal((num_words, size.widths["text"]), dtype=np.float32)
        for m, rate in (("audio", 100), ("visual", 30)):
            num_frames = int(ends[-1] * rate)
            frames = generator.standard_normal((num_frames, size.widths[m]), dtype=np.float32)
            videos[m][video] = _intervals(num_frames, rate), frames
        labels = generator.uniform(-3, 3, (7, 7)).astype(np.float32)
        videos["labels"][video] = np.stack([np.concatenate([[0.0], ends[:-1]]), ends], axis=1), np.abs(labels)
    for role, path in files.items():
        write_sequence(path, path.stem, videos[role])
    return files


def _intervals(count: int, rate: int) -> np.ndarray:
    edges = np.arange(count + 1) / rate
    return np.stack([edges[:-1], edges[1:]], axis=1)
