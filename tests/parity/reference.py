"""Golden archives, and the reference's parameter names in terms of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class Golden:
    """One archive: its configuration and its arrays as tensors."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path, allow_pickle=False)
        self.config: dict[str, Any] = json.loads(str(self.arrays["config"]))

    def __contains__(self, name: str) -> bool:
        return name in self.arrays.files

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: self[name] for name in self.arrays.files if name.startswith(prefix)}

    @property
    def lengths(self) -> Tensor:
        if "lengths" in self:
            return self["lengths"].long()
        first = next(name for name in self.arrays.files if name.startswith("input/"))
        return torch.full((self[first].shape[0],), self[first].shape[1])

    @property
    def ragged(self) -> bool:
        return bool((self.lengths != self.lengths.max()).any())


Names = dict[str, str]  # the reference's parameter name -> ours


def recurrence_names(theirs: str, ours: str, state: dict[str, Tensor]) -> Names:
    """`nn.LSTM`-like names of any depth and direction."""
    names = {}
    for name in state:
        if not name.startswith(f"{theirs}."):
            continue
        parameter = name[len(theirs) + 1 :]  # weight_ih_l0_reverse
        kind, _, place = parameter.rpartition("_l") if "reverse" not in parameter else parameter.partition("_l")
        depth = place.removesuffix("_reverse")
        direction = int(place.endswith("_reverse"))
        names[name] = f"{ours}.layers.{depth}.{direction}.{kind}_l0"
    return names


def attention_names(theirs: str, ours: str) -> Names:
    return {f"{theirs}.{k}.weight": f"{ours}.{n}.weight" for k, n in {"k": "key", "q": "query", "v": "value"}.items()}


def attentive_names(theirs: str, ours: str, state: dict[str, Tensor]) -> Names:
    names = recurrence_names(f"{theirs}rnn.rnn", f"{ours}recurrence", state)
    if any(name.startswith(f"{theirs}attention.") for name in state):
        names |= attention_names(f"{theirs}attention", f"{ours}attention")
    return names


def fuser_names(theirs: str, ours: str) -> Names:
    """Pairs in the order ta, va, tv; the x maps of keys and values meet the y map of queries."""
    names = {}
    for index, pair in enumerate(("ta", "va", "tv")):
        for first, second, side in (("x", "y", "over_first"), ("y", "x", "over_second")):
            names[f"{theirs}{pair}.k{first}.weight"] = f"{ours}pairs.{index}.{side}.key.weight"
            names[f"{theirs}{pair}.v{first}.weight"] = f"{ours}pairs.{index}.{side}.value.weight"
            names[f"{theirs}{pair}.q{second}.weight"] = f"{ours}pairs.{index}.{side}.query.weight"
    return names | attention_names(f"{theirs}tav", f"{ours}joint")


SOURCES = {"text": ("audio", "visual"), "audio": ("text", "visual"), "visual": ("text", "audio")}


def unit_names(theirs: str, target: str, ours: str, state: dict[str, Tensor]) -> Names:
    """One feedback unit: mask1 reads the first of the other modalities, mask2 the second."""
    names = {}
    for mask, source in zip(("mask1", "mask2"), SOURCES[target], strict=True):
        place = f"{ours}generators.{target}.{source}"
        names |= recurrence_names(f"{theirs}{mask}.rnn", f"{place}.rnn", state)
        for parameter in ("weight", "bias"):
            if f"{theirs}{mask}.{parameter}" in state:
                names[f"{theirs}{mask}.{parameter}"] = f"{place}.linear.{parameter}"
    return names


def feedback_names(theirs: str, ours: str, state: dict[str, Tensor]) -> Names:
    names = {}
    for unit, target in zip(("f1", "f2", "f3"), SOURCES, strict=True):
        names |= unit_names(f"{theirs}{unit}.", target, ours, state)
    return names


def classifier_names(state: dict[str, Tensor]) -> Names:
    """The audio-visual-text classifiers of MMLatch and of M3."""
    names: Names = {}
    for modality in SOURCES:
        inner = "encoder" if f"encoder.{modality}.encoder.rnn.rnn.weight_ih_l0" in state else modality
        names |= attentive_names(f"encoder.{modality}.{inner}.", f"encoders.{modality}.rnn.", state)
    names |= fuser_names("encoder.fuser.att_fuser.", "fusion.")
    names |= attentive_names("encoder.fuser.rnn.rnn.", "fusion.reader.rnn.", {})
    names |= recurrence_names("encoder.fuser.rnn.rnn.rnn", "fusion.reader.rnn.recurrence", state)
    names |= attention_names("encoder.fuser.rnn.attention", "fusion.reader.rnn.attention")
    names |= feedback_names("encoder.fm.", "feedback.", state)
    return names | {f"classifier.{p}": f"head.{p}" for p in ("weight", "bias")}


def load(module: nn.Module, state: dict[str, Tensor], names: Names) -> None:
    """Load every one of the reference's parameters; a missing or left-over name on either side fails."""
    assert set(names) == set(state), set(names) ^ set(state)
    module.load_state_dict({names[name]: value for name, value in state.items()}, strict=True)


def check(ours: Tensor, theirs: Tensor, lengths: Tensor | None = None) -> None:
    """Equal within the golden tolerance; with `lengths`, on valid steps (B, T, …) only."""
    assert ours.shape == theirs.shape
    if lengths is not None:
        valid = torch.arange(ours.shape[1])[None, :] < lengths[:, None]
        ours, theirs = ours[valid], theirs[valid]
    torch.testing.assert_close(ours, theirs, **TOLERANCE)


def check_gradients(module: nn.Module, golden: Golden, names: Names, prefix: str = "grad/") -> None:
    stored = golden.group(prefix)
    assert stored
    for name, gradient in stored.items():
        parameter = module.get_parameter(names[name])
        assert parameter.grad is not None, name
        check(parameter.grad, gradient)
