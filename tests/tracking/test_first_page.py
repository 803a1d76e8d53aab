"""What MLflow's UI shows without a click, read from its pages in a real browser: numbers are those of result.json."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import pytest
from omegaconf import OmegaConf

from mmsa import cli
from mmsa.compose import compose
from mmsa.run_folder import write_history, write_json, write_text
from mmsa.secrets import as_stored
from mmsa.tracking import ui
from mmsa.tracking.view import KEY
from tests.conftest import ROOT
from tests.records import record
from tests.warm import FOREIGN

if TYPE_CHECKING:
    from tests.browser import Browser

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


SCORES = {1: 0.5, 2: 0.625, 3: 0.875}
"""Seed -> its test/mae."""
HISTORY = [{"train/loss": 1.5, "valid/mae": mae, "lr": 0.001} for mae in (0.9, 0.7, 0.8)]


def add_run(outputs: Path, number: int, typed: list[str], sweep: str, **changed: Any) -> Path:
    """A run's folder as its end leaves it: three epochs, of which the second was selected."""
    cfg = compose([*typed, f"paths.outputs={outputs}", "tracking=none"])
    folder = outputs / "runs" / f"20260101-{number:06}_run"
    folder.mkdir(parents=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(as_stored(cfg))))
    write_json(folder / "overrides.json", typed)
    write_history(folder / "history.csv", HISTORY)
    known = {"id": f"{number:032}", "name": "run", "overrides": typed, "seed": cfg.seed, "sweep": sweep}
    known |= {"dataset": "synthetic", "planted": True, "epochs": 3, "best_epoch": 2}
    record(**known | changed).write(folder)
    return folder


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one configuration, three trials of a search (finished, pruned and failed); two views in groups."""
    folder = tmp_path_factory.mktemp("pages") / "outputs"
    for seed, mae in SCORES.items():
        typed = ["feedback=mmlatch", "hidden_dim=4", "trainer.max_epochs=3", f"seed={seed}"]
        metrics = {"valid/mae": 0.7, "valid/corr": 0.25, "test/mae": mae, "test/corr": 1 - mae}
        add_run(folder, seed, typed, "grid", metrics=metrics)
    scored, none = {"valid/mae": 0.7, "valid/corr": 0.25}, dict[str, float]()
    ends = [("none", "finished", scored), ("mmlatch", "pruned", none), ("none", "failed", none)]
    for trial, (feedback, status, metrics) in enumerate(ends):
        end = {"status": status, "reason": f"{status} in epoch 2", "trial": trial, "metrics": metrics}
        add_run(folder, 10 + trial, [f"feedback={feedback}", "hidden_dim=4"], "search", **end)
    cli.command(["track", "--all", "--outputs", str(folder)])
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        (experiment,) = database.execute("SELECT experiment_id FROM experiments WHERE name = 'mmsa'").fetchone()
        for mode, name in (("param", "feedback"), ("tag", "sweep")):
            grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": mode, "groupByData": name}]}
            columns = ["metrics.`test/mae`", "metrics.`valid/mae`", "tags.`pruned`"]
            view = (f"mlflow.sharedViewState.{name}", json.dumps({"selectedColumns": columns, "groupBy": grouped}))
            database.execute(
                "INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)", (*view, experiment)
            )
        database.commit()
    return folder


@pytest.fixture(scope="module")
def addresses(outputs: Path) -> Iterator[dict[str, str]]:
    """What `mmsa ui RUN` names: the page of the second seed's run, and the list of runs; and its end in order."""
    with socket.create_server((ui.HOST, 0)) as holder:
        taken = holder.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "mmsa.cli",
            "ui",
            str(outputs / "runs" / "20260101-000002_run"),
            "--port",
            str(taken),
        ]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
            assert server.stdout is not None
            said = ""
            try:
                for line in server.stdout:
                    said += line
                    if "Ctrl-C" in line:
                        break
                found = re.findall(r"^The (runs?): +(http://127.0.0.1:(\d+)/\S+)$", said, flags=re.MULTILINE)
                (port,) = {port for _, _, port in found}
                assert f"Port {taken} is taken; using {port}." in said and f"ssh -N -L {port}:127.0.0.1:{port} " in said
                yield {"port": port} | {what: address for what, address, _ in found}
            finally:
                server.send_signal(signal.SIGINT)
                rest, _ = server.communicate(timeout=60)
    assert server.returncode == 0 and "Traceback" not in rest and not FOREIGN.search(said + rest), rest
    assert not listening("127.0.0.1", int(port))


def listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def rows(browser: Browser) -> list[dict[str, str]]:
    """The rows of the list of runs, from the top: the text of each cell by its column, the status as a drawing."""
    found: dict[str, dict[str, str]] = {}
    for row, column, text in browser.driver.execute_script(CELLS):
        found.setdefault(row, {})[column] = text
    return [found[row] for row in sorted(found, key=int)]


CELLS = """
return [...document.querySelectorAll('.ag-row .ag-cell')].map(cell => [
  cell.closest('.ag-row').getAttribute('row-index'),
  cell.getAttribute('col-id').replaceAll('`', ''),
  cell.getAttribute('col-id') === 'runDateAndNestInfo' ? cell.querySelector('svg')?.innerHTML ?? ''
    : cell.innerText.replace(/^\\s*#\\w{6}\\s/, '').replace(/\\s+/g, ' ').trim()])
"""
NAME, STATUS = "attributes.Run Name", "runDateAndNestInfo"
MAE, STD, VALID = "metrics.test/mae", "metrics.test std/mae", "metrics.valid/mae"


def test_the_server_answers_at_this_machines_own_address(addresses: dict[str, str]) -> None:
    port = int(addresses["port"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/", timeout=30) as page:
        assert b"MLflow" in page.read()
    # A server on all interfaces would answer at every loopback address.
    assert not listening("127.0.0.2", port)


def test_the_first_page_shows_names_scores_options_and_means(browser: Browser, addresses: dict[str, str]) -> None:
    browser.open(addresses["runs"])
    browser.wait(lambda: len(rows(browser)) == 7, "7 rows")
    summary, *runs = rows(browser)
    trials, seeds = ([row for row in runs if (row[MAE] == "-") is unscored] for unscored in (True, False))
    assert {int(row["params.seed"]): float(row[MAE]) for row in seeds} == SCORES
    for row in seeds:
        assert row[NAME] == f"feedback=mmlatch hidden_dim=4 trainer.max_epochs=3 seed={row['params.seed']}"
        assert [row[f"params.{group}"] for group in ("feedback", "regularizer")] == ["mmlatch", "none"]
        assert (row["tags.derived"], row[STD]) == ("-", "-")
    assert summary[NAME] == "feedback=mmlatch hidden_dim=4 trainer.max_epochs=3 (3 seeds)"
    assert summary["tags.derived"] == "mean of 3"
    assert float(summary[MAE]) == pytest.approx(fmean(SCORES.values()), rel=1e-12)
    assert float(summary[STD]) == pytest.approx(stdev(SCORES.values()), rel=1e-12)
    failed, pruned, finished = (row[STATUS] for row in trials)  # the newest first
    assert "path" in finished and {finished} == {row[STATUS] for row in seeds} == {pruned}, "pruned is no failure"
    assert failed != finished
    assert browser.hosts() == {"127.0.0.1"}


def test_grouped_by_an_option_or_the_study_a_group_has_its_mean(browser: Browser, addresses: dict[str, str]) -> None:
    def group(name: str, value: str) -> list[dict[str, str]]:
        """The row of a group and the rows below it."""
        browser.turn_to(addresses["runs"].replace(f"={KEY}", f"={name}"))
        browser.wait(lambda: any(f"Group: {value} " in row[NAME] for row in rows(browser)), f"the group {value}")
        found: dict[str, list[dict[str, str]]] = {}
        for row in rows(browser):
            start = re.match(r"Group: (\w+)|Additional runs", row[NAME])
            found.setdefault(start[0] if start else list(found)[-1], []).append(row)
        return found[f"Group: {value}"]

    seeds, *below = group("feedback", "mmlatch")
    assert float(seeds[MAE].removesuffix(" (average)")) == pytest.approx(fmean(SCORES.values()), rel=1e-12)
    assert len(below) == 4, "with the pruned trial, and without the summary"
    study, *trials = group("sweep", "search")
    assert study[VALID] == "0.7 (average)" and study[MAE] == "- (average)"
    assert [row["tags.pruned"] for row in trials] == ["-", "pruned in epoch 2", "-"], "side by side below their study"


def test_the_page_of_a_run_has_the_selected_epochs_values(browser: Browser, addresses: dict[str, str]) -> None:
    browser.turn_to(addresses["run"])
    browser.wait(lambda: "valid/mae" in browser.text, "the metrics")
    shown = dict(re.findall(r"^(\w[\w/]*)\n(-?\d\S*)$", browser.text, flags=re.MULTILINE))
    assert (float(shown["valid/mae"]), float(shown["epochs/valid/mae"])) == (0.7, 0.8)
    assert "feedback=mmlatch hidden_dim=4 trainer.max_epochs=3 seed=2" in browser.text
    assert "Model registry" in browser.text, "the side of the UI for trained models"


@pytest.mark.slow
def test_the_learning_curves_stand_before_the_scores(browser: Browser, addresses: dict[str, str]) -> None:
    browser.turn_to(f"{addresses['runs']}&compareRunsMode=CHART")
    browser.wait(lambda: "\ntest\n(" in browser.text, "a chart of the test fold")
    sections = re.findall(r"^([\w/ ]+)\n\(\d+\)$", browser.text, flags=re.MULTILINE)
    assert sections[:7] == ["epochs", "epochs/train", "epochs/valid", "test", "test std", "valid", "valid std"]
