"""No golden file goes untested unseen, in whatever folder `--golden` names and whatever the file is called."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity.golden_files import KINDS, golden_files, kind_of, unknown_files


def test_every_golden_file_is_known_or_of_a_method_to_come(pytestconfig: pytest.Config) -> None:
    unknown = unknown_files(pytestconfig.getoption("--golden"))
    assert not unknown, f"no test knows {', '.join(unknown)}"


def test_every_kind_has_a_test() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    marked = {kind for source in sources for kind in re.findall(r'pytest\.mark\.golden\("([^"]+)"\)', source)}
    assert marked == set(KINDS)


def test_a_file_is_what_its_config_says_whatever_its_name(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    known = golden_files(pytestconfig.getoption("--golden"), KINDS)
    for number, path in enumerate(known):
        (tmp_path / f"zoo_{number}.npz").symlink_to(path)
    copies = {path: tmp_path / f"zoo_{number}.npz" for number, path in enumerate(known)}
    assert [kind_of(copy) for copy in copies.values()] == [kind_of(path) for path in copies]
    for kind in KINDS:
        assert {copies[path] for path in known if kind_of(path) == kind} == set(golden_files(tmp_path, [kind]))


@pytest.mark.parametrize("config", [{}, {"lengths": [9], "seed": 1}])
def test_a_file_of_no_kind_is_named(config: dict[str, object], tmp_path: Path) -> None:
    np.savez(tmp_path / "misa_strange.npz", config=json.dumps(config))
    np.savez(tmp_path / "without_config.npz", pred=np.zeros(3))
    shutil.copy(tmp_path / "misa_strange.npz", tmp_path / "zoo_strange.npz")
    assert unknown_files(tmp_path) == ["misa_strange.npz", "without_config.npz"]
