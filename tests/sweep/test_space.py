"""The search space: what is read as varying or fixed, what is refused, and what a trial's overrides say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mmsa import build
from mmsa.compose import Composer, compose
from mmsa.errors import ConfigError
from mmsa.sweep.space import Space, as_typed, check_space, grid_points, overrides_of, read_space


def typed(*arguments: str, seeds_allowed: bool = False) -> Space:
    return read_space({}, arguments, seeds_allowed)


def read_back(override: str) -> Any:
    """What Hydra reads from an override of one value."""
    parsed = OverridesParser.create().parse_override(override)
    assert not parsed.is_sweep_override()
    return parsed.value()


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_the_syntax_is_the_official_plugins() -> None:
    space = typed("a=tag(log, interval(1e-4, 1e-2))", "b=x,y", "c=range(1,4)", "d=range(0,1,0.25)", "+e=true,null")
    assert space.distributions == {
        "a": FloatDistribution(1e-4, 1e-2, log=True),
        "b": CategoricalDistribution(["x", "y"]),
        "c": IntDistribution(1, 3),
        "d": FloatDistribution(0.0, 0.75, step=0.25),
        "+e": CategoricalDistribution([True, "null"]),
    }
    assert list(space.distributions) == ["a", "b", "c", "d", "+e"]
    assert space.texts["a"] == "tag(log, interval(1e-4, 1e-2))"


def test_one_value_a_deletion_and_an_addition_are_fixed() -> None:
    space = typed("a=1,2", "b=x", "~scheduler", "+extra=1", "c=choice(true)", "d=range(3,4)")
    assert space.fixed == ("b=x", "~scheduler", "+extra=1", "c=true", "d=3")
    assert list(space.distributions) == list(space.texts) == ["a"]


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ("[text],[audio],[text,audio]", [["text"], ["audio"], ["text", "audio"]]),
        ("['a b','c,d'],[1,null],[]", [["a b", "c,d"], [1, None], []]),
        ("{text:50},{text:20,audio:7}", [{"text": 50}, {"text": 20, "audio": 7}]),
        ("null,[0.5,[true]]", [None, [0.5, [True]]]),
    ],
)
def test_lists_and_mappings_are_choices_as_they_stand(values: str, meant: list[Any]) -> None:
    space = typed(f"x={values}")
    assert [read_back(overrides_of(space, point)[0]) for point in grid_points(space)] == meant


def test_the_ablation_of_modalities_is_a_grid() -> None:
    space = typed("fusion=concat", "dataset.modalities=[text],[audio],[text,audio]")
    composer = Composer()
    check_space(space, lambda overrides: build.check(compose(overrides)))
    chosen = [composer([*space.fixed, *overrides_of(space, point)]).dataset.modalities for point in grid_points(space)]
    assert chosen == [["text"], ["audio"], ["text", "audio"]]
    with pytest.raises(ConfigError, match=r"modalities=\[smell\]"):
        refused = typed("fusion=concat", "dataset.modalities=[text],[smell]")
        check_space(refused, lambda overrides: build.check(compose(overrides)))


def test_what_was_typed_wins_over_the_file() -> None:
    params = {"a": "1,2", "b": "3", "c": "4,5", "d": "x,y"}
    space = read_space(params, ["a=7", "b=interval(0.0,1.0)", "~c"], seeds_allowed=False)
    assert space.fixed == ("a=7", "~c")
    assert space.texts == {"d": "x,y", "b": "interval(0.0,1.0)"}


def test_short_forms_and_plain_values_of_the_file_are_hydras_own() -> None:
    values: dict[str, Any] = {"encoder/text": "bilstm,cnn", "dataset.source": "a b (1)", "u": True, "v": None, "w": 0.5}
    space = read_space(as_typed(values), [], seeds_allowed=False)
    assert list(space.distributions) == ["encoder@encoder.text"]
    assert space.fixed == ('dataset.source="a b (1)"', "u=true", "v=null", "w=0.5")


def test_the_sweeps_own_options_are_no_part_of_it() -> None:
    own = ["sweep=mmlatch", "sweep.trials=3", "+sweep.x=1,2", "hydra/sweeper/sampler=tpe", "hydra.verbose=true"]
    assert typed("a=1,2", *own) == typed("a=1,2")


def test_a_seed_and_a_held_out_part_vary_in_a_plain_grid_only() -> None:
    assert "seed" in read_space({}, ["seed=1,2"], seeds_allowed=True).distributions
    with pytest.raises(
        ConfigError, match=r"held_out may not be searched[\s\S]*type dataset\.held_out=0: a search keeps one"
    ):
        typed("dataset.num_folds=3", "dataset.held_out=0,1,2")
    assert "dataset.held_out" in read_space({}, ["dataset.held_out=0,1"], seeds_allowed=True).distributions
    with pytest.raises(ConfigError, match=r"type sweep\.seeds=4"):
        typed("seed=1,2,3,4")
    assert typed("a=1,2", "seed=3").fixed == ("seed=3",)


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("optimizer.lr=choice(1", "cannot be read"),
        ("optimizer.lr=range(3,1)", "at least one value"),
        ("optimizer.lr=interval(2,1)", "low <= high"),
        ("optimizer.lr=interval(0.0,inf)", "finite"),
        ("optimizer.lr=tag(log, interval(0,1))", "low > 0"),
        ("optimizer.lr=shuffle(1,2)", "another order"),
        ("optimizer.lr=shuffle(range(1,4))", "another order"),
        ("optimizer.lr=1,1.0", "equal"),
        ("optimizer.lr=true,1", "equal"),
        (r"optimizer.lr=a\,b,c", "needs? quotes"),
        (r"optimizer.lr=a\ ,c", "needs? quotes"),
        ("optimizer.lr=glob(*)", "cannot be searched"),
        ("encoder@encoder.text=shuffle(a,b)", r"^encoder/text: "),
        ("name=a,b", "one value"),
        ("trainer.resume=a,b", "one value"),
        ("paths.outputs=a,b", "one value"),
        ("tracking=none,mlflow", "one value"),
        ("tracking.uri=a,b", "one value"),
        ("optimizer.lr=1", "something that varies"),
    ],
)
def test_a_refusal_names_the_key_and_says_what_to_type(argument: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        typed(argument)
    message = str(caught.value)
    assert "\n  type " in message
    assert message.count("\n") <= 2
    if "varies" not in reason:
        assert message.startswith(argument.partition("=")[0].replace("@encoder.", "/"))


def test_a_grid_in_which_nothing_varies_is_refused_with_an_example_that_it_takes() -> None:
    with pytest.raises(ConfigError, match="something that varies") as refusal:
        typed("optimizer.lr=1", seeds_allowed=True)
    example = str(refusal.value).partition("type for example ")[2]
    assert grid_points(typed(*example.split(), seeds_allowed=True))


def test_a_list_in_the_file_is_refused_with_the_form_it_needs() -> None:
    params: Any = {"feedback": ["none", "mmlatch"]}
    with pytest.raises(ConfigError, match="write for example feedback: none,mmlatch"):
        as_typed(params)


# --- A grid's points --------------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_with_the_last_key_fastest() -> None:
    points = grid_points(typed("a=x,y", "b=range(0.1,0.4,0.1)", "c=range(6,0,-3)"))
    assert points[:3] == [
        {"a": "x", "b": 0.1, "c": 3},
        {"a": "x", "b": 0.1, "c": 6},
        {"a": "x", "b": 0.2, "c": 3},
    ]
    assert [point["b"] for point in points[::2]] == [0.1, 0.2, 0.3] * 2
    assert len(points) == 12


@pytest.mark.parametrize("argument", ["a=interval(0.0,1.0)", "a=range(1,1000000)"])
def test_a_grid_needs_values_that_can_be_counted(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"a grid.*\n  type"):
        grid_points(typed(argument))


# --- A trial's overrides ----------------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_hydra_reads_back_the_bits_of_a_float(value: float) -> None:
    space = Space({"a": FloatDistribution(-1e308, 1e308)}, (), {})
    (override,) = overrides_of(space, {"a": value})
    found = read_back(override)
    assert isinstance(found, float)
    assert found.hex() == value.hex()


@given(st.integers())
def test_hydra_reads_back_an_integer(value: int) -> None:
    assert read_back(overrides_of(Space({"a": IntDistribution(0, 1)}, (), {}), {"a": value})[0]) == value


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), min_size=2, max_size=4, unique=True))
def test_hydra_reads_back_every_quoted_text(texts: list[str]) -> None:
    choices = ",".join(QuotedString(text, Quote.single).with_quotes() for text in texts)
    space = typed(f"a={choices}")
    assert [read_back(overrides_of(space, point)[0]) for point in grid_points(space)] == texts


@given(
    st.lists(
        st.one_of(
            st.booleans(),
            st.none(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.from_regex(r"[a-z/_.-]+", fullmatch=True),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_hydra_reads_back_every_choice_that_is_not_refused(values: list[Any]) -> None:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    line = f"a={','.join(texts)}"
    try:
        space = typed(line)
    except ConfigError as error:
        assert "equal" in str(error)
        return
    meant = [read_back(f"a={text}") for text in texts]
    found = [read_back(overrides_of(space, point)[0]) for point in grid_points(space)]
    assert [(type(value), value) for value in found] == [(type(value), value) for value in meant]


def test_additions_and_groups_keep_their_keys() -> None:
    space = typed("+a=1,2", "encoder@encoder.text=bilstm,cnn")
    assert overrides_of(space, {"encoder@encoder.text": "cnn", "+a": 2}) == ["+a=2", "encoder@encoder.text=cnn"]


# --- Trying the values ------------------------------------------------------------------------------------------------


class Checks:
    """Refuses some overrides, and counts what it is asked."""

    def __init__(self, refuses: Callable[[set[str]], bool]) -> None:
        self.asked: list[list[str]] = []
        self._refuses = refuses

    def __call__(self, overrides: list[str]) -> None:
        self.asked.append(overrides)
        if self._refuses(set(overrides)):
            raise ConfigError("it does not fit.\n  type something else")


def test_every_choice_and_both_ends_are_tried_once() -> None:
    checks = Checks(lambda overrides: False)
    check_space(typed("fixed=0", "a=x,y,z", "b=interval(1.5,2.5)"), checks)
    assert checks.asked == [
        ["fixed=0", "a=x", "b=1.5"],
        ["fixed=0", "a=y", "b=1.5"],
        ["fixed=0", "a=z", "b=1.5"],
        ["fixed=0", "a=x", "b=2.5"],
    ]


@pytest.mark.parametrize("bad", ["a=x", "a=z", "b=1", "b=5", "c=q"])
def test_a_value_that_nothing_accepts_is_named(bad: str) -> None:
    space = typed("a=x,y,z", "b=range(1,6)", "c=p,q")
    with pytest.raises(ConfigError, match=rf"^the sweep cannot try {bad}: it does not fit\.\n  type something else$"):
        check_space(space, Checks(lambda overrides: bad in overrides))


@pytest.mark.parametrize("pair", [{"a=x", "c=p"}, {"a=x", "c=q"}, {"a=y", "c=p"}, {"a=z", "c=q"}])
def test_values_that_exclude_one_another_are_no_error(pair: set[str]) -> None:
    check_space(typed("a=x,y,z", "b=range(1,6)", "c=p,q"), Checks(lambda overrides: pair <= overrides))


def test_a_fault_of_all_trials_is_not_laid_on_a_value() -> None:
    with pytest.raises(ConfigError, match=r"^it does not fit"):
        check_space(typed("fixed=0", "a=x,y"), Checks(lambda overrides: "fixed=0" in overrides))


def test_errors_of_hydra_are_explained() -> None:
    def check(overrides: list[str]) -> None:
        raise HydraException("Could not override 'optimizer.lrr'.\nuse +optimizer.lrr=1")

    with pytest.raises(ConfigError, match=r"type optimizer\.lr=VALUE"):
        check_space(typed("optimizer.lrr=1,2"), check)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["feedback=none,mmlatch", "optimizer.lrr=interval(0.1,0.2)"],
            "try optimizer.lrr=0.1:.*\n  type optimizer.lr=",
        ),
        (["feedback=none,mmlatsch"], "try feedback=mmlatsch:"),
        (["feedback=1,2"], "try feedback=1:"),
        (["optimizer.lr=0.1,high"], "try optimizer.lr=high:"),
        (["feedback=none,mmlatch", "feedback.num_passes=1,2"], "feedback.num_passes=1 beside feedback=none:"),
        (["dataset=cmu_mosii", "optimizer.lr=0.1,0.2"], "^dataset=cmu_mosii: there is no such option"),
    ],
)
def test_the_real_configuration_is_refused_in_a_few_lines(arguments: list[str], expected: str) -> None:
    from mmsa import build

    with pytest.raises(ConfigError, match=expected) as caught:
        check_space(typed(*arguments), lambda overrides: build.check(compose(overrides)))
    assert str(caught.value).count("\n") <= 2


def test_an_interval_of_integers_is_told_apart() -> None:
    from mmsa import build

    with pytest.raises(ConfigError, match=r"type 'hidden_dim=int\(interval\(16, 64\)\)'"):
        check_space(typed("hidden_dim=interval(16,64)"), lambda overrides: build.check(compose(overrides)))
    check_space(typed("hidden_dim=int(interval(16,64))"), lambda overrides: build.check(compose(overrides)))
