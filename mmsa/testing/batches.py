"""Small random batches that hold every odd case, and changes of them that must not change a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmsa.types import Batch, Output, padding_mask

PAD, CLS, SEP, NUM_IDS = 0, 2, 3, 16
"""An encoder that reads word pieces is given ids of 4 to 15 between 2 and 3, and 0 as padding."""
WIDTHS = {"text": 6, "audio": 4, "visual": 3, "gaze": 2}
AXES: dict[str, Callable[[int], int]] = {
    "text": lambda words: words,
    "audio": lambda words: words + 3,
    "visual": lambda words: 1 + words // 2,
    "gaze": lambda words: 2 * words,
}
"""The steps of each modality for some words, where each has an axis of its own."""
MAX_STEPS = 20
"""No utterance has more, with any padding."""


def widths(num_modalities: int) -> dict[str, int]:
    """The width of each of the first modalities."""
    return dict(list(WIDTHS.items())[:num_modalities])


def make_batch(
    num_modalities: int = 3,
    lengths: Sequence[int] = (4, 9, 1, 6),
    absent: Sequence[tuple[str, int]] = (),
    seed: int = 0,
    aligned: bool = True,
    targets: Sequence[str] = ("sentiment",),
) -> Batch:
    """Random utterances.

    Args:
        num_modalities: of WIDTHS.
        lengths: words of each utterance.
        absent: modalities that an utterance lacks, as (modality, its number).
        seed: of the values.
        aligned: False gives each modality steps of its own.
        targets: their names; "emotions" has six columns.
    """
    generator = torch.Generator().manual_seed(seed)
    features, steps = {}, {}
    for modality, width in widths(num_modalities).items():
        own = [n if aligned else AXES[modality](n) for n in lengths]
        steps[modality] = torch.tensor([0 if (modality, i) in absent else n for i, n in enumerate(own)])
        values = torch.randn(len(lengths), max(own), width, generator=generator)
        features[modality] = values.masked_fill(padding_mask(steps[modality], max(own))[:, :, None], 0.0)
    rows = torch.arange(len(lengths))
    shapes = {name: (len(lengths), 6) if name == "emotions" else (len(lengths),) for name in targets}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return Batch(features, steps, drawn, rows, tuple(f"v[{i}]" for i in rows.tolist()))


def in_pieces(batch: Batch) -> Batch:
    """The same with random word pieces as text, drawn from the vectors: every third word has two of them."""
    vectors, lengths = batch.features["text"], batch.lengths["text"]
    drawn = 4 + (vectors.abs().sum(dim=2) * 1000).long() % (NUM_IDS - 4)  # (B, T)
    rows = []
    for words, length in zip(drawn.tolist(), lengths.tolist(), strict=True):
        ids = [(word, n) for n, word in enumerate(words[:length]) for _ in range(1 + (n % 3 == 2))]
        rows.append([(CLS, -1), *ids, (SEP, -1)] if length else [])
    features = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    pieces = torch.zeros(len(rows), vectors.shape[1], features.shape[1], dtype=torch.bool)
    for row, ids in enumerate(rows):
        for place, (number, word) in enumerate(ids):
            features[row, place] = number
            if word >= 0:
                pieces[row, word, place] = True
    return replace(batch, features={**batch.features, "text": features}, pieces={"text": pieces})


def lengthened(batch: Batch, steps: int) -> Batch:
    """The same with more padding."""
    features = {m: pad(x, (0, 0, 0, steps)) for m, x in batch.features.items() if m not in batch.pieces}
    features |= {m: pad(batch.features[m], (0, 1)) for m in batch.pieces}  # a small model has few positions
    pieces = {m: pad(x, (0, 1, 0, steps)) for m, x in batch.pieces.items()}
    return replace(batch, features={m: features[m] for m in batch.features}, pieces=pieces)


def soiled(batch: Batch) -> Batch:
    """The same with large values in the padding."""
    dirty = dict(batch.features)
    for modality, x in batch.features.items():
        if modality not in batch.pieces:
            padding = padding_mask(batch.lengths[modality], x.shape[1])
            dirty[modality] = torch.where(padding[:, :, None], 1e3, x)
    return replace(batch, features=dirty)


def changed(batch: Batch, modality: str) -> Batch:
    """The same with other values of one modality in every utterance, absent ones and padding included."""
    x = batch.features[modality]
    if modality in batch.pieces:
        other = torch.where(x > SEP, 4 + (x - 4 + 5) % (NUM_IDS - 4), x)
    else:
        other = x + 1.0 + torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    return replace(batch, features={**batch.features, modality: other})


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some utterances of a batch, cut to the longest of them."""
    index = torch.tensor(rows)
    features, pieces = {}, {}
    longest = int(torch.stack([n[index] for n in batch.lengths.values()]).max())
    for m, x in batch.features.items():
        if m in batch.pieces:
            features[m] = x[index][:, : max(int((x[index] != PAD).sum(dim=1).max()), 1)]
            pieces[m] = batch.pieces[m][index, :longest, : features[m].shape[1]]
        else:
            features[m] = x[index, :longest]
    return Batch(
        features,
        {m: n[index] for m, n in batch.lengths.items()},
        {name: y[index] for name, y in batch.targets.items()},
        batch.rows[index],
        tuple(batch.ids[row] for row in rows),
        pieces,
    )


def without_targets(batch: Batch) -> Batch:
    """The same with NaN for every target."""
    return replace(batch, targets={name: torch.full_like(y, float("nan")) for name, y in batch.targets.items()})


def prediction(output: Output) -> Tensor:
    """The primary one, (B, C)."""
    return output.predictions[output.primary]
