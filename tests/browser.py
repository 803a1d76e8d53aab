"""A real browser without a window: a test module lists this one in `pytest_plugins` and asks for `browser`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.conftest import unavailable

_SECONDS = 60
_PROGRAMS = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
_OWN_SCHEMES = ("about", "blob", "chrome", "data", "file")


@dataclass
class Browser:
    """Chromium, driven by WebDriver.

    Args:
        driver: of Selenium, for what is not here.
    """

    driver: webdriver.Chrome

    def open(self, address: str) -> None:
        """Show a page; what an earlier one has said and asked for is forgotten."""
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(address)

    def turn_to(self, address: str) -> None:
        """Show another place of a page that changes with the part behind #, without loading it again."""
        self.driver.get(address)

    def wait(self, found: Callable[[], object], what: str) -> None:
        """Until a function returns something true.

        Raises:
            AssertionError: it has not within a minute; with the page's text.
        """
        try:
            WebDriverWait(self.driver, _SECONDS, ignored_exceptions=[WebDriverException]).until(lambda _: found())
        except TimeoutException:
            raise AssertionError(f"{what} is not on the page, which shows: {self.text[:2000]}") from None

    def find(self, css: str) -> list[WebElement]:
        """The elements of a selector, in the page's order."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    @property
    def text(self) -> str:
        """What the page shows."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def errors(self) -> list[str]:
        """What the console has as errors since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def hosts(self) -> set[str]:
        """The hosts that the page has asked for anything since the last call."""
        sent = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).hostname or url for url in asked if urlsplit(url).scheme not in _OWN_SCHEMES}


def _start(folder: Path) -> webdriver.Chrome:
    browser, driver = (next(filter(None, map(shutil.which, names)), None) for names in _PROGRAMS)
    if browser is None or driver is None:  # without both names Selenium would fetch one
        unavailable("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # No proxy of the machine is asked for the loopback address, and no host of the browser's own maker at all.
    for argument in ("headless", "disable-gpu", "disable-dev-shm-usage", "no-proxy-server", "window-size=1600,1000"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={folder}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # for root Chromium has no sandbox
        options.add_argument("--no-sandbox")
    return webdriver.Chrome(options=options, service=Service(driver))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser with a profile of its own; tests that need one are skipped where there is none."""
    driver = _start(tmp_path_factory.mktemp("browser"))
    yield Browser(driver)
    driver.quit()
