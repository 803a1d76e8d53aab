"""The command lines that pages give: what they would run, and whether they are accepted."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable

import typer
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from mmsa import build
from mmsa.cli import app
from mmsa.compose import compose
from mmsa.config import check_options
from mmsa.overrides import is_sweep, native_overrides
from mmsa.sweep.options import SweepOptions, check_together
from mmsa.sweep.space import as_typed, check_space, read_space

TRAIN = "python train.py"
PRINTS = ("--help", "--cfg", "--config-dir")
"""Flags of lines that print something, or that need a folder of the reader's own."""
Check = Callable[[DictConfig], None]


def runs(line: str) -> list[list[str]]:
    """The overrides of each run of a command of train.py: of a sweep every value once, of seeds two."""
    words = shlex.split(line.removeprefix(TRAIN))
    parsed = OverridesParser.create().parse_overrides(native_overrides([word for word in words if word != "-m"]))
    assert ("-m" in words) == any(override.is_sweep_override() for override in parsed), "-m for several values"
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()][
            : 2 if override.get_key_element() == "seed" else None
        ]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in parsed
    ]
    return [[values[min(i, len(values) - 1)] for values in choices] for i in range(max(map(len, choices), default=1))]


def check(line: str, checked: Check = build.check) -> None:
    """Check a command of train.py, or its overrides alone, as a run or a sweep does before it reads data."""
    words = shlex.split(line.removeprefix(TRAIN))
    if any(word.startswith(PRINTS) for word in words):
        return
    if is_sweep(words):
        _check_sweep(words, checked)
        return
    for overrides in runs(line):
        checked(compose(overrides))


def _check_sweep(words: list[str], checked: Check) -> None:
    native = native_overrides(["-m", *words])[1:]
    options = compose([word for word in native if word.startswith("sweep")]).sweep
    values = {str(key): value for key, value in OmegaConf.to_container(options, resolve=True).items()}
    check_options(values, SweepOptions, "sweep")
    check_together(values)
    check_space(
        read_space(as_typed(options.space), native, seeds_allowed=options.final),
        lambda overrides: checked(compose(overrides)),
    )


def parse(line: str) -> None:
    """Parse a command of `mmsa`; it fails where there is no such command, argument or option."""
    name, *arguments = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    command = group.get_command(group.make_context("mmsa", ["--help"], resilient_parsing=True), name)  # type: ignore[attr-defined]
    assert command is not None, name
    command.make_context(name, arguments)


def called(line: str) -> tuple[str, list[object]]:
    """The function and the literal arguments of a call such as `mmsa.run(["seed=2"])`."""
    call = ast.parse(line, mode="eval").body
    assert isinstance(call, ast.Call)
    return ast.unparse(call.func), [ast.literal_eval(argument) for argument in call.args]
