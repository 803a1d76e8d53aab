"""docs/importing.md: its lines run, on files as it describes them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmsa import cli
from mmsa.analysis.runs import by_configuration
from mmsa.analysis.selection import read_runs
from mmsa.data.store import Prepared, Store, store_fingerprint, write_store
from tests.conftest import ROOT
from tests.house.test_docs import commands, fenced
from tests.importing.conftest import imports

PAGE = (ROOT / "docs" / "importing.md").read_text(encoding="utf-8")


def test_the_lines_of_the_page_import_three_systems(
    store: Store,
    test_ids: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a store of CMU-MOSI's name with utterances of the built-in corpus."""
    monkeypatch.setattr("mmsa.importing.run.settle", lambda cfg, say: None)  # figures, and the tracker
    monkeypatch.setattr("mmsa.importing.run.fit_beside", lambda *given: {})
    folds = store.folds.tolist()
    content = Prepared(store.ids, store.videos, folds, store.targets, dict(store.features), store.words, store.report)
    about = {"dataset": "cmu_mosi", "sources": {}, "options": {"keep_pauses": False}}
    folder = tmp_path / "outputs" / "data"
    folder.mkdir(parents=True)
    write_store(folder / f"cmu_mosi-{store_fingerprint(**about)}.h5", content, **about)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)

    theirs, numbers, classes = fenced(PAGE, "python")
    pieces = [name.replace("[", "$_$").rstrip("]") for name in test_ids]
    for seed in (1, 2):
        given = {"mode": "TEST", "pred": torch.randn(len(pieces), 1), "batch_data": {"id": pieces}}
        exec(theirs, given | {"self": SimpleNamespace(args={"cur_seed": seed})})
    texts = ["I would say -1.5.", "Sorry, I cannot judge that.", "2"]
    answers = [{"id": name, "text": texts[i % 3]} for i, name in enumerate(test_ids)]
    Path("answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    exec(numbers)
    words = [{"id": name, "text": ("Negative.", " positive")[i % 2]} for i, name in enumerate(test_ids)]
    Path("words.jsonl").write_text("\n".join(map(json.dumps, words)))
    exec(classes)
    (sheet,) = (block for block in fenced(PAGE, "text") if block.startswith("ID;"))
    Path("sheet.csv").write_text(sheet, encoding="utf-8-sig")

    lines = commands("mmsa", PAGE)
    assert sum(line.startswith("mmsa import ") for line in lines) == 4
    for line in lines:
        if line.startswith("mmsa import "):
            cli.command(shlex.split(line)[1:])
    found = by_configuration(read_runs(tmp_path / "outputs").runs)
    names = ["LMF", "LLM, zero-shot", "LLM, classes", "human raters"]
    assert {(group.label, len(group.runs)) for group in found} == {
        (f"{name} (imported)", 1 + (name == "LMF")) for name in names
    }
    capsys.readouterr()
    (shown,) = (line for line in lines if line.startswith("mmsa report cmu_mosi --reference "))
    cli.command(shlex.split(shown)[1:])
    assert "human raters (imported)" in capsys.readouterr().out
    (found_by_name,) = re.findall(r"`mmsa (report name=\w+)`", PAGE)
    cli.command(found_by_name.split())
    assert "LMF (imported) (2 seeds)" in capsys.readouterr().out
    assert len(imports(tmp_path / "outputs")) == 5
