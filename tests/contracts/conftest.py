"""Small models of every combination of options, and batches that hold every odd case."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.functional import pad

from mmsa import build, parts
from mmsa.compose import Composer
from mmsa.config import conf_folder
from mmsa.encoder import bert
from mmsa.model import MultimodalModel
from mmsa.types import Batch
from tests.encoder.tiny import VOCABULARY, save_bert

PAD, CLS, SEP = 0, 2, 3
STAGES = ("encoder", "regularizer", "feedback")
WIDTHS = {"text": 6, "audio": 4, "visual": 3, "gaze": 2}
AXES: dict[str, Callable[[int], int]] = {
    "text": lambda words: words,
    "audio": lambda words: words + 3,
    "visual": lambda words: 1 + words // 2,
    "gaze": lambda words: 2 * words,
}
"""The steps of each modality for some words, where each has an axis of its own."""


def options(group: str) -> list[str]:
    """Every option of a group, as the files of conf/ have it."""
    return sorted(Path(path).stem for path in (conf_folder() / group).glob("*.yaml"))


def widths(num_modalities: int) -> dict[str, int]:
    return dict(list(WIDTHS.items())[:num_modalities])


@cache
def tiny_bert() -> str:
    """The folder of a tiny random BERT, which lasts as long as the tests."""
    _kept.append(tempfile.TemporaryDirectory(prefix="tiny-bert-"))
    return save_bert(Path(_kept[-1].name))


_kept: list[tempfile.TemporaryDirectory[str]] = []


def encoder_overrides(option: str) -> list[str]:
    """An encoder for every modality that it is for: word pieces are of text."""
    if option != "bert":
        return [f"encoder={option}"]
    return ["encoder/text=bert", f"encoder.text.name={tiny_bert()}", "encoder.text.dropout=0"]


@cache
def composed(*overrides: str) -> DictConfig:
    return composer(["hidden_dim=8", "device=cpu", *overrides])


composer = Composer()
"""One for all tests: Hydra takes 0.1 s for each choice of options."""


@cache
def brings_only_itself(group: str, overrides: tuple[str, ...]) -> bool:
    """Whether overrides of a group change nothing but its node."""
    with_it, without = (OmegaConf.to_container(cfg, resolve=False) for cfg in (composed(*overrides), composed()))
    return all(with_it[key] == without[key] for key in without if key != group)  # type: ignore[index,call-overload]


@cache
def configuration(*overrides: str) -> DictConfig:
    """The composed configuration; hundreds of combinations are put together of parts that are composed once."""
    stages = {stage: tuple(o for o in overrides if o.startswith(stage)) for stage in STAGES}
    apart = {stage: part for stage, part in stages.items() if part and brings_only_itself(stage, part)}
    cfg = copy.deepcopy(composed(*(o for o in overrides if not o.startswith(tuple(apart)))))
    for stage, part in apart.items():
        cfg[stage] = copy.deepcopy(composed(*part)[stage])
    return cfg


def model_of(cfg: DictConfig, num_modalities: int = 3, seed: int = 0, aligned: bool = True) -> MultimodalModel:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    with patch.object(parts, "part", remembered_part), patch.object(bert, "load_transformer", remembered_transformer):
        return build.build_model(cfg, widths(num_modalities), build.build_task(cfg), generator, aligned)


def remembered_part(cfg: DictConfig, place: str) -> Callable[..., Any]:
    """What `parts.part` makes of a node, asked once per content: Hydra takes 5 ms for each of ten thousands."""
    key = place, repr(OmegaConf.to_container(OmegaConf.select(cfg, place), resolve=True))
    if key not in _parts:
        _parts[key] = asked_of_hydra(cfg, place)
    return _parts[key]


def remembered_transformer(name: str, dropout: float | None) -> Any:
    """What `bert.load_transformer` gives, read once: reading it for every model would be most of the time."""
    return copy.deepcopy(read_transformer(name, dropout))


read_transformer = cache(bert.load_transformer)
asked_of_hydra = parts.part
_parts: dict[tuple[str, str], Callable[..., Any]] = {}


def make_batch(
    num_modalities: int = 3,
    lengths: Sequence[int] = (4, 9, 1, 6),
    absent: Sequence[tuple[str, int]] = (),
    seed: int = 0,
    aligned: bool = True,
) -> Batch:
    """Random utterances; `absent` names modalities that an utterance lacks; not aligned, each has steps of its own."""
    generator = torch.Generator().manual_seed(seed)
    features, steps = {}, {}
    for modality, width in widths(num_modalities).items():
        own = [n if aligned else AXES[modality](n) for n in lengths]
        num_steps = max(own)
        steps[modality] = torch.tensor([0 if (modality, i) in absent else n for i, n in enumerate(own)])
        valid = torch.arange(num_steps)[None, :] < steps[modality][:, None]
        values = torch.randn(len(lengths), num_steps, width, generator=generator)
        features[modality] = values * valid[:, :, None]
    rows = torch.arange(len(lengths))
    targets = {"sentiment": torch.randn(len(lengths), generator=generator)}
    return Batch(features, steps, targets, rows, tuple(f"v[{i}]" for i in rows.tolist()))


def batch_for(model: MultimodalModel, num_modalities: int = 3, **how: Any) -> Batch:
    """A batch as the model reads it: text as word pieces where its encoder wants them."""
    batch = make_batch(num_modalities, **how)
    return in_pieces(batch) if hasattr(model.encoders["text"], "tokenizer") else batch


def in_pieces(batch: Batch) -> Batch:
    """The same with random word pieces as text, drawn from the vectors: every third word has two of them."""
    vectors, lengths = batch.features["text"], batch.lengths["text"]
    drawn = 4 + (vectors.abs().sum(dim=2) * 1000).long() % (len(VOCABULARY) - 4)  # (B, T)
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
    features |= {m: pad(batch.features[m], (0, 1)) for m in batch.pieces}  # the tiny model has few positions
    pieces = {m: pad(x, (0, 1, 0, steps)) for m, x in batch.pieces.items()}
    return replace(batch, features={m: features[m] for m in batch.features}, pieces=pieces)


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some utterances of a batch, cut to the longest of them."""
    index = torch.tensor(rows)
    longest = int(torch.stack([n[index] for n in batch.lengths.values()]).max())
    features = {m: x[index, :longest] for m, x in batch.features.items() if m not in batch.pieces}
    pieces = {}
    for m in batch.pieces:
        ids = batch.features[m][index]
        features[m] = ids[:, : max(int((ids != PAD).sum(dim=1).max()), 1)]
        pieces[m] = batch.pieces[m][index, :longest, : features[m].shape[1]]
    return Batch(
        {m: features[m] for m in batch.features},
        {m: n[index] for m, n in batch.lengths.items()},
        {name: y[index] for name, y in batch.targets.items()},
        batch.rows[index],
        tuple(batch.ids[row] for row in rows),
        pieces,
    )


@pytest.fixture(autouse=True)
def _no_kernel_compilation() -> Iterator[None]:
    """oneDNN compiles a kernel for every new shape, which here would be nearly every call; parity runs use it."""
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = True
