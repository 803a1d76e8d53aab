"""Groups of parameters: by module and by kind, as a configuration says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmsa import build, learning
from mmsa.compose import compose
from mmsa.errors import ConfigError
from mmsa.model import Learner
from mmsa.training.groups import divided
from mmsa.training.optimizers import adam, adamw
from tests.contracts.conftest import configuration, model_of


def small() -> nn.ModuleDict:
    return nn.ModuleDict({"a": nn.ModuleDict({"x": nn.Linear(2, 2), "y": nn.Linear(2, 2)}), "ab": nn.Linear(2, 2)})


def seen(groups: list[dict[str, Any]], named: dict[str, nn.Parameter]) -> list[tuple[list[str], Any, Any]]:
    """Per group the names of its parameters, its rate and its decay."""
    names = {id(parameter): name for name, parameter in named.items()}
    return [([names[id(p)] for p in g["params"]], g.get("lr"), g.get("weight_decay")) for g in groups]


@pytest.mark.parametrize("as_groups", [False, True])
def test_without_options_everything_is_as_it_was_given(as_groups: bool) -> None:
    parameters = list(small().parameters())
    given: list[Any] = [{"params": parameters[:2], "lr": 0.5}, {"params": parameters[2:]}] if as_groups else parameters
    assert all(ours is theirs for ours, theirs in zip(divided(given, {}, {}), given, strict=True))


def test_options_are_of_what_is_below_and_the_inner_go_first() -> None:
    model = small()
    named = dict(model.named_parameters())
    groups = {"a": {"weight_decay": 0.5, "lr": 0.1, "y": {"lr": 0.2, "weight_decay": None}}}
    assert seen(divided(model.parameters(), named, groups), named) == [
        (["ab.weight", "ab.bias"], None, None),  # whose name only begins with the same letter; its rate is logged
        (["a.x.weight", "a.x.bias"], 0.1, 0.5),
        (["a.y.weight", "a.y.bias"], 0.2, 0.5),
    ]
    dotted = {"a.y": {"lr": 0.2}, "a": {"lr": 0.1, "weight_decay": 0.5}}
    assert seen(divided(model.parameters(), named, dotted), named) == seen(
        divided(model.parameters(), named, groups), named
    )


@pytest.mark.parametrize("make", [adam, adamw])
@pytest.mark.parametrize("general", [True, False])
def test_biases_decay_as_their_module_says_and_else_as_all(make: Any, general: bool) -> None:
    model = small()
    named = dict(model.named_parameters())
    groups = {"a": {"x": {"decay_biases": not general}}}
    made = make(model.parameters(), 0.01, 0.3, decay_biases=general, groups=groups, named=named).param_groups
    decays = {name: decay for names, _, decay in seen(made, named) for name in names}
    still = {"a.x.bias"} if general else {"a.y.bias", "ab.bias"}
    assert decays == {name: 0.0 if name in still else 0.3 for name in named}


def test_what_a_module_says_itself_goes_first() -> None:
    model = small()
    model["a"]["x"].lr = 0.7  # type: ignore[index,assignment]
    named = dict(model.named_parameters())
    groups = divided(learning.parameter_groups(model), named, {"a": {"lr": 0.1, "weight_decay": 0.5}})
    rates = {name: (lr, decay) for names, lr, decay in seen(groups, named) for name in names}
    assert rates["a.x.weight"] == (0.7, 0.5) and rates["a.y.weight"] == (0.1, 0.5) and rates["ab.bias"] == (None, None)


def learner_of(*overrides: str) -> tuple[Any, Learner]:
    cfg = configuration(*overrides)
    model, task = model_of(cfg), build.build_task(cfg)
    return cfg, Learner(model, learning.build_objective(cfg, model, task, torch.Generator()))


def test_a_configuration_names_modules_of_the_model_and_of_the_objective() -> None:
    cfg, learner = learner_of(
        *("fusion=mlp", "objective=self_mm", "optimizer.lr=0.5", "+optimizer.groups.encoders.text.lr=0.1"),
        *("+optimizer.groups.objective.weight_decay=0.2", "+optimizer.groups.objective.outputs.lr=0.3"),
    )
    named = learner.named()
    (optimizer,) = learning.build_optimizers(cfg, learner).values()
    rates = {name: (lr, decay) for names, lr, decay in seen(optimizer.param_groups, named) for name in names}
    assert rates.keys() == named.keys() and optimizer.param_groups[0]["lr"] == 0.5
    for name, (lr, decay) in rates.items():
        of_objective = name.startswith("objective.")
        assert decay == (0.2 if of_objective else 0.0), name
        expected = 0.1 if name.startswith("encoders.text.") else 0.3 if name.startswith("objective.outputs.") else 0.5
        assert lr == expected, name


def test_without_groups_the_optimiser_gets_one() -> None:
    cfg, learner = learner_of()
    (optimizer,) = learning.build_optimizers(cfg, learner).values()
    (group,) = optimizer.param_groups
    assert all(ours is theirs for ours, theirs in zip(group["params"], learner.parameters(), strict=True))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "+optimizer.groups.encoders.txt.lr=1e-3",
            r"optimizer\.groups\.encoders\.txt.* encoders\.text, enc",
        ),
        ("+optimizer.groups.lr=1e-3", r"optimizer\.groups: .* encoders\.text, enc"),
        ("+optimizer.groups.encoders.rate=1e-3", r"optimizer\.groups\.encoders\.rate: there is no such option"),
        ("+optimizer.groups.fusion.lr=-1", r"optimizer\.groups\.fusion\.lr=-1: needs a value greater than 0"),
        ("+optimizer.groups.fusion.decay_biases=1", r"optimizer\.groups\.fusion\.decay_biases"),
        ("optimizer.groups=all", r"optimizer\.groups=all"),
    ],
)
def test_what_is_no_module_or_no_option_is_refused_before_any_data_are_read(typed: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        build.check(compose([typed]))
    assert len(str(refusal.value).splitlines()) <= 9
