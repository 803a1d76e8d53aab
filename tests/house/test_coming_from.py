"""The pages for those who come from elsewhere: every command is accepted here, and a gap has a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

import mmsa
from mmsa import build
from mmsa.training.metrics import METRICS
from tests.encoder.tiny import save_model, save_tokenizer
from tests.house.command_lines import called, check, parse

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "originals" / "coming_from.md", *sorted((DOCS / "coming_from").glob("*.md"))]
MAKE = set(re.findall(r"^([\w-]+):", (DOCS.parent / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


class Row(NamedTuple):
    there: str
    here: str
    remark: str


def cells(page: Path) -> list[tuple[str, ...]]:
    """The rows of a page's tables, with their heads."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return [row for row in found if not set("".join(row)) <= set("-")]


def rows() -> list[Row]:
    """The rows that say what is typed here, of all pages, without their heads."""
    found = [Row(*row) for page in PAGES for row in cells(page) if len(row) == 3]
    return [row for row in found if row.here != "here"]


def typed() -> list[str]:
    """What the pages say to type here; overrides that stand alone are of train.py."""
    return list(dict.fromkeys(span for row in rows() for span in re.findall(r"`([^`]+)`", row.here)))


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny transformer encoder of twelve layers, for commands that would ask the hub for one."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny-bert")
    save_tokenizer(folder)
    save_model(folder, num_hidden_layers=12)
    return folder


def test_every_row_has_a_command_or_a_reason() -> None:
    assert len(rows()) > 200
    for row in rows():
        assert row.there, row
        assert "`" in row.here or row.here == "–", row
        assert row.remark or row.here != "–" or "debug=" in row.there or "trainer." in row.there, row


@pytest.mark.parametrize("line", typed())
def test_what_is_typed_here_is_accepted(line: str, request: pytest.FixtureRequest) -> None:
    def checked(cfg: DictConfig) -> None:
        if "name" in OmegaConf.select(cfg, "encoder.text"):  # a model of the hub, which a test cannot reach
            cfg.encoder.text.name = str(request.getfixturevalue("text_encoder"))
        build.check(cfg)

    if line.startswith("make "):
        assert set(line.split()[1:]) <= MAKE
    elif line.startswith("mmsa."):
        function, arguments = called(line)
        assert callable(getattr(mmsa, function.removeprefix("mmsa.")))
        if function == "mmsa.run":
            check(" ".join(arguments[0]), checked)  # type: ignore[arg-type]
    elif line.startswith("mmsa "):
        parse(line)
    else:
        check(line, checked)


def test_metrics_have_the_names_of_this_project() -> None:
    pairs = [row for row in cells(DOCS / "coming_from" / "mmsa.md") if len(row) == 2 and row[1] != "here"]
    assert len(pairs) == 6
    for there, here in pairs:
        names = re.findall(r"`(\w+)`", here)
        assert len(names) == there.count("`") // 2 and set(names) <= set(METRICS), here


def test_the_file_of_a_sweep_is_accepted() -> None:
    page = (DOCS / "coming_from" / "wandb.md").read_text(encoding="utf-8")
    theirs, ours = (
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    )
    assert len(ours["sweep"]["space"]) == len(theirs["parameters"])
    dimensions = [f"'{key}={value}'" for key, value in ours["sweep"].pop("space").items()]
    check(" ".join(["sweep=search", *(f"sweep.{key}={value}" for key, value in ours["sweep"].items()), *dimensions]))
