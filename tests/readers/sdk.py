"""Aligns computational sequences with the packaged SDK, in a process of its own: it prints, asks and imports torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Steps = dict[str, np.ndarray]


@dataclass(frozen=True)
class Aligned:
    """What the SDK made of a corpus.

    Args:
        by_word: per sequence the step (1, D) of every word "video[i]" that has one.
        by_label: per sequence the steps (L, D) of every label "video[k]", words without frames being zeros.
        seconds: of processor time in its two calls of `align`.
    """

    by_word: dict[str, Steps]
    by_label: dict[str, Steps]
    seconds: float


def align_with_the_sdk(files: Mapping[str, Path], destination: Path, *, epsilon: float = 1e-5) -> Aligned:
    """The official recipe: align to the words by means, fill up with zeros, align to the labels.

    Args:
        files: path by role: words, labels, and every modality.
        destination: file (.npz) for what the other process hands over.
        epsilon: seconds; upstream's, in the place of the packaged version's 1e-3.
    """
    recipe = [f"{role}={path}" for role, path in files.items()]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(destination), str(epsilon), *recipe],
        stdin=subprocess.DEVNULL,  # a question ends in EOFError
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"the SDK failed: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    packed = dict(np.load(destination))
    roles = [role for role in files if role != "labels"]
    return Aligned(
        {role: _unpacked(packed, f"word {role}") for role in roles},
        {role: _unpacked(packed, f"label {role}") for role in roles},
        float(packed["seconds"]),
    )


def _unpacked(packed: Mapping[str, np.ndarray], name: str) -> Steps:
    steps = np.split(packed[f"{name} values"], np.cumsum(packed[f"{name} lengths"])[:-1])
    return dict(zip(packed[f"{name} keys"].astype(str).tolist(), steps, strict=True))


def _packed(dataset: Any, name: str) -> dict[str, np.ndarray]:
    packed = {}
    for role in dataset.keys():  # noqa: SIM118, it is no mapping
        steps = {key: np.asarray(entry["features"]) for key, entry in dataset[role].data.items()}
        packed[f"{name} {role} keys"] = np.array(list(steps))
        packed[f"{name} {role} lengths"] = np.array([len(step) for step in steps.values()])
        packed[f"{name} {role} values"] = np.concatenate(list(steps.values()))
    return packed


def _mean(intervals: np.ndarray, features: np.ndarray) -> np.ndarray:
    return features if features.dtype.kind == "S" else np.mean(features, axis=0)


def _fill_up(dataset: Any) -> None:
    """Zeros where a word has no frame; the packaged version's own `impute` is for Python 2."""
    spoken = dataset["words"].data
    for role in dataset.keys():  # noqa: SIM118, it is no mapping
        entries = dataset[role].data
        shape = next(iter(entries.values()))["features"].shape
        for key, entry in spoken.items():
            entries.setdefault(key, {"intervals": entry["intervals"], "features": np.zeros((1, *shape[1:]))})


def _main(destination: str, epsilon: str, *recipe: str) -> None:
    sdk = importlib.import_module("mmsdk.mmdatasdk")
    sys.modules["mmsdk.mmdatasdk.dataset.dataset"].epsilon = float(epsilon)  # type: ignore[attr-defined]
    files = dict(pair.split("=", 1) for pair in recipe)
    labels = files.pop("labels")
    dataset = sdk.mmdataset(files)
    begun = time.process_time()
    dataset.align("words", collapse_functions=[_mean])
    seconds = time.process_time() - begun
    packed = _packed(dataset, "word")
    _fill_up(dataset)
    dataset.add_computational_sequences({"labels": labels}, None)
    begun = time.process_time()
    dataset.align("labels")
    seconds += time.process_time() - begun
    packed |= _packed(dataset, "label")
    np.savez(destination, seconds=seconds, **packed)  # type: ignore[arg-type]


if __name__ == "__main__":
    _main(*sys.argv[1:])
