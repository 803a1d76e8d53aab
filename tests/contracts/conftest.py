"""Small models of every combination of options, and batches that hold every odd case."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from mmsa.build import build_model, build_task
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.model import MultimodalModel
from mmsa.types import Batch

WIDTHS = {"text": 6, "audio": 4, "visual": 3, "gaze": 2}


def options(group: str) -> list[str]:
    """Every option of a group, as the files of conf/ have it."""
    return sorted(Path(path).stem for path in (conf_folder() / group).glob("*.yaml"))


def widths(num_modalities: int) -> dict[str, int]:
    return dict(list(WIDTHS.items())[:num_modalities])


@cache
def composed(*overrides: str) -> DictConfig:
    return compose(["hidden_dim=8", "device=cpu", *overrides])


@cache
def brings_only_itself(override: str) -> bool:
    """Whether an option changes nothing but the node of its group."""
    group = override.partition("=")[0]
    with_it, without = (OmegaConf.to_container(cfg, resolve=False) for cfg in (composed(override), composed()))
    return all(with_it[key] == without[key] for key in without if key != group)  # type: ignore[index,call-overload]


@cache
def configuration(*overrides: str) -> DictConfig:
    """The composed configuration; hundreds of combinations are put together of parts that are composed once."""
    if not all(re.fullmatch(r"\w+=\w+", override) for override in overrides):
        return composed(*overrides)
    stages = ("encoder=", "regularizer=", "feedback=")
    apart = [override for override in overrides if override.startswith(stages) and brings_only_itself(override)]
    cfg = copy.deepcopy(composed(*(override for override in overrides if override not in apart)))
    for override in apart:
        group = override.partition("=")[0]
        cfg[group] = copy.deepcopy(composed(override)[group])
    return cfg


def model_of(cfg: DictConfig, num_modalities: int = 3, seed: int = 0) -> MultimodalModel:
    torch.manual_seed(seed)
    return build_model(cfg, widths(num_modalities), build_task(cfg), torch.Generator().manual_seed(seed))


def make_batch(
    num_modalities: int = 3,
    lengths: Sequence[int] = (4, 9, 1, 6),
    absent: Sequence[tuple[str, int]] = (),
    seed: int = 0,
) -> Batch:
    """Random utterances; `absent` names modalities that an utterance lacks."""
    generator = torch.Generator().manual_seed(seed)
    num_steps = max(lengths)
    features, steps = {}, {}
    for modality, width in widths(num_modalities).items():
        steps[modality] = torch.tensor([0 if (modality, i) in absent else n for i, n in enumerate(lengths)])
        valid = torch.arange(num_steps)[None, :] < steps[modality][:, None]
        values = torch.randn(len(lengths), num_steps, width, generator=generator)
        features[modality] = values * valid[:, :, None]
    rows = torch.arange(len(lengths))
    targets = {"sentiment": torch.randn(len(lengths), generator=generator)}
    return Batch(features, steps, targets, rows, tuple(f"v[{i}]" for i in rows.tolist()))


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some utterances of a batch, cut to the longest of them."""
    index = torch.tensor(rows)
    longest = int(torch.stack([n[index] for n in batch.lengths.values()]).max())
    return Batch(
        {m: x[index, :longest] for m, x in batch.features.items()},
        {m: n[index] for m, n in batch.lengths.items()},
        {name: y[index] for name, y in batch.targets.items()},
        batch.rows[index],
        tuple(batch.ids[row] for row in rows),
    )


@pytest.fixture(autouse=True)
def _no_kernel_compilation() -> Iterator[None]:
    """oneDNN compiles a kernel for every new shape, which here would be nearly every call; parity runs use it."""
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = True
