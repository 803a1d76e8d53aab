"""Where a study is kept, and what is said of a place that cannot hold it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf

from mmsa.errors import ConfigError, DataError
from mmsa.sweep import storage
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.storage import choose_storage, open_storage, open_study
from tests.conftest import ROOT


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmsa.tracking.database.file_system", lambda folder: "nfs4")
    monkeypatch.setattr(storage, "file_system", lambda folder: "nfs4")


def test_a_local_disk_gets_sqlite_that_writes_ahead(tmp_path: Path) -> None:
    place, note = choose_storage(None, tmp_path)
    assert place == f"sqlite:///{tmp_path / 'study.db'}" and note is None
    open_storage(place)
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.usefixtures("network")
def test_a_network_disk_gets_a_journal_and_is_told(tmp_path: Path) -> None:
    place, note = choose_storage(None, tmp_path)
    assert place == str(tmp_path / "journal.log") and note is not None and "nfs4" in note
    with pytest.raises(ConfigError, match=r"nfs4.*\n  type sweep.storage=journal"):
        choose_storage(f"sqlite:///{tmp_path / 'study.db'}", tmp_path)


@pytest.mark.parametrize("option", [None, "journal"])
def test_a_study_is_found_again(tmp_path: Path, option: str | None) -> None:
    folder = tmp_path / "é {x} 50%20 #1? (a, b)"
    folder.mkdir()
    place, _ = choose_storage(option, folder)
    study = optuna.create_study(study_name="a", storage=open_storage(place))
    study.tell(study.ask(), 1.0)
    again = optuna.load_study(study_name="a", storage=open_storage(place))
    assert [trial.value for trial in again.trials] == [1.0]
    assert [*tmp_path.iterdir()] == [folder], "signs of a URL in the path are only signs"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("somewhere", "needs journal, or the URL"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/none", "cannot be opened"),
        ("nosuch://host/name", "cannot be opened"),
    ],
)
def test_a_place_that_holds_no_study_is_told_without_its_password(tmp_path: Path, option: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        open_storage(choose_storage(option, tmp_path)[0])
    assert "secret" not in str(refusal.value) and len(str(refusal.value).splitlines()) <= 3


def test_a_folder_that_is_no_sweeps(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the folder of a sweep"):
        open_study(tmp_path)
    place, _ = choose_storage(None, tmp_path)
    SweepSpec(
        study="a", folder=str(tmp_path), working_folder="", storage=place, space={}, arguments=[], sampler={},
        seed=1, objectives=[], modes=[], num_points=None, config_folders=[], packages="", options={},
    ).save()  # fmt: skip
    assert (tmp_path / "sweep.json").stat().st_mode & 0o077 == 0, "a database's URL may hold a password"
    options = OmegaConf.load(ROOT / "conf" / "sweep" / "search.yaml").sweep
    later = SweepSpec.load(tmp_path).options  # of a sweep that was made before these options
    assert later == {name: options[name] for name in later} and "grace" in later
    with pytest.raises(ConfigError, match="holds no study a"):
        open_study(tmp_path)
