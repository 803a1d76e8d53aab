"""The page of all results: whole without scripts, and in a real browser sortable, silent and closed to the outside."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from mmsa.analysis.leaderboard import TITLE
from mmsa.analysis.ranking import ranked
from mmsa.analysis.runs import by_configuration
from mmsa.analysis.selection import read_runs
from mmsa.cli import command
from mmsa.errors import ConfigError, DataError
from tests.pages import Page

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

    from tests.browser import Browser

pytest_plugins = ["tests.browser"]

AddRun = Callable[..., Path]
MARKUP = "name=<script>document.title='run'</script>"
HANDLER = "task.target=x' onmouseover='document.title=1"


def scores(test: float, valid: float, corr: float | None = 0.5, **more: float) -> dict[str, Any]:
    known = {"test/mae": test, "test/corr": corr, "test/rmse": 2 * test, "test/loss": test, "valid/mae": valid}
    return {"metrics": known | {f"test/{name}": value for name, value in more.items()}}


@pytest.fixture
def board(outputs: Path) -> Callable[..., str]:
    """Write the page with these words, and read it."""

    def write(*words: str) -> str:
        command(["leaderboard", "--outputs", str(outputs), *words])
        return (outputs / "leaderboard.html").read_text(encoding="utf-8")

    return write


def heads(text: str) -> list[str]:
    return re.findall(r"<th scope='col'[^>]*>(.*?)</th>", text.partition("</thead>")[0])


def names(text: str) -> list[str]:
    """The rows of the first table."""
    return re.findall(r"<th scope='row'>(.*?)(?: \(\d seeds?\))?<span", text.partition("</table>")[0])


def test_validation_orders_the_rows_and_is_the_reference(
    add_run: AddRun, outputs: Path, board: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 2):
        add_run(0, seed, ("fusion=a",), **scores(0.6 + seed / 50, 0.9))
        add_run(0, seed, ("fusion=b", "name=mine"), **scores(0.8 + seed / 90, 0.7, acc7=0.4))
        (add_run(0, seed, ("fusion=c",), **scores(0.7, 0.8)) / "errors.html").touch()
    text = board("cmu_mosi")
    links = [f"<a href='{path.as_uri()}'>seed" for path in sorted(outputs.glob("runs/*/errors.html"))]
    assert len(links) == 2 and f"errors: {links[0]} 1</a> {links[1]} 2</a></span>" in text
    assert text.count("errors: ") == 1, "where there are such pages, and not below baselines"
    assert capsys.readouterr().out == f"leaderboard of 6 runs: {(outputs / 'leaderboard.html').as_uri()}\n"
    assert names(text)[:5] == ["mine", "fusion=c", "fusion=a", "mean", "ridge joint"]
    assert heads(text)[1:] == ["valid mae ↓", "mae ↓", "corr ↑", "fusion", "rmse ↓", "acc7 ↑"]
    assert "<h2>cmu_mosi, test fold, data aaaabbbbcccc: differences from mine</h2>" in text
    assert "differences are tested from mine, the best row by validation<" in text
    assert "ordered by mae of the validation fold" in text and "published rows are quoted and never tested" in text
    assert text.count("data:image/png;base64,") == 2 and "warning: fusion=a" not in text
    tested = text.partition(": differences from")[2]
    assert re.findall(r"<td class='text'>(\w+)</td>", tested) == ["mae", "corr"] * 2, "those that the task shows"
    page = Page()
    page.feed(text)
    assert not page.open
    text = board("--reference", "fusion=a")
    assert "differences are tested from fusion=a, as asked<" in text and names(text)[0] == "mine"
    with pytest.raises(ConfigError, match="--reference fusion=z: there is no such row"):
        board("--reference", "fusion=z")


def test_of_many_rows_the_first_by_validation_are_tested_and_drawn(
    add_run: AddRun, board: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsa.analysis.shape.MOST_COMPARED", 2)
    for number, name in enumerate("dcab"):
        add_run(0, 1, (f"fusion={name}",), **scores(0.9 - number / 10, number / 10))
    text = board()
    assert names(text)[:4] == ["fusion=d", "fusion=c", "fusion=a", "fusion=b"]
    assert (
        "the best row by validation, for the first 1 other rows" in text and "scores of the first 2 of 4 rows" in text
    )
    assert "fusion=c" in (tested := text.partition(": differences from")[2]) and "fusion=a" not in tested
    text = board("--reference", "fusion=b")
    assert "fusion=d" in (tested := text.partition(": differences from fusion=b")[2]) and "fusion=c" not in tested


def test_the_metric_that_selects_epochs_ranks_from_its_best_side(add_run: AddRun, outputs: Path) -> None:
    for name, corr in (("a", 0.5), ("b", 0.7), ("c", None), ("d", 0.6)):
        metrics = {"test/corr": 0.1, "test/mae": 1.0, "valid/corr": corr, "valid/mae": corr}
        add_run(0, 1, (f"fusion={name}",), metrics=metrics, monitor="valid/corr", mode="max")
    ranking = ranked(by_configuration(read_runs(outputs).runs))
    assert ranking.metric == "corr" and ranking.best == ranking.groups[0]
    assert [group.label for group in ranking.groups] == ["fusion=b", "fusion=d", "fusion=a", "fusion=c"]
    assert ranking.scores[:3] == [0.7, 0.6, 0.5] and math.isnan(ranking.scores[3])


def test_a_fold_that_chose_the_reference_is_not_tested(add_run: AddRun, board: Callable[..., str]) -> None:
    for name in "ab":
        add_run(0, 1, (f"fusion={name}",), metrics={"valid/mae": 0.5, "valid/corr": 0.1})
    text = board()
    assert "valid fold" in text and "differences" not in text and "valid mae" not in text
    add_run(0, 1, ("fusion=c",), metrics={"test/mae": 0.5})
    add_run(0, 2, ("fusion=d",), metrics={"test/mae": 0.4})
    assert "no row has a validation score: the order is that of the names" in board()


def test_another_file_is_kept(add_run: AddRun, outputs: Path, board: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="holds no finished run"):
        board()
    assert not outputs.exists()
    add_run(0.5)
    assert f"<title>{TITLE}</title>" in board()
    add_run(0.4, 2)
    assert "(2 seeds)" in board()
    other = outputs / "runs.html"
    other.write_text("mine")
    for path in (other, outputs):
        with pytest.raises(ConfigError, match=f"--output {path} is no leaderboard, and is kept"):
            board("--output", str(path))
    assert other.read_text() == "mine"
    board("--output", str(outputs / "new" / "page.html"))
    assert [path.name for path in (outputs / "new").iterdir()] == ["page.html"]


# --- In the browser ---------------------------------------------------------------------------------------------------

CLOSED = """
const done = arguments[0], seen = [], add = (name, given) =>
  document.body.append(Object.assign(document.createElement(name), given));
document.addEventListener("securitypolicyviolation", event => seen.push(event.effectiveDirective));
add("script", { textContent: "window.ran = 1" });
add("style", { textContent: "body { color: red }" });
add("img", { src: "http://127.0.0.1:9/x.png" });
fetch("http://127.0.0.1:9/").catch(() => {});
setTimeout(() => done([seen.sort(), window.ran ?? null]), 100);
"""


def column(browser: Browser, body: int, place: int) -> list[str]:
    """The cells of a column in one block of the first table."""
    rows = f"table:first-of-type tbody:nth-of-type({body}) tr > :nth-child({place})"
    return [
        cell.text.partition("\n")[0]
        for cell in browser.find("div:first-of-type")[0].find_elements("css selector", rows)
    ]


def test_in_a_browser_the_page_sorts_and_neither_asks_nor_obeys_anybody(
    add_run: AddRun, outputs: Path, board: Callable[..., str], browser: Browser
) -> None:
    from selenium.webdriver.common.keys import Keys

    for seed in (1, 2):
        add_run(0, seed, ("fusion=a",), **scores(0.60001 * seed, 0.7, 0.1 / 3))
        add_run(0, seed, ("fusion=b",), **scores(0.60002 * seed, 0.6, None))
    add_run(0, 1, ("fusion=c", MARKUP), **scores(0.4, 0.9, 0.9))
    add_run(0, 1, ("fusion=d", HANDLER), **scores(1.7, 0.5, -0.3))
    board()
    browser.open((outputs / "leaderboard.html").as_uri())
    head = {button.text: button for button in browser.find("div:first-of-type thead button")}
    assert list(head)[:4] == ["name", "valid mae ↓", "mae ↓", "corr ↑"]

    def values(place: int, body: int = 1) -> list[str]:
        return [cell.partition(" ")[0] for cell in column(browser, body, place)]

    def sorted_by() -> list[tuple[str, str]]:
        return [(one.text, str(one.get_attribute("aria-sort"))) for one in browser.find("th[aria-sort]")]

    check_numbers(browser)
    assert values(3) == ["1.700", "0.900", "0.900", "0.400"] and not sorted_by(), "by validation: d, b, a, c"
    head["mae ↓"].click()
    assert column(browser, 1, 1)[1:3] == ["fusion=a (2 seeds)", "fusion=b (2 seeds)"]
    assert values(3) == ["0.400", "0.900", "0.900", "1.700"] and sorted_by() == [("mae ↓", "ascending")]
    assert column(browser, 2, 1) == ["ridge joint", "mean"]
    published = [float(value) for value in values(3, 3) if value != "–"]
    assert len(published) > 5 and published == sorted(published)
    head["mae ↓"].click()
    assert values(3) == ["1.700", "0.900", "0.900", "0.400"] and sorted_by() == [("mae ↓", "descending")]
    for key, order, ordered in (
        (Keys.ENTER, "descending", ["0.900", "0.033", "-0.300", "–"]),
        (Keys.SPACE, "ascending", ["-0.300", "0.033", "0.900", "–"]),
    ):
        head["corr ↑"].send_keys(key)
        assert values(4) == ordered and sorted_by() == [("corr ↑", order)]
    head["name"].click()
    assert column(browser, 1, 1) == sorted(column(browser, 1, 1), key=str.lower)

    assert browser.driver.title == TITLE and "<script>document.title='run'</script>" in browser.text
    assert not browser.find("[onmouseover]") and "x' onmouseover='document.title=1, the best row" in browser.text
    assert browser.errors() == [] and browser.hosts() == set()
    for width in (400, 1400):
        browser.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= width
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    refused, ran = browser.driver.execute_async_script(CLOSED)
    assert refused == ["connect-src", "img-src", "script-src-elem", "style-src-elem"] and ran is None


def check_numbers(browser: Browser) -> None:
    """The numbers in the cells are the means of those in the result.json of the runs that each row links to."""
    first = browser.find("div:first-of-type")[0]
    shown = [one.text.split()[0] for one in first.find_elements("css selector", "thead th")[2:4]]
    rows: list[WebElement] = first.find_elements("css selector", "tbody:first-of-type tr")
    for row in rows:
        links = [str(link.get_attribute("href")) for link in row.find_elements("css selector", "a")]
        folders = [Path(unquote(urlsplit(link).path)) for link in links]
        metrics = [json.loads((folder / "result.json").read_text())["metrics"] for folder in folders]
        for name, cell in zip(shown, row.find_elements("css selector", "td")[1:], strict=False):
            values = [one[f"test/{name}"] for one in metrics]
            if None in values:
                assert (cell.text, cell.get_attribute("data-value")) == ("–", None)
            else:
                assert float(str(cell.get_attribute("data-value"))) == fmean(values)
                assert cell.text.split()[0] == f"{fmean(values):.3f}"
    assert shown == ["mae", "corr"] and len(rows) == 4
