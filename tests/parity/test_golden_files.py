"""No golden file goes untested unseen, in whatever folder `--golden` names and whatever the file is called."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity import golden_files
from tests.parity.golden_files import METHODS_TO_COME, keys_of, kind_of, kinds, unknown_files


def test_every_golden_file_is_known_or_of_a_method_to_come(pytestconfig: pytest.Config) -> None:
    unknown = unknown_files(pytestconfig.getoption("--golden"))
    assert not unknown, f"no test knows {', '.join(unknown)}"


def test_every_kind_has_a_test() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    marked = {kind for source in sources for kind in re.findall(r'pytest\.mark\.golden\("([^"]+)"\)', source)}
    assert marked == kinds().keys()


def test_a_file_is_what_its_config_says_whatever_its_name(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    files = sorted(pytestconfig.getoption("--golden").glob("*.npz"))
    for number, path in enumerate(files):
        (tmp_path / f"zoo_{number}.npz").symlink_to(path)
    assert [kind_of(tmp_path / f"zoo_{number}.npz") for number in range(len(files))] == [*map(kind_of, files)]


def test_a_file_is_of_the_kind_that_states_most_of_its_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, config=json.dumps({"rank": 3, "args": {"lr": 1, "rank": 2}}))
    assert keys_of({"rank": 3, "args": {"lr": 1}}) == {"rank", "args", "args.lr"}

    def kind(**stated: set[str]) -> str | None:
        kind_of.cache_clear()
        monkeypatch.setattr(golden_files, "kinds", lambda: stated)
        return kind_of(path)

    assert kind(less={"rank"}, more={"rank", "args.lr"}, other={"rank", "args.lr", "args.epochs"}) == "more"
    assert kind(other={"epochs"}) is None
    with pytest.raises(ValueError, match="may be one or two"):
        kind(less={"rank"}, one={"rank", "args"}, two={"args.rank", "args.lr"})
    kind_of.cache_clear()


@pytest.mark.parametrize("config", [{}, {"lengths": [9], "seed": 1}])
def test_a_file_of_no_kind_is_named(config: dict[str, object], tmp_path: Path) -> None:
    np.savez(tmp_path / "misa_strange.npz", config=json.dumps(config))
    np.savez(tmp_path / "without_config.npz", pred=np.zeros(3))
    shutil.copy(tmp_path / "misa_strange.npz", tmp_path / "zoo_strange.npz")  # of no method that is to come
    shutil.copy(tmp_path / "misa_strange.npz", tmp_path / METHODS_TO_COME[0].replace("*", "strange"))
    assert unknown_files(tmp_path) == ["misa_strange.npz", "without_config.npz", "zoo_strange.npz"]
