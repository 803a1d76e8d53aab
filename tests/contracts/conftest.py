"""Small models of every combination of options, put together quickly."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from mmsa import build, parts
from mmsa.compose import Composer
from mmsa.config import conf_folder
from mmsa.encoder import bert
from mmsa.model import MultimodalModel
from mmsa.testing.combinations import GROUPS, Combinations
from mmsa.testing.laws import Subject
from tests.composition import remember
from tests.encoder.tiny import save_bert

remember()  # the names of the combinations are asked for before any test runs
STAGES = ("encoder", "regularizer", "feedback")


def options(group: str) -> list[str]:
    """Every option of a group, as the files of conf/ have it."""
    return sorted(Path(path).stem for path in (conf_folder() / group).glob("*.yaml"))


@cache
def tiny_bert() -> str:
    """The folder of a tiny random BERT, which lasts as long as the tests."""
    _kept.append(tempfile.TemporaryDirectory(prefix="tiny-bert-"))
    return save_bert(Path(_kept[-1].name))


_kept: list[tempfile.TemporaryDirectory[str]] = []


def encoder_overrides(option: str) -> list[str]:
    """An encoder for every modality that it is for: word pieces are of text."""
    cfg = composed(f"encoder/text={option}")
    if not build.reads_pieces(cfg, "text"):
        return [f"encoder={option}"]
    still = {"name": tiny_bert(), "dropout": 0}
    given = [f"encoder.text.{key}={value}" for key, value in still.items() if key in cfg.encoder.text]
    return [f"encoder/text={option}", *given]


@cache
def composed(*overrides: str) -> DictConfig:
    return composer(["hidden_dim=8", "device=cpu", *overrides])


composer = Composer()
"""One for all tests: Hydra takes 0.1 s for each choice of options."""


TYPED = {("encoder", option): encoder_overrides(option) for option in options("encoder")}
COMBINATIONS = Combinations({group: options(group) for group in GROUPS}, composed, TYPED)


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
    with quickly_built():
        return Subject(cfg, num_modalities, aligned).model(seed)


@contextmanager
def quickly_built() -> Iterator[None]:
    """Parts are asked of Hydra once, and models read once: most of the time else, for hundreds of combinations."""
    with patch.object(parts, "part", remembered_part), patch.object(bert, "load_transformer", remembered_transformer):
        yield


def remembered_part(cfg: DictConfig, place: str) -> Callable[..., Any]:
    """What `parts.part` makes of a node, asked once per content: Hydra takes 5 ms for each of ten thousands."""
    key = place, repr(OmegaConf.to_container(OmegaConf.select(cfg, place), resolve=True))
    if key not in _parts:
        _parts[key] = asked_of_hydra(cfg, place)
    return _parts[key]


def remembered_transformer(name: str, dropout: float | None, pretrained: bool = True) -> Any:
    """What `bert.load_transformer` gives, read once: reading it for every model would be most of the time."""
    return copy.deepcopy(read_transformer(name, dropout, pretrained))


read_transformer = cache(bert.load_transformer)
asked_of_hydra = parts.part
_parts: dict[tuple[str, str], Callable[..., Any]] = {}


@pytest.fixture(autouse=True)
def _no_kernel_compilation() -> Iterator[None]:
    """oneDNN compiles a kernel for every new shape, which here would be nearly every call; parity runs use it."""
    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = True
