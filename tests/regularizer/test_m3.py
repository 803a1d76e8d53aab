"""M3's laws beyond the reference's statistics (tests/parity/test_m3_masking.py)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from mmsa.regularizer.m3 import M3

NAMES = ("text", "audio", "visual")


def layer(seed: int = 0, **options: object) -> M3:
    return M3(NAMES, torch.Generator().manual_seed(seed), **options).train()  # type: ignore[arg-type]


def ones(*shape: int) -> dict[str, Tensor]:
    return {name: torch.ones(*shape) for name in NAMES}


def lost(streams: Mapping[str, Tensor]) -> Tensor:
    """(M, B, …) whether every feature of a place is gone."""
    return torch.stack([(stream == 0).all(dim=-1) for stream in streams.values()])


def test_equal_seeds_give_equal_masks_whatever_the_global_generator() -> None:
    for mode in ("hard", "soft"):
        torch.manual_seed(1)
        first = layer(mode=mode, p=1.0)("encoded", ones(3, 5, 2))
        torch.manual_seed(2)
        second = layer(mode=mode, p=1.0)("encoded", ones(3, 5, 2))
        assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_hard_masks_take_exactly_one_stream() -> None:
    assert (lost(layer(p=1.0)("encoded", ones(4, 6, 3))).sum(dim=0) == 1).all()
    per_utterance = lost(layer(p=1.0, per_step=False)("encoded", ones(4, 6, 3)))
    assert (per_utterance.all(dim=-1).sum(dim=0) == 1).all()
    assert (per_utterance.any(dim=-1) == per_utterance.all(dim=-1)).all()
    vectors = lost(layer(p=1.0, per_step=False, reads="utterance")("encoded", ones(50, 3)))
    assert (vectors.sum(dim=0) == 1).all() and vectors.any(dim=1).all()


def test_soft_masks_per_step_share_the_stream_across_the_batch() -> None:
    masked = layer(mode="soft", p=1.0)("encoded", ones(4, 30, 3))
    gone = lost(masked)
    assert (gone.sum(dim=0) == 1).all()
    assert (gone == gone[:, :1]).all()
    assert gone.any(dim=(1, 2)).all(), "every stream is drawn at some step"
    partly = layer(mode="soft", p=0.5)("encoded", ones(4, 200, 3))
    share = sum((stream == 0).float().mean() for stream in partly.values())
    assert share == pytest.approx(0.5, abs=0.05)


def test_zero_probability_and_evaluation_leave_everything() -> None:
    for options in ({"p": 0.0}, {"p": 0.0, "mode": "soft"}):
        assert all((stream == 1).all() for stream in layer(**options)("encoded", ones(2, 3, 4)).values())
    assert all((stream == 1).all() for stream in layer(p=1.0).eval()("encoded", ones(2, 3, 4)).values())


def test_other_sites_are_left_alone() -> None:
    streams = ones(2, 3, 4)
    assert layer(p=1.0, sites=["inputs"])("encoded", streams) is streams
    seven = {str(index): torch.ones(10, 20, 4) for index in range(7)}
    masked = layer(p=1.0, sites=["streams"], probabilities=[1.0, 0.0, 0.0])("streams", seven)
    assert (lost(masked).sum(dim=0) == 1).all() and lost(masked).any(dim=(1, 2)).all()


def test_masked_entries_get_no_gradient() -> None:
    streams = {name: torch.ones(3, 4, 2, requires_grad=True) for name in NAMES}
    masked = layer(p=1.0)("encoded", streams)
    torch.stack(list(masked.values())).sum().backward()
    for name in NAMES:
        assert torch.equal(streams[name].grad == 0, masked[name] == 0)


@pytest.mark.parametrize(("rescale", "probabilities"), [("uniform", None), ("per_modality", [3.0, 1.0, 1.0])])
def test_rescaling_keeps_the_expectation_in_training_only(rescale: str, probabilities: list[float] | None) -> None:
    regularizer = layer(p=0.5, rescale=rescale, probabilities=probabilities)
    total = {name: torch.zeros(()) for name in NAMES}
    calls = 3000
    for _ in range(calls):
        for name, stream in regularizer("encoded", ones(2, 4, 1)).items():
            total[name] += stream.mean()
    for mean in total.values():
        assert mean / calls == pytest.approx(1.0, abs=0.03)
    assert all((stream == 1).all() for stream in regularizer.eval()("encoded", ones(2, 4, 1)).values())
