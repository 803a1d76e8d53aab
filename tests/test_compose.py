"""The configuration of a run, composed from Python."""

from __future__ import annotations

import pytest

from mmsa.compose import compose
from mmsa.errors import ConfigError


@pytest.mark.parametrize("option", ["feedback=learnable_mask", "regularizer=mmdrop", "encoder=rnn"])
def test_an_option_that_does_not_exist_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="there is no such option; there is"):
        compose([option])
