"""The command lines that pages give: what they would run, and whether they parse."""

from __future__ import annotations

import shlex

import typer
from hydra.core.override_parser.overrides_parser import OverridesParser

from mmsa.cli import app
from mmsa.overrides import native_overrides

TRAIN = "python train.py"


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


def parse(line: str) -> None:
    """Parse a command of `mmsa`; it fails where there is no such command, argument or option."""
    name, *arguments = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    command = group.get_command(group.make_context("mmsa", ["--help"], resilient_parsing=True), name)  # type: ignore[attr-defined]
    assert command is not None, name
    command.make_context(name, arguments)
