"""docs/packing.md: its lines run."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from mmsa import cli
from mmsa.serving.card import Card
from tests.conftest import ROOT
from tests.house.test_docs import commands, fenced, table
from tests.serving.conftest import Fabricate
from tests.test_former import former, second_seed

__all__ = ["former"]

PAGE = (ROOT / "docs" / "packing.md").read_text(encoding="utf-8")


def test_the_lines_of_the_page_pack_and_predict(
    former: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(former)
    runs = former / "outputs" / "runs"
    (runs / "whole").rename(runs / "RUN")
    second_seed(runs / "RUN", runs / "RUN2")
    arrays = {name: values for name, values in np.load("former.npz").items() if not name.startswith("target")}
    np.savez("new.npz", **arrays)
    for line in (line for line in commands("mmsa", PAGE) if "--push" not in line):  # test_hub.py has the others
        cli.command(shlex.split(line)[1:])
    assert Path("new.csv").read_text() in capsys.readouterr().out
    (python,) = fenced(PAGE, "python")
    known: dict[str, object] = {}
    exec(python, known)
    assert [len(known["several"].values), known["several"].ids] == [2, ("0", "v[1]")]  # type: ignore[attr-defined]


def test_the_page_names_every_file(fabricate: Fabricate, former: Path) -> None:
    from mmsa.serving.pack import pack
    from tests.contracts.conftest import encoder_overrides

    made = pack([fabricate(["fusion=concat", *encoder_overrides("bert")])])
    named = " ".join(row[0] for row in table(PAGE, "file"))
    assert all(f"`{path.name}{'/' if path.is_dir() else ''}`" in named for path in made.folder.iterdir())
    assert Card.read(made.folder).hash
