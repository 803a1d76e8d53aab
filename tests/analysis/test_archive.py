from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from mmsa import cli
from mmsa.errors import ConfigError, DataError
from mmsa.run_folder import write_predictions
from mmsa.training.metrics import regression_metrics
from tests.analysis.test_differences import IDS, Ids

AddRun = Callable[..., Path]


@pytest.fixture
def folders(add_run: AddRun) -> list[Path]:
    """Runs of three configurations of two seeds."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=len(IDS))
    found = []
    for label in "abc":
        for seed in (1, 2):
            predicted = truth + rng.normal(size=len(IDS)) * (1 + ord(label) - ord("a"))
            metrics = {f"test/{name}": value for name, value in regression_metrics(predicted, truth).items()}
            folder = add_run(1.0, seed, (f"fusion={label}", f"seed={seed}"), metrics=metrics)
            write_predictions(folder / "predictions.csv", [(Ids(IDS), truth, predicted)])
            found.append(folder)
    return found


def test_the_table_comes_out_of_the_unpacked_archive(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = folders[0].parents[1]
    chosen = ["--rows", "First one=fusion=a", "--rows", "=fusion=b", "--reference", "First one", "--no-baselines"]
    for name in ("first.zip", "second.zip"):
        cli.command(["report", "--outputs", str(outputs), *chosen, "--archive", str(tmp_path / name)])
    assert capsys.readouterr().err.endswith("second.zip: the table and 4 runs\n")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    with ZipFile(tmp_path / "first.zip") as archive:
        archive.extractall(tmp_path / "else where")
    kept = {path.name for path in (tmp_path / "else where" / "runs").iterdir()}
    assert kept == {folder.name for folder in folders[:4]}, "a run of no row stays at home"
    monkeypatch.chdir(tmp_path / "else where")
    about = Path("README.md").read_text()
    (line,) = (line.strip() for line in about.splitlines() if line.startswith("    mmsa report"))
    program, *words = shlex.split(line)
    for style, file in {"table": "txt", "markdown": "md", "latex": "tex"}.items():
        cli.command([*words, "--format", style])
        printed = capsys.readouterr().out.replace(tmp_path.joinpath("else where").as_uri(), outputs.absolute().as_uri())
        assert printed == Path(f"table.{file}").read_text()
    assert program == "mmsa" and about.count("    mmsa train fusion=") == 4


def test_an_archive_names_the_file_of_an_import_and_no_command_that_trains_it(
    add_run: AddRun, tmp_path: Path, outputs: Path
) -> None:
    imported = {"file": "lmf.csv", "sha256": "aa", "utterances": {}}
    add_run(0.7, overrides=("name=LMF",), imported=imported)
    cli.command(["report", "--outputs", str(outputs), "--archive", str(tmp_path / "a.zip")])
    with ZipFile(tmp_path / "a.zip") as archive:
        about = archive.read("README.md").decode()
    assert about.endswith("\n\nNot trained here:\n\n    LMF (imported), from lmf.csv\n") and "mmsa train" not in about


def test_an_archive_takes_no_other_file_along(folders: list[Path], tmp_path: Path) -> None:
    outputs, archive = str(folders[0].parents[1]), tmp_path / "a.zip"
    (folders[0] / "history.csv").unlink(missing_ok=True)
    (folders[0] / "history.csv").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"history.csv is a link"):
        cli.command(["report", "--outputs", outputs, "--archive", str(archive)])
    assert not list(tmp_path.glob("*a.zip*"))
    (folders[0] / "history.csv").unlink()
    archive.write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already\.\n  type --archive NEW\.zip"):
        cli.command(["report", "--outputs", outputs, "--archive", str(archive)])
    assert archive.read_text() == "mine"
    with pytest.raises(ConfigError, match="there is no folder"):
        cli.command(["report", "--outputs", outputs, "--archive", str(tmp_path / "no" / "NEW.zip")])
