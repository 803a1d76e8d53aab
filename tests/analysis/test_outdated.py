from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmsa import cli, repairs

AddRun = Callable[..., Path]
CHANGELOG = """# Changelog

### Repairs

A line in it.
- 1. `mmsa.fusion.lmf`: the rank
  is right
- 2. `mmsa.fusion.misa`: the codes
### Added
- 3. `mmsa`: no repair
"""


@pytest.fixture
def changelog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    monkeypatch.setattr(repairs, "installed", lambda name: tmp_path / name)
    repairs.repairs.cache_clear()
    yield
    repairs.repairs.cache_clear()


def test_the_changelog_numbers_its_repairs_and_names_parts_that_there_are() -> None:
    found = repairs.repairs()
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert all(find_spec(one.part) for one in found)


def test_rows_from_before_a_repair_are_marked_where_others_have_it(
    changelog: None, add_run: AddRun, capsys: pytest.CaptureFixture[str]
) -> None:
    def reported() -> dict[str, str]:
        cli.command(["report", "--outputs", str(folder.parents[1]), "--format", "markdown", "--no-baselines"])
        printed = capsys.readouterr().out.splitlines()
        rows = [line.split("|") for line in printed if line.startswith("| fusion")]
        return {row[1].strip(): row[0] for row in rows} | {"notes": "\n".join(x for x in printed if x[0:2] == "*‡")}

    lmf, misa = "fusion._target_=mmsa.fusion.lmf.LmfFusion", "fusion._target_=mmsa.fusion.misa.MisaFusion"
    assert repairs.latest() == 2
    for seed, known in enumerate([0, 1]):
        folder = add_run(0.5, seed, ("fusion=own", "hidden_dim=1"), (misa,), repairs=known)
    add_run(0.5, 1, ("fusion=low", "hidden_dim=1"), (lmf,), repairs=0)
    shown = reported()
    assert not shown["notes"] and not [row for row in shown if "‡" in row], "none of these has a repair of its part"
    add_run(0.5, 1, ("fusion=low", "hidden_dim=2"), (lmf,), repairs=1)
    shown = reported()
    assert "‡ trained before the repair of mmsa.fusion.lmf, train it again: the rank is right*" in shown["notes"]
    assert [row for row in shown if "‡" in row] == ["fusion=low hidden_dim=1 (1 seed)‡"]
    add_run(0.5, 2, ("fusion=own", "hidden_dim=1"), (misa,), repairs=2)
    assert "fusion=own hidden_dim=1 (3 seeds)‡" in reported(), "seeds from both sides"
