"""Pickles of every family as the tests make them, and what they hold without padding."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsa.data.prepare import silent
from mmsa.data.store import FOLDS, Prepared
from mmsa.readers import mag_pickle, mult_pickle, multibench_pickle
from mmsa.readers.family import ReadOptions
from mmsa.readers.restricted_pickle import load_pickle

ALL = ReadOptions(required=("text", "audio", "visual"))


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def read_file(path: Path, options: ReadOptions = ALL) -> Prepared:
    """By the one of these families that knows the content."""
    content = load_pickle(path)
    (family,) = (family for family in (mult_pickle, multibench_pickle, mag_pickle) if family.matches(content))
    return family.read(content, options, silent)


def padded(sequences: Sequence[np.ndarray], num_steps: int, side: str) -> np.ndarray:
    """(N, T, D) of N arrays (T_i, D)."""
    array = np.zeros((len(sequences), num_steps, sequences[0].shape[1]), dtype=np.float32)
    for row, steps in zip(array, sequences, strict=True):
        row[(num_steps - len(steps) if side == "left" else 0) :][: len(steps)] = steps
    return array


def filled(num_steps: int, width: int, start: float = 1.0) -> np.ndarray:
    """(T, D) without a zero."""
    return (start + np.arange(num_steps * width, dtype=np.float32)).reshape(num_steps, width)


def left_padded(
    ids: Mapping[str, Sequence[Any]], labels: Any = None, num_steps: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """MulT's and MultiBench's layout: rows of 3, 5, 3, … steps.

    Args:
        ids: of each fold.
        labels: of one row; None numbers the rows 0, 1, … .
        num_steps: T of each key; 6 where it is not named.
    """
    widths, steps = {"text": 4, "audio": 3, "vision": 2}, num_steps or {}
    content: dict[str, dict[str, Any]] = {}
    for fold in FOLDS:
        count = len(ids[fold])
        rows = np.arange(count, dtype=np.float32).reshape(-1, 1, 1)
        content[fold] = {
            key: padded([filled(3 + 2 * (i % 2), width) for i in range(count)], steps.get(key, 6), "left")
            for key, width in widths.items()
        }
        content[fold]["labels"] = rows if labels is None else np.stack([np.asarray(labels)] * count)
        content[fold]["id"] = np.array(ids[fold])
    return content


def assert_same_rows(prepared: Prepared, expected: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Every row's features are those expected of its id, of no other id."""
    assert set(prepared.ids) == set(expected)
    for i, name in enumerate(prepared.ids):
        for modality, steps in expected[name].items():
            np.testing.assert_array_equal(prepared.features[modality][i], steps, err_msg=f"{name} {modality}")


def source_rows(shared: Path) -> dict[str, dict[str, Any]]:
    """The shared corpus by id `video[k]`: fold, score, words, text (n, 300), audio (n, 74), visual (n, 47)."""
    import h5py

    from tests.conftest import existing

    path = existing(shared / "data" / "cmu-mosi-words-valid" / "cmu_mosi_words_valid.h5")
    with h5py.File(path, "r") as file:
        offsets, ids = file["words/offsets"][()], file["words/ids"][()]
        glove, audio, visual = (file[f"words/{key}"][()] for key in ("glove", "audio_covarep", "visual_facet"))
        tokens = file["words/tokens"].asstr()[()]
        rows = {}
        for i, name in enumerate(file["utterance/id"].asstr()[()]):
            part = slice(offsets[i], offsets[i + 1])
            rows[str(name)] = {
                "fold": str(file["utterance/resplit"].asstr()[i]),
                "score": file["utterance/score"][i],
                "words": tokens[part].tolist(),
                "text": glove[ids[part]],
                "audio": audio[part],
                "visual": visual[part],
            }
    return rows
