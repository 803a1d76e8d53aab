"""Values that are refused before anything heavy is imported."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from omegaconf import OmegaConf

from mmsa import parts
from mmsa.compose import compose
from mmsa.config import parameters
from mmsa.errors import ConfigError
from mmsa.values import _annotations, check_values
from tests.contracts.conftest import encoder_overrides
from tests.test_command_line import start_python
from tests.test_config import OPTIONS, place_of


def plain(overrides: list[str]) -> Any:
    return OmegaConf.to_container(compose(overrides), resolve=True)


@pytest.mark.parametrize(
    ("group", "option"),
    [pytest.param(*one, marks=[] if i % 5 == 0 else pytest.mark.slow) for i, one in enumerate(OPTIONS)],
)
def test_what_the_source_says_of_an_option_is_what_its_class_says(group: str, option: str) -> None:
    overrides = encoder_overrides(option) if group == "encoder" else [f"{group}={option}"]
    check_values(plain(overrides))
    cfg = compose(overrides)
    target = OmegaConf.select(cfg, f"{place_of(group)}._target_")
    if target is not None:
        real = parameters(parts.target_of(cfg, place_of(group)))
        read = _annotations(target)
        assert {name: real[name].annotation for name in read} == read
        assert (
            read or group == "dataset" or not set(real) - set(parts.GIVEN[group])
        )  # whose constructor may be Dataset's


@pytest.mark.parametrize(
    "override",
    [
        *(
            "seed=-1",
            "hidden_dim=0",
            "trainer.batch_size=0",
            "device.threads=none",
            "optimizer.lr=fast",
            "task.loss=l3",
        ),
        *("encoder.text.dropout=7", "dataset.clip=-1", "task.monitor=nonsense", "scheduler.patience=1.5"),
    ],
)
def test_a_wrong_value_is_refused_with_the_words_of_the_whole_check(override: str) -> None:
    from mmsa import build

    with pytest.raises(ConfigError) as early:
        check_values(plain([override]))
    with pytest.raises(ConfigError) as late:
        build.check(compose([override]))
    assert str(early.value) == str(late.value)


def test_a_wrong_value_costs_no_more_than_a_wrong_name() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = start_python("encoder.text.dropout=7")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode == 1 and "needs a value less than 1" in done.stderr and seconds < 1.5
