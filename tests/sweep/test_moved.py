"""A sweep whose outputs folder was copied or moved reads, and goes on with, what lies in its own folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from mmsa.record import RunRecord
from mmsa.sweep import worker
from mmsa.sweep.options import SPEC_FILE, SweepSpec
from mmsa.sweep.report import report
from mmsa.sweep.storage import open_study
from mmsa.training.trainer import Trainer, TrainingState
from tests.sweep.sweeps import LR, make, work

NAMED = "sweep.study=s"


def as_before(folder: Path) -> None:
    """Write a sweep's file as it was written before, with absolute paths."""
    content = json.loads((folder / SPEC_FILE).read_text()) | {"folder": str(folder)}
    scheme, _, name = content["storage"].rpartition("/")
    content["storage"] = f"{scheme}/{folder / name}" if scheme else str(folder / name)
    (folder / SPEC_FILE).write_text(json.dumps(content))


@pytest.mark.parametrize("storage", ["null", "journal"])
@pytest.mark.parametrize("former", [False, True])
def test_a_copy_shows_its_own_trials(base: list[str], tmp_path: Path, storage: str, former: bool) -> None:
    made = make(*base, LR, NAMED, "sweep.trials=2", f"sweep.storage={storage}")
    folder = Path(made.spec.folder)
    assert str(tmp_path / "outputs") not in json.loads((folder / SPEC_FILE).read_text())["storage"]
    made.study.tell(made.study.ask(), 0.5)
    if former:
        as_before(folder)
    assert SweepSpec.load(folder).storage == made.spec.storage
    shutil.copytree(tmp_path / "outputs", tmp_path / "copy")
    made.study.tell(made.study.ask(), 0.4)
    assert "1 of 2 trials done" in report(tmp_path / "copy", "s") and "2 of 2" in report(tmp_path / "outputs", "s")
    assert f"paths.outputs={tmp_path / 'copy'}" not in report(tmp_path / "outputs", "s")


def test_a_storage_under_the_outputs_moves_with_them_and_one_elsewhere_stays(base: list[str], tmp_path: Path) -> None:
    inside, outside = (f"sqlite:///{tmp_path / place / 'all.db'}" for place in ("outputs", "elsewhere"))
    make(*base, LR, NAMED, f"sweep.storage={inside}")
    make(*base, LR, "sweep.study=t", f"sweep.storage={outside}")
    (tmp_path / "outputs").rename(tmp_path / "moved")
    specs = [SweepSpec.load(tmp_path / "moved" / "sweeps" / name) for name in "st"]
    assert [spec.storage for spec in specs] == [f"sqlite:///{tmp_path / 'moved' / 'all.db'}", outside]
    assert [spec.folder for spec in specs] == [str(tmp_path / "moved" / "sweeps" / name) for name in "st"]


def test_a_trial_left_in_a_copy_goes_on_there(base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(*base, LR, NAMED, "sweep.trials=2", "trainer.max_epochs=3")
    fit = Trainer.fit

    def dies(trainer: Any, *arguments: Any, progress: TrainingState) -> Any:
        def stop(state: TrainingState, metrics: Any) -> None:
            if state.epoch == 2:
                raise worker.Stopped

        return fit(trainer, *arguments[:-1], stop, progress)

    with monkeypatch.context() as dying:
        dying.setattr(Trainer, "fit", dies)
        with pytest.raises(worker.Stopped):
            worker.work(Path(made.spec.folder))
    copied = tmp_path / "my (copy), é"
    shutil.copytree(tmp_path / "outputs", copied)
    assert worker.work(copied / "sweeps" / "s") == worker.DONE
    assert [trial.state for trial in open_study(Path(made.spec.folder)).trials] == [TrialState.RUNNING]
    (original,) = (tmp_path / "outputs" / "runs").iterdir()
    ours = [RunRecord.read(folder).status for folder in (copied / "runs").iterdir()]
    assert (ours, RunRecord.read(original).status) == (["finished"] * 2, "failed"), "new runs lie in the copy too"
    first = open_study(copied / "sweeps" / "s").trials[0]
    assert first.user_attrs["seeds"]["1"]["folder"] == original.name and first.values == work(made).trials[0].values
