"""A packed model: loaded, and predicting."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmsa
from benchmarks.children import ran
from benchmarks.corpus import store
from benchmarks.measuring import Contender, Contest, Size, Work
from benchmarks.ours import composed
from benchmarks.plain import loop
from benchmarks.plain.mmlatch import MMLatch
from benchmarks.shape import lengths
from benchmarks.starting import full
from mmsa import experiment
from mmsa.serving.pack import pack

NUM_TRAINED = 20
"""Utterances that the packed model was trained on: it need not be good."""


@cache
def packed(folder: Path, size: Size) -> Path:
    """MMLatch, trained for an epoch and packed."""
    corpus = store(folder, replace(size, num_utterances=NUM_TRAINED)).path
    overrides = ["experiment=mmlatch", "dataset=custom", f"dataset.source={corpus}", "device=cpu", "tracking=none"]
    overrides += [f"paths.outputs={folder / 'outputs'}", f"paths.data={folder / 'stores'}", "trainer.max_epochs=1"]
    overrides += size.overrides
    result = experiment.run(composed(overrides), overrides, quiet=True)
    return pack([result.folder]).folder


def plain_model(folder: Path, size: Size) -> Path:
    """The plain MMLatch of the same width as its weights alone."""
    path = folder / "plain.pt"
    torch.save(empty(size).state_dict(), path)
    return path


def empty(size: Size) -> MMLatch:
    """A plain MMLatch."""
    return MMLatch(size.widths, 4 if size.short else 100, "recurrent")


def load_plain(path: Path, size: Size) -> MMLatch:
    """The model of these weights."""
    model = empty(size)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def load(folder: Path, size: Size) -> Contest:
    """From the packed folder to a model in memory; plainly, from its weights."""
    ours, weights = packed(folder, size), plain_model(folder, size)

    def loaded() -> Work:
        mmsa.load(ours)
        return Work()

    def loaded_plainly() -> Work:
        load_plain(weights, size)
        return Work()

    return Contest("model", [Contender("ours", loaded)], Contender("plain", loaded_plainly))


def predict(batch_size: int, folder: Path, size: Size) -> Contest:
    """Predictions of raw utterances, so many a call.

    Args:
        batch_size: utterances of a call.
        folder: of the corpus and the model.
        size: how many calls.
    """
    generator = np.random.default_rng(2)
    utterances: list[dict[str, Any]] = [
        {m: generator.standard_normal((num_steps, dim), dtype=np.float32) for m, dim in size.widths.items()}
        for num_steps in lengths(4 if size.short else 64, 2)
    ]
    calls = [utterances[start : start + batch_size] for start in range(0, len(utterances), batch_size)]
    model: Any = mmsa.load(packed(folder, size))
    plain = load_plain(plain_model(folder, size), size)
    torch.use_deterministic_algorithms(False)  # the training has switched it on; a program that predicts has not

    def ours() -> Work:
        for call in calls:
            mmsa.predict(model, call if batch_size > 1 else call[0])
        return Work(len(utterances))

    def plainly() -> Work:
        for call in calls:
            items = [{m: torch.from_numpy(x) for m, x in each.items()} | {"label": torch.zeros(())} for each in call]
            loop.evaluate(plain, [loop.collate(items)])
        return Work(len(utterances))

    return Contest("utterance", [Contender("ours", ours)], Contender("plain", plainly))


one, several = partial(predict, 1), partial(predict, 32)


def memory(folder: Path, size: Size) -> Contest:
    """Programs that load the model and predict an utterance, for their start and their memory."""
    size = full(size)
    ours, weights = packed(folder, size), plain_model(folder, size)
    return Contest(
        "program",
        [Contender("ours", lambda: Work(peak=ran("predict", str(ours))))],
        Contender("plain", lambda: Work(peak=ran("plain-predict", str(weights)))),
    )
