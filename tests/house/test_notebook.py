"""The notebook runs from top to bottom, and shows what it says it shows."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "tour.ipynb"


SIZES = '"hidden_dim=16", "trainer.max_epochs=15"'
SMALL = '"hidden_dim=4", "trainer.max_epochs=1"'
DEAR = ("!mmsa train sweep=search", "--missing")
"""Lines that have tests of their own: cells with one run in the slow version only."""


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("sizes", [SMALL, pytest.param(SIZES, marks=pytest.mark.slow)], ids=["small", "as it is"])
def test_the_tour_runs(sizes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))  # of the kernel: this checkout
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (places,) = [cell for cell in notebook.cells if SIZES in cell.source]
    places.source = places.source.replace(SIZES, sizes)
    wanted = ["250 utterances", "feedback=mmlatch", "(3 seeds)", "ridge joint"]
    if sizes == SMALL:
        dear = [cell for cell in notebook.cells if any(line in cell.source for line in DEAR)]
        notebook.cells = [cell for cell in notebook.cells if cell not in dear]
        assert len(dear) == len(DEAR)
    else:
        wanted.append("the best trial over five new seeds")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert [text for text in wanted if text not in printed] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "outputs" / "mlflow.db").exists()


def test_it_is_kept_with_its_outputs_and_without_paths_of_a_machine() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 5
    shown = [cell["source"] for cell in cells]
    shown += [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    for text in shown:
        assert not re.search(r"(?<![\w.])/\w+/", text), text
