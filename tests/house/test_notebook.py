"""The notebook runs from top to bottom, and shows what it says it shows."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from mmsa import build
from mmsa.compose import compose

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "tour.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))  # of the kernel: this checkout
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    wanted = ("250 utterances", "feedback=mmlatch", "(3 seeds)", "ridge joint", "the best trial over five new seeds")
    wanted += ("packed: packed (", "label -1.58")
    assert [text for text in wanted if text not in printed] == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert (tmp_path / "outputs" / "mlflow.db").exists()


def test_its_cells_are_python_and_their_names_and_options_are_known() -> None:
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for cell in cells for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell)))]
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mmsa")]
    named = [(str(node.module), alias.name) for node in imported for alias in node.names]
    assert named and all(hasattr(import_module(module), name) for module, name in named)
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    typed = [text for text in texts if re.fullmatch(r"(?!dataset\.source=)[a-z_]+(\.[a-z_]+)*=[\w.]+", text)]
    assert len(typed) > 2
    build.check(compose(typed))


def test_it_is_kept_with_its_outputs_and_without_paths_of_a_machine() -> None:
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert len(outputs) >= 5
    shown = [cell["source"] for cell in cells]
    shown += [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    for text in shown:
        assert not re.search(r"(?<![\w.])/\w+/", text), text
