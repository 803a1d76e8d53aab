"""What MLflow's UI shows without a click, read from its pages in a real browser: numbers are those of result.json."""

from __future__ import annotations

import json
import re
import shutil
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

import mmsa
from mmsa import cli
from mmsa.tracking import ui
from mmsa.tracking.view import KEY
from tests.conftest import ROOT
from tests.warm import FOREIGN

if TYPE_CHECKING:
    from tests.browser import Browser

pytest_plugins = ["tests.browser"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


def clone(run: Path, name: str, changed: dict[str, Any], **options: Any) -> Path:
    """A run's folder once more, as another run would have left it."""
    other = shutil.copytree(run, run.with_name(name), ignore=shutil.ignore_patterns("predictions.csv", "checkpoints"))
    record = json.loads((run / "result.json").read_text())
    record |= {"id": name.replace(".", ""), "mlflow_run_id": None} | changed
    (other / "result.json").write_text(json.dumps(record))
    config = (run / "config.yaml").read_text()
    for option, value in options.items():
        config = re.sub(rf"^{option}: .*$", f"{option}: {value}", config, flags=re.MULTILINE)
    (other / "config.yaml").write_text(config)
    return other


@pytest.fixture(scope="module")
def outputs(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one configuration, one of which was trained, and a pruned trial."""
    folder = tmp_path_factory.mktemp("pages") / "outputs"
    typed = ["feedback=mmlatch", "hidden_dim=4", "trainer.max_epochs=3", "seed=1"]
    places = [f"paths.data={stores}", f"paths.outputs={folder}", "tracking=none"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
        first = mmsa.run([*typed, *places]).folder
    record = json.loads((first / "result.json").read_text())
    for seed in (2, 3):
        scores = {name: value and value + 0.01 * seed for name, value in record["metrics"].items()}
        overrides = [word.replace("seed=1", f"seed={seed}") for word in record["overrides"]]
        clone(first, f"{first.name}-{seed}", {"seed": seed, "metrics": scores, "overrides": overrides}, seed=seed)
    end = {"status": "pruned", "reason": "epoch 2, behind", "sweep": "search", "trial": 4, "metrics": {}}
    clone(first, f"{first.name}-pruned", end)
    cli.command(["track", "--all", "--outputs", str(folder)])
    return folder


@pytest.fixture(scope="module")
def addresses(outputs: Path) -> Iterator[dict[str, str]]:
    """What `mmsa ui RUN` names: the page of the second seed's run, and the list of runs; and its end in order."""
    with socket.create_server((ui.HOST, 0)) as holder:
        taken = holder.getsockname()[1]
        command = [sys.executable, "-m", "mmsa.cli", "ui", str(folder_of(outputs, 2)), "--port", str(taken)]
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


def folder_of(outputs: Path, seed: int) -> Path:
    records = {run: record_of(run) for run in (outputs / "runs").glob("*")}
    (found,) = (run for run, record in records.items() if record["seed"] == seed and record["metrics"])
    return found


def record_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "result.json").read_text())
    return content


def rows_of(browser: Browser, address: str, num_rows: int) -> list[dict[str, str]]:
    """The rows of a list of runs, from the top: the text of each cell by its column."""
    browser.open(address)
    browser.wait(lambda: len(browser.find(".ag-center-cols-container .ag-row")) >= num_rows, f"{num_rows} rows")
    rows: dict[str, dict[str, str]] = {}
    for row, column, text in browser.driver.execute_script(CELLS):
        rows.setdefault(row, {})[column] = text
    return [rows[row] for row in sorted(rows, key=int)]


CELLS = """
return [...document.querySelectorAll('.ag-row .ag-cell')].map(cell => [
  cell.closest('.ag-row').getAttribute('row-index'),
  cell.getAttribute('col-id').replaceAll('`', ''),
  cell.innerText.replace(/^\\s*#\\w{6}\\s/, '').replace(/\\s+/g, ' ').trim()])
"""
NAME, MAE, STD = "attributes.Run Name", "metrics.test/mae", "metrics.test std/mae"


def test_the_server_answers_at_this_machines_own_address(addresses: dict[str, str]) -> None:
    port = int(addresses["port"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/", timeout=30) as page:
        assert b"MLflow" in page.read()
    # A server on all interfaces would answer at every loopback address.
    assert not listening("127.0.0.2", port)


def test_the_first_page_shows_names_scores_options_and_means(
    browser: Browser, addresses: dict[str, str], outputs: Path
) -> None:
    summary, *runs = rows_of(browser, addresses["runs"], 5)
    scores = {str(seed): record_of(folder_of(outputs, seed))["metrics"]["test/mae"] for seed in (1, 2, 3)}
    finished = {row["params.seed"]: row for row in runs if row[MAE] != "-"}
    assert {seed: float(row[MAE]) for seed, row in finished.items()} == scores
    for seed, row in finished.items():
        assert row[NAME] == f"feedback=mmlatch hidden_dim=4 trainer.max_epochs=3 seed={seed}"
        assert [row[f"params.{group}"] for group in ("feedback", "regularizer")] == ["mmlatch", "none"]
        assert (row["tags.derived"], row[STD]) == ("-", "-")
    assert summary[NAME] == "feedback=mmlatch hidden_dim=4 trainer.max_epochs=3 (3 seeds)"
    assert summary["tags.derived"] == "mean of 3"
    assert float(summary[MAE]) == pytest.approx(fmean(scores.values()), rel=1e-12)
    assert float(summary[STD]) == pytest.approx(stdev(scores.values()), rel=1e-12)
    assert len(runs) == 4, "with the pruned trial"
    assert browser.hosts() == {"127.0.0.1"}


def test_grouped_by_an_option_the_seeds_have_their_mean(
    browser: Browser, addresses: dict[str, str], outputs: Path
) -> None:
    grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "feedback"}]}
    state = {"selectedColumns": ["metrics.`test/mae`"], "groupBy": grouped}
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        (experiment,) = database.execute("SELECT experiment_id FROM experiments WHERE name = 'mmsa'").fetchone()
        view = ("mlflow.sharedViewState.grouped", json.dumps(state), experiment)
        database.execute("INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)", view)
        database.commit()
    rows = rows_of(browser, addresses["runs"].replace(f"={KEY}", "=grouped"), 2)
    (group,) = (row for row in rows if "mmlatch" in row[NAME] and "average" in row[MAE])
    scores = [record_of(folder_of(outputs, seed))["metrics"]["test/mae"] for seed in (1, 2, 3)]
    assert float(group[MAE].split()[0]) == pytest.approx(fmean(scores), rel=1e-12)


def test_the_page_of_a_run_has_the_selected_epochs_values(
    browser: Browser, addresses: dict[str, str], outputs: Path
) -> None:
    record = record_of(folder_of(outputs, 2))
    browser.open(addresses["run"])
    browser.wait(lambda: "valid/mae" in browser.text, "the metrics")
    shown = dict(re.findall(r"^(\w[\w/]*)\n(-?\d\S*)$", browser.text, flags=re.MULTILINE))
    assert float(shown["valid/mae"]) == record["metrics"]["valid/mae"] != float(shown["epochs/valid/mae"])
    assert "feedback=mmlatch hidden_dim=4 trainer.max_epochs=3 seed=2" in browser.text
    assert "Model registry" in browser.text, "the side of the UI for trained models"


@pytest.mark.slow
def test_the_learning_curves_stand_before_the_scores(browser: Browser, addresses: dict[str, str]) -> None:
    browser.open(f"{addresses['runs']}&compareRunsMode=CHART")
    browser.wait(lambda: "\ntest\n(" in browser.text, "a chart of the test fold")
    sections = re.findall(r"^([\w/ ]+)\n\(\d+\)$", browser.text, flags=re.MULTILINE)
    assert sections[:7] == ["epochs", "epochs/train", "epochs/valid", "test", "test std", "valid", "valid std"]
