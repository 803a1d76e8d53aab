"""The laws as tests of pytest, for a method in a folder of your own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mmsa import build, learning
from mmsa.compose import Composer
from mmsa.config import conf_folder
from mmsa.layers.support import ANY_NUMBER
from mmsa.parts import target_of
from mmsa.testing import laws, training
from mmsa.testing.combinations import GROUPS, Combinations
from mmsa.testing.laws import Subject

SMALL = ("hidden_dim=8", "device=cpu")


def laws_of(*choices: str, config_dir: str | Path | None = None) -> type:
    """A class of tests: every law, on every pair of options that go together with the chosen ones.

        TestMine = laws_of("fusion=mine", config_dir="conf")

    Args:
        choices: as for train.py: first the option to test, GROUP=OPTION, then the options that it needs
            beside it. Of encoders, fusions, regularizers and feedbacks it is combined with all options of the other
            groups without a choice; other groups are tested on one to four modalities.
        config_dir: the folder of the option's YAML file, as --config-dir; None: the option is one of ours.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range.
    """
    import pytest

    subjects = dict(_subjects(choices, [str(Path(config_dir).resolve())] if config_dir else []))
    model = cache(lambda name: subjects[name].model())

    def of_a_model(law: Callable[..., None]) -> Any:
        def test(self: Any, subject: str) -> None:
            law(subjects[subject], model(subject))

        test.__doc__ = law.__doc__
        return pytest.mark.parametrize("subject", subjects)(test)

    def test_resume(self: Any) -> None:
        training.a_stopped_training_goes_on_to_the_same_bits(next(iter(subjects.values())))

    tests = {f"test_{law.__name__}": of_a_model(law) for law in laws.OF_A_MODEL}
    tests["test_a_stopped_training_goes_on_to_the_same_bits"] = test_resume
    return type("Laws", (), {**tests, "__doc__": f"The laws, of {' '.join(choices)}."})


def _subjects(choices: Sequence[str], config_dirs: Sequence[str]) -> Iterator[tuple[str, Subject]]:
    """The tested configurations, by name; refused ones are left out."""
    composer = Composer(config_dirs)

    def composed(*overrides: str) -> DictConfig:
        return composer([*SMALL, *overrides, *choices])

    build.check(composed())
    group = choices[0].partition("=")[0]
    targets = _targets(Subject(composed()))
    if group not in GROUPS:
        supported = getattr(target_of(composed(), group), "num_modalities", ANY_NUMBER)
        for number in (3, 2, 1, 4):
            if number in supported and _fits(composed(), number):
                yield f"{number} modalities", Subject(composed(), number, True, targets)
        return
    said = dict(choice.split("=", 1) for choice in choices)
    options = {g: [said[g]] if g in said else _options(composed, g) for g in GROUPS}
    combinations = Combinations(options, composed)
    for one in combinations.pairwise():
        cfg = composed(*combinations.overrides(one))
        yield "-".join(map(str, one)), Subject(cfg, one.num_modalities, one.axes == "common", targets)


def _options(composed: Callable[..., DictConfig], group: str) -> list[str]:
    """Our options of a group; without encoders of word pieces, which need a model's folder."""
    found = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
    return [o for o in found if group != "encoder" or not build.reads_pieces(composed(f"encoder={o}"), "text")]


def _targets(subject: Subject) -> tuple[str, ...]:
    """The targets that the task and the objective read."""
    model = subject.model()
    objective = learning.build_objective(subject.cfg, model, subject.task, laws.generator())
    return tuple(dict.fromkeys((subject.task.target, *objective.needs)))


def _fits(cfg: DictConfig, number: int) -> bool:
    """Whether the parts without a choice are defined for this number of modalities."""
    parts = (target_of(cfg, group) for group in ("fusion", "feedback", "regularizer"))
    return all(number in getattr(part, "num_modalities", ANY_NUMBER) for part in parts)
