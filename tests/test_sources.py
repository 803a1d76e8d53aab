"""Which file a run read is said wherever it is spoken of, and what belongs together reads one file."""

from __future__ import annotations

import csv
import io
import shlex
import shutil
from pathlib import Path

import pytest

import mmsa
from mmsa import build, cli
from mmsa.compose import compose
from mmsa.errors import ConfigError, DataError
from mmsa.provenance import source_of_multirun
from mmsa.record import DataRecord, RunRecord
from mmsa.run_folder import SWEEP_VARIABLE, run_name
from mmsa.sweep import setup, worker
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.storage import open_study
from mmsa.sweep.summary import rerun_command, summarise
from tests.dataset.test_choice import pickled
from tests.records import record
from tests.sweep.sweeps import LR, make

NAME = "mosi (1).pkl"


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a quick run on CMU-MOSI, whose source they do not name."""
    monkeypatch.setattr("mmsa.journal.write_figures", lambda folder, record: [])
    places = [f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}", "tracking=none"]
    quick = ["device=cpu", "hidden_dim=4", "trainer.max_epochs=1", "fusion=concat", "dataset.modalities=[text]"]
    return ["dataset=cmu_mosi", "dataset.doctor=warn", *places, *quick]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "held").mkdir()
    return pickled(tmp_path / "held", NAME, 1.0)


def test_the_file_is_named_wherever_a_run_or_its_data_are(
    typed: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data")]
    cli.command(["prepare", "cmu_mosi", "--source", str(source), *data])
    assert capsys.readouterr().out.startswith(f"cmu_mosi ({NAME}), data ")
    folder = mmsa.run([*typed, f"dataset.source={source}"]).folder
    log = (folder / "run.log").read_text()
    kept = RunRecord.read(folder)
    title = f"cmu_mosi ({NAME}), test fold, data {kept.data.fingerprint}"
    assert f": cmu_mosi ({NAME}), 2 train and 2 valid utterances" in log.splitlines()[0]
    assert title in log and kept.data.source == NAME and len(kept.data.hashes["pickle"]) == 64
    assert f"dataset.source={NAME}" in kept.name and "dataset.source-mosi-1-.pkl" in folder.name
    silent = mmsa.run(typed, quiet=True).folder
    assert RunRecord.read(silent).data == kept.data and "source" not in silent.name
    for arguments in (["report", "--outputs", str(tmp_path / "outputs")], ["evaluate", str(folder)]):
        capsys.readouterr()
        cli.command(arguments)
        assert capsys.readouterr().out.count(title) == 1, arguments
    cli.command(["report", "--outputs", str(tmp_path / "outputs"), "--format", "csv"])
    assert {row["source"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == {NAME}
    with pytest.raises(DataError, match=r"cmu_mosi \(mosi \(1\).pkl\): 2 errors"):
        cli.command(["doctor", "cmu_mosi", *data, "--output", str(tmp_path / "report")])
    assert f"CMU-MOSI ({NAME}), store" in capsys.readouterr().out
    assert f"<h1>CMU-MOSI ({NAME})</h1>" in (tmp_path / "report" / "report.html").read_text()


def test_a_run_is_named_by_the_files_names_not_by_their_places() -> None:
    held = ["dataset.source=/data/a b/x.pkl", 'dataset.glove="/data/g,1.txt"', "seed=2"]
    assert run_name(held) == "dataset.source=x.pkl dataset.glove=g,1.txt seed=2"
    assert run_name(["dataset.source=csd/"]) == "dataset.source=csd"
    assert run_name(["dataset.source=a\x1b.pkl"]) == r"dataset.source=a\x1b.pkl"


def test_a_run_that_goes_on_keeps_to_its_own_store(typed: list[str], source: Path, tmp_path: Path) -> None:
    folder = mmsa.run([*typed, f"dataset.source={source}", "trainer.keep_last=true"], quiet=True).folder
    unfinished = (folder / "result.json").read_text().replace('"finished"', '"failed"')
    (folder / "result.json").write_text(unfinished)
    go_on = [f"trainer.resume={folder}", "trainer.max_epochs=2"]
    other = pickled(tmp_path, "other.pkl", 2.0)
    with pytest.raises(ConfigError, match=r"on cmu_mosi \(mosi \(1\).pkl\), data .* are cmu_mosi \(other.pkl\), data "):
        mmsa.run([*go_on, "dataset=cmu_mosi", f"dataset.source={other}"], quiet=True)
    pickled(source.parent, NAME, 3.0)  # the file has changed since
    kept = RunRecord.read(mmsa.run(go_on, quiet=True).folder)
    assert kept.data == RunRecord.model_validate_json(unfinished).data and kept.epochs == 2
    (folder / "result.json").write_text(unfinished)
    Path(kept.data.store).unlink()
    with pytest.raises(ConfigError, match=r"type dataset=cmu_mosi dataset.source=PATH of mosi \(1\).pkl as it was"):
        mmsa.run([*go_on, "trainer.max_epochs=3"], quiet=True)


def test_the_trials_of_a_sweep_read_what_it_was_made_for(typed: list[str], source: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first, _ = build.open_data(compose([*typed, f"dataset.source={source}"]))
    made = make(*typed, LR, "sweep.trials=1")
    build.open_data(compose([*typed, f"dataset.source={pickled(tmp_path, 'other.pkl', 2.0)}"]))
    assert SweepSpec.load(Path(made.spec.folder)).sources == {"cmu_mosi": first.sources}
    assert worker.work(Path(made.spec.folder)) == worker.DONE
    study = open_study(Path(made.spec.folder))
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert RunRecord.read(folder).data.fingerprint == first.fingerprint and len(list(data.glob("*.h5"))) == 2
    with pytest.raises(DataError, match="2 prepared stores"):
        make(*typed, LR, "sweep.trials=2")
    summary = summarise(study)
    named = shlex.split(summary.command)[-1]
    assert summary.source == NAME and named == f"dataset.source={source}"
    assert named in shlex.split(str(rerun_command(summary)))
    assert make(*typed, LR, "sweep.trials=2", named).spec.study == made.spec.study, "the line goes on with it"
    both = f'dataset.source="{source}","{tmp_path}/other.pkl"'
    assert summarise(make(*typed, both, option="grid").study).data == "the data of each trial"


def test_a_search_is_the_same_wherever_its_source_lies(
    typed: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, copied = f"dataset.source={source}", shutil.copy(source, tmp_path / "copy.pkl")
    with monkeypatch.context() as before:
        before.setattr(setup, "_that_search", lambda arguments: [a for a in arguments if not setup.ELSEWHERE.match(a)])
        former = make(*typed, LR, named).spec.study
    assert make(*typed, LR, named).spec.study == former, "an older version counted the path"
    (tmp_path / "outputs" / "sweeps" / former).rename(tmp_path / "away")
    names = [make(*typed, LR, *more).spec.study for more in ([], [named], [f"dataset.source={copied}"])]
    assert len(set(names)) == 1 and names[0] != former
    other = f"dataset.source={pickled(tmp_path, 'other.pkl', 2.0)}"
    assert make(*typed, LR, other).spec.study != names[0]


def test_the_runs_of_a_multirun_keep_to_the_source_of_its_first(
    typed: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWEEP_VARIABLE, "20260101-000000-abc")
    first, _ = build.open_data(compose([*typed, f"dataset.source={source}"]))
    assert source_of_multirun(tmp_path / "outputs", "cmu_mosi") == {}
    former = DataRecord(fingerprint="f", store="s", hashes={"pickle": "another"})
    for name, sweep, held in (("20251231-1", "20260101-000000-abc", former), ("20260102-1", "another", former)):
        (tmp_path / "outputs" / "runs" / name).mkdir(parents=True)
        record(sweep=sweep, data=held.model_dump()).write(tmp_path / "outputs" / "runs" / name)
    begun = mmsa.run(typed, quiet=True).folder
    build.open_data(compose([*typed, f"dataset.source={pickled(tmp_path, 'other.pkl', 2.0)}"]))
    again = mmsa.run(typed, quiet=True).folder
    assert RunRecord.read(again).data == RunRecord.read(begun).data
    assert RunRecord.read(again).data.fingerprint == first.fingerprint
    monkeypatch.delenv(SWEEP_VARIABLE)
    with pytest.raises(DataError, match="2 prepared stores"):
        mmsa.run(typed, quiet=True)
