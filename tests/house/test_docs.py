"""What the pages say is there: links, images, commands, options and metrics."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from mmsa import build
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.training.classification import Classification
from mmsa.training.kinds import KINDS
from mmsa.training.metrics import METRICS
from mmsa.training.regression import Regression
from tests.house.command_lines import check, parse

ROOT = Path(__file__).parents[2]
CONF = conf_folder()
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {"custom_data.md", "recipes.md", "sweeps.md"}
"""Pages whose commands of train.py have tests beside what they are about."""
TEXTS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name not in ELSEWHERE)
METRICS_PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def fenced(text: str, language: str = "") -> list[str]:
    """The code blocks of a page in this language, without their fences."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in blocks if name == language]


def commands(program: str, text: str = README) -> list[str]:
    """Every line of a page's code blocks that calls a program, without its comment."""
    lines = itertools.chain.from_iterable(block.replace("\\\n", " ").splitlines() for block in fenced(text))
    found = (shlex.join(shlex.split(line, comments=True)) for line in lines if line.startswith(f"{program} "))
    return list(dict.fromkeys(line for line in found if "…" not in line))


def table(text: str, *head: str) -> list[list[str]]:
    """The rows of the table of a page whose head begins with these cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    start = next(i for i, row in enumerate(rows) if tuple(row[: len(head)]) == head) + 2
    return list(itertools.takewhile(lambda row: len(row) > 1, rows[start:]))


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


@pytest.mark.parametrize("line", commands("python train.py", TEXTS))
def test_training_commands_pass_the_checks(line: str) -> None:
    check(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mmsa_commands_parse(page: Path) -> None:
    for line in commands("mmsa", page.read_text(encoding="utf-8")):
        parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:^|`)make ((?:[a-z][a-z-]*\b(?![=/]) ?)+)", text, flags=re.MULTILINE)
    assert {target for found in named for target in found.split()} <= targets


def test_every_group_is_in_the_table_of_options_with_its_default() -> None:
    """Options beside the default are examples: the whole list is that of `--help`, which follows the files."""
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert "`python train.py --help` lists all options" in page
    defaults = default_choices()
    for group in sorted(path.name for path in CONF.iterdir() if path.is_dir()):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{group}` |")] or [""]
        _, _, cell, decides, _ = row.split("|") if row else [""] * 5
        options = {path.stem for path in (CONF / group).glob("*.yaml")}
        assert set(re.findall(r"`(\w+)`", cell)) <= options, f"docs/options.md: {group} has {sorted(options)}"
        assert decides.strip(), f"docs/options.md: a row that says what {group} decides"
        bold = re.findall(r"\*\*`(\w+)`\*\*", cell)
        assert bold == ([defaults[group]] if group in defaults else []), f"docs/options.md, default of {group}"


def default_choices() -> dict[str, str]:
    """The default option of every group that has one."""
    listed = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    pairs = [next(iter(entry.items())) for entry in listed if isinstance(entry, dict)]
    return {group: option for group, option in pairs if option and group.isidentifier()}


def each_meant(text: str) -> list[str]:
    """What a text of the metrics page stands for: for each convention of ZEROS, or each EMOTION, one text."""
    rules = {name.strip("`"): rule for name, rule, *_ in table(METRICS_PAGE, "ZEROS")}
    emotions = re.findall(r"`(\w+)`", METRICS_PAGE.partition("EMOTION for each of ")[2].partition(".")[0])
    if "ZEROS" in text:
        return [re.sub(r"(?<=_)ZEROS", name, text).replace("ZEROS", rule) for name, rule in rules.items()]
    return [text.replace("EMOTION", name) for name in emotions] if "EMOTION" in text else [text]


def metrics_in(cell: str) -> set[str]:
    """The names of metrics in a cell, written out."""
    return {name for found in re.findall(r"`(\w+)`", cell) for name in each_meant(found)}


def test_the_metrics_are_those_that_their_page_defines() -> None:
    rows = [row for shown in table(METRICS_PAGE, "name", "better") for row in each_meant(" | ".join(shown))]
    better = {"min": "smaller", "max": "larger"}
    assert sorted(rows) == sorted(f"`{name}` | {better[m.mode]} | {m.definition}" for name, m in METRICS.items())


def test_each_kind_logs_the_metrics_that_their_page_lists() -> None:
    listed = {row[0].strip("`"): row for row in table(METRICS_PAGE, "kind", "values")}
    assert set(listed) == set(KINDS)
    for kind, (_, _, regression, classification) in listed.items():
        columns = len(KINDS[kind].columns)
        blank = np.zeros((1, columns) if columns else 1)
        monitor = KINDS[kind].shown[0]
        assert metrics_in(regression) == set(Regression(kind=kind, monitor=monitor).metrics(blank, blank))  # type: ignore[arg-type]
        cuts = None if KINDS[kind].thresholds or columns else [0.0]
        makes = Classification(kind=kind, thresholds=cuts)  # type: ignore[arg-type]
        named = listed["sentiment"][3] if "the same" in classification else classification
        assert metrics_in(named) == set(makes.metrics(blank, blank.astype(int)))


def test_each_data_set_states_the_kinds_that_the_page_lists() -> None:
    listed = {row[0].strip("`"): dict(re.findall(r"`(\w+)`: (\w+)", row[1])) for row in table(METRICS_PAGE, "data set")}
    names = {path.stem for path in (CONF / "dataset").glob("*.yaml")} - {"custom"}
    assert listed == {name: dict(build.build_dataset(compose([f"dataset={name}"])).stated_kinds) for name in names}


def test_methods_that_have_a_section_stand_there_with_every_option() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## ([A-Z]\w+): (`.+)$", page, flags=re.MULTILINE)
    assert {group for group, _ in sections} >= {"Encoder", "Fusion", "Feedback", "Regularizer"}
    for group, named in sections:
        for option in re.findall(r"`(\w+)`", named):
            node = yaml.safe_load((CONF / group.lower() / f"{option}.yaml").read_text(encoding="utf-8"))
            assert all(f"`{key}`" in page for key in set(node) - {"_target_", "defaults", "hidden_dim"}), option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_in_python_are_python(page: Path) -> None:
    for block in fenced(page.read_text(encoding="utf-8"), "python"):
        compile(block, page.name, "exec")


def test_the_readme_names_every_paper_of_the_citation_file() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    cited = [" ".join(row) for row in table(README, "you ran", "cite")]
    for reference in citation["references"]:
        assert all({"family-names", "given-names"} <= set(author) for author in reference["authors"])
        first, year = reference["authors"][0]["family-names"], str(reference["year"])
        options = [option.partition("=")[2] for option in reference["scope"].split(", ") if "=" in option]
        rows = [row for row in cited if first in row and year in row]
        assert all(any(option in row for row in rows) for option in options) and rows, reference["title"]


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= 160, "a page of docs/ is the place for it"


def test_every_room_has_its_tests() -> None:
    rooms = {path.parent.name for path in (ROOT / "mmsa").glob("*/*.py")}
    assert [room for room in sorted(rooms) if not list((ROOT / "tests" / room).glob("test_*.py"))] == []
