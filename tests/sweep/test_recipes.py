"""The options of the group sweep: every space can be searched, every key is an option and stands in the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import hydra
import optuna
import pytest
from omegaconf import OmegaConf

from mmsa import build
from mmsa.compose import Composer, compose
from mmsa.config import check_options, conf_folder
from mmsa.errors import ConfigError
from mmsa.overrides import native_overrides
from mmsa.sweep.options import SweepOptions, check_together
from mmsa.sweep.space import as_typed, check_space, overrides_of, read_space
from tests.composition import HYDRA

OPTIONS = sorted(path.stem for path in (conf_folder() / "sweep").glob("*.yaml"))
PAGE = (conf_folder().parent / "docs" / "sweeps.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_passes_the_checks_and_is_in_the_page(option: str) -> None:
    options = OmegaConf.to_container(compose([f"sweep={option}"]).sweep)
    assert isinstance(options, dict)
    check_options({str(key): value for key, value in options.items()}, SweepOptions, "sweep")
    check_together({str(key): value for key, value in options.items()})
    assert f"`{option}`" in PAGE
    for key in options:
        assert f"sweep.{key}" in PAGE or key in ("final", "join"), key


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ("search", "grid")])
def test_every_space_can_be_searched(option: str) -> None:
    params = as_typed(compose([f"sweep={option}"]).sweep.space)
    check_space(read_space(params, [], seeds_allowed=False), lambda overrides: build.check(compose(overrides)))


def test_the_commands_of_the_page_are_read() -> None:
    lines = re.findall(r"^(?:CUDA\S+ )?python train.py (.*)$", PAGE, flags=re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words = native_overrides([word for word in shlex.split(line, comments=True) if "launcher" not in word])
        (chosen,) = [word for word in words if word.startswith("sweep=")]
        given = [word for word in words if word.startswith("sweep.")]
        check_options(OmegaConf.to_container(compose([chosen, *given]).sweep), SweepOptions, "sweep")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["sweep.objectives=[valid/mae,seconds]"], "sweep.pruner=none"),
        (["sweep.confidence=0.9"], "sweep.seeds=3"),
        (["sweep.final=true", "sweep.seeds=2"], "seed=1,2,3"),
        (["sweep.objectives=[]"], "sweep.objectives=[valid/mae]"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_together(OmegaConf.to_container(compose(["sweep=search", *options]).sweep))  # type: ignore[arg-type]


def test_a_sweep_is_not_one_run(small: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="many runs"):
        build.check(compose([*small, "sweep=search"]))


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ("search", "grid")])
def test_quick_composition_is_composition(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydra, "compose", HYDRA)
    space = read_space(as_typed(compose([f"sweep={option}"]).sweep.space), [], seeds_allowed=False)
    study, composer = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)), Composer()
    for _ in range(2):
        trial = study.ask(dict(space.distributions))
        overrides = [
            *space.fixed,
            *overrides_of(space, trial.params),
            "seed=3",
            'trainer.resume="a b"',
            "dataset.modalities=[text,audio]",
        ]
        assert composer(overrides) == compose(overrides)
    with pytest.raises(ConfigError, match="there is no such option"):
        composer([*overrides, "optimizer.lrr=1"])
