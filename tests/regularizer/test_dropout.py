"""Element dropout drops: in the original of M3 this baseline's result is thrown away, so that it does nothing."""

from __future__ import annotations

import pytest
import torch

from mmsa.errors import ConfigError
from mmsa.regularizer.dropout import ElementDropout
from mmsa.types import Stream
from tests.streams import streams_of, values_of

NAMES = ("text", "audio", "visual")


def ones(*shape: int) -> dict[str, Stream]:
    return streams_of({name: torch.ones(*shape) for name in NAMES})


@pytest.mark.parametrize("shape", [(40, 30, 5), (400, 15)])
def test_elements_are_dropped_on_their_own_and_the_rest_is_scaled_up(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dropped = values_of(ElementDropout(p=0.3).train()("encoded", ones(*shape)).streams)
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
    assert regularizer("encoded", streams).streams is streams
    for site in ("inputs", "streams"):
        assert any((x == 0).any() for x in values_of(regularizer(site, streams).streams).values())
        assert regularizer.eval()(site, streams).streams is streams
        regularizer.train()


@pytest.mark.parametrize("shape", [(8, 9, 5), (8, 5)])
def test_what_is_said_to_be_kept_is_what_was_kept(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    streams = ones(*shape) | streams_of({"visual": torch.zeros(*shape)})
    done = ElementDropout(p=0.4).train()("encoded", streams)
    assert (done.rate, done.mix) == (None, None)
    for name in ("text", "audio"):
        assert torch.equal(done.kept[name], done.streams[name].values != 0) and not done.kept[name].all()
    assert done.kept["visual"].all(), "a zero that was there is not lost"
    assert all(torch.equal(stream.lengths, streams[name].lengths) for name, stream in done.streams.items())
    whole = ElementDropout(p=0.4).eval()("encoded", streams)
    assert not whole.kept and (whole.rate, whole.mix) == (None, None)


def test_no_site_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regularizer.sites=\[encoded\]"):
        ElementDropout(sites=[])
