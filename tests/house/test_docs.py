"""What the pages say is there: links, images, commands, options and metrics."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from mmsa import build
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.overrides import is_sweep
from mmsa.training.metrics import METRICS
from tests.house.command_lines import parse, runs

ROOT = Path(__file__).parents[2]
CONF = conf_folder()
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PRINTS = ("--help", "--cfg", "--config-dir")
"""Flags of lines that print something, or that need a folder of the reader's own."""


def fenced(text: str, language: str = "") -> list[str]:
    """The code blocks of a page in this language, without their fences."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in blocks if name == language]


def commands(program: str) -> list[str]:
    """Every line of the README's code blocks that calls a program, without its comment."""
    lines = itertools.chain.from_iterable(block.splitlines() for block in fenced(README))
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.startswith(f"{program} ")]


def heading_anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_and_images_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        place, _, anchor = target.partition("#")
        linked = page.parent / place if place else page
        assert linked.exists(), target
        if anchor:
            assert anchor in heading_anchors(linked.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:mmsa|tests|conf|hydra_plugins)/[\w./]+)`", page.read_text(encoding="utf-8"))
    absent = [name for name in named if not re.search(r"[A-Z]{4}", name) and not (ROOT / name).exists()]
    assert not absent


def test_images_are_small_and_shown() -> None:
    for image in (ROOT / "docs" / "images").iterdir():
        assert image.stat().st_size < 300_000, image
        assert any(image.name in page.read_text(encoding="utf-8") for page in PAGES), f"{image.name} is shown nowhere"


def test_the_readme_has_commands_to_check() -> None:
    assert len(commands("python train.py")) >= 5 and len(commands("mmsa")) >= 2 and len(commands("make")) >= 3


@pytest.mark.parametrize("line", commands("python train.py"))
def test_training_commands_pass_the_checks(line: str) -> None:
    if any(argument.startswith(PRINTS) for argument in shlex.split(line)[2:]):
        pytest.skip("prints something, or needs a folder of one's own")
    if is_sweep(shlex.split(line)):
        pytest.skip("a sweep: see tests/sweep/test_recipes.py")
    for overrides in runs(line):  # every value once; the combination matrix tests them together
        build.check(compose(overrides))


@pytest.mark.parametrize("line", commands("mmsa"))
def test_mmsa_commands_parse(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:^|`)make ((?:[a-z][a-z-]*\b(?![=/]) ?)+)", text, flags=re.MULTILINE)
    assert {target for found in named for target in found.split()} <= targets


def test_every_group_stands_in_the_readme_with_its_default() -> None:
    """Options beside the default are examples: the whole list is that of `--help`, which follows the files."""
    assert "`python train.py --help` lists all options" in README
    defaults = default_choices()
    for group in sorted(path.name for path in CONF.iterdir() if path.is_dir()):
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{group}` |")] or [""]
        _, _, cell, decides, _ = row.split("|") if row else [""] * 5
        options = {path.stem for path in (CONF / group).glob("*.yaml")}
        assert set(re.findall(r"`(\w+)`", cell)) <= options, f"README, table of options: {group} has {sorted(options)}"
        assert decides.strip(), f"README, table of options: a row that says what {group} decides"
        bold = re.findall(r"\*\*`(\w+)`\*\*", cell)
        assert bold == ([defaults[group]] if group in defaults else []), f"README, default of {group}"


def default_choices() -> dict[str, str]:
    """The default option of every group that has one."""
    listed = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [next(iter(entry.items())) for entry in listed if isinstance(entry, dict)]
    return {group: option for group, option in pairs if option and group.isidentifier()}


def test_every_metric_is_defined_in_its_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        row = f"| `{name}` | {'smaller' if metric.mode == 'min' else 'larger'} | {metric.definition} |"
        assert row in page, f"docs/metrics.md lacks the line\n{row}"


def test_methods_that_have_a_section_stand_there_with_every_option() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## ([A-Z]\w+): (`.+)$", page, flags=re.MULTILINE)
    assert {group for group, _ in sections} >= {"Encoder", "Fusion", "Feedback", "Regularizer"}
    for group, named in sections:
        for option in re.findall(r"`(\w+)`", named):
            node = yaml.safe_load((CONF / group.lower() / f"{option}.yaml").read_text(encoding="utf-8"))
            assert all(f"`{key}`" in page for key in set(node) - {"_target_", "defaults", "hidden_dim"}), option


def test_examples_in_python_are_python() -> None:
    for block in fenced(README, "python"):
        compile(block, "README.md", "exec")


def test_the_citation_file_names_every_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    for reference in citation["references"]:
        assert reference["title"].partition(":")[0] in README
        assert all({"family-names", "given-names"} <= set(author) for author in reference["authors"])


def test_every_room_has_its_tests() -> None:
    rooms = {path.parent.name for path in (ROOT / "mmsa").glob("*/*.py")}
    assert [room for room in sorted(rooms) if not list((ROOT / "tests" / room).glob("test_*.py"))] == []
