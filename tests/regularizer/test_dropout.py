"""Element dropout drops: in the original of M3 this baseline's result is thrown away, so that it does nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmsa.errors import ConfigError
from mmsa.regularizer.dropout import ElementDropout

NAMES = ("text", "audio", "visual")


def ones(*shape: int) -> dict[str, Tensor]:
    return {name: torch.ones(*shape) for name in NAMES}


@pytest.mark.parametrize("shape", [(40, 30, 5), (400, 15)])
def test_elements_are_dropped_on_their_own_and_the_rest_is_scaled_up(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dropped = ElementDropout(p=0.3).train()("encoded", ones(*shape))
    gone = torch.stack([stream == 0 for stream in dropped.values()]).float()  # (M, …)
    for index, stream in enumerate(dropped.values()):
        assert gone[index].mean() == pytest.approx(0.3, abs=0.03)
        torch.testing.assert_close(stream[stream != 0], torch.full_like(stream[stream != 0], 1 / 0.7))
    both = (gone[0] * gone[1]).mean()
    assert both == pytest.approx(0.09, abs=0.03), "modalities are independent"
    neighbours = (gone[..., 1:] * gone[..., :-1]).mean()
    assert neighbours == pytest.approx(0.09, abs=0.03), "elements are independent"


def test_evaluation_and_other_sites_are_left_alone() -> None:
    streams = ones(2, 3, 4)
    regularizer = ElementDropout(p=0.9, sites=["inputs", "streams"]).train()
    assert regularizer("encoded", streams) is streams
    for site in ("inputs", "streams"):
        assert any((stream == 0).any() for stream in regularizer(site, streams).values())
        assert all(torch.equal(stream, streams[name]) for name, stream in regularizer.eval()(site, streams).items())
        regularizer.train()


def test_no_site_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regularizer.sites=\[encoded\]"):
        ElementDropout(sites=[])
