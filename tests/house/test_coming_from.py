"""docs/coming_from.md: every command that it gives is one, and what has none has a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import OmegaConf

from mmsa import build
from mmsa.compose import compose
from tests.encoder.tiny import save_model, save_tokenizer
from tests.house.command_lines import TRAIN, parse, runs

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"


class Row(NamedTuple):
    there: str
    here: str
    remark: str


def rows() -> list[Row]:
    """The rows of the page's tables, without their heads."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    found = [Row(*row) for row in cells if not set("".join(row)) <= set("-")]
    return [row for row in found if row.here != "here"]


def typed(program: str) -> list[str]:
    """Every command of the page that calls a program; overrides that stand alone are of train.py."""
    spans = dict.fromkeys(span for row in rows() for span in re.findall(r"`([^`]+)`", row.here))
    return [span for span in spans if ("mmsa" if span.startswith("mmsa ") else TRAIN) == program]


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny transformer encoder of twelve layers, for commands that would ask the hub for one."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-bert")
    save_tokenizer(folder)
    save_model(folder, num_hidden_layers=12)
    return folder


def test_every_row_has_a_command_or_a_reason() -> None:
    assert len(rows()) > 100
    for row in rows():
        assert row.there, row
        assert "`" in row.here or (row.here == "–" and len(row.remark) > 8), row


@pytest.mark.parametrize("line", typed(TRAIN))
def test_training_commands_pass_the_checks(line: str, request: pytest.FixtureRequest) -> None:
    for overrides in runs(line):
        cfg = compose(overrides)
        if "name" in OmegaConf.select(cfg, "encoder.text"):  # a model of the hub, which a test cannot reach
            cfg.encoder.text.name = str(request.getfixturevalue("text_encoder"))
        build.check(cfg)


@pytest.mark.parametrize("line", typed("mmsa"))
def test_mmsa_commands_parse(line: str) -> None:
    parse(line)
