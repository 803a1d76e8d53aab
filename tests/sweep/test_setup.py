"""What a sweep's command line is: a study of its own, or a refusal."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from mmsa import cli
from mmsa.compose import compose
from mmsa.errors import ConfigError
from mmsa.sweep import worker
from mmsa.sweep.hydra_sweep import plan_slots
from mmsa.sweep.options import SweepSpec
from mmsa.sweep.setup import open_sweep
from mmsa.sweep.storage import open_study
from mmsa.sweep.summary import summarise
from tests.sweep.sweeps import GRID, LR, make, work


def test_a_study_names_its_dimensions_as_they_are_typed(base: list[str]) -> None:
    made = make(*base, "encoder/text=bilstm,bigru", "sweep.trials=1", "dataset=synthetic")
    assert summarise(made.study).space == {"encoder/text": "bilstm,bigru"}
    assert summarise(open_study(Path(made.spec.folder))) == summarise(made.study)


def test_the_same_command_is_the_same_study_and_another_search_is_not(base: list[str]) -> None:
    first = make(*base, LR)
    assert make(*base, LR, "sweep.trials=7", "sweep.slots=1").spec.study == first.spec.study
    assert make(LR, *reversed(base), "tracking=none").spec.study == first.spec.study, "the order means nothing"
    assert make(*base, LR, "optimizer=adamw").spec.study != first.spec.study
    make(*base, LR, "sweep.study=named")
    with pytest.raises(ConfigError, match="searches something else"):
        make(*base, "feedback=none,static", "dataset.modalities=[text,audio]", "sweep.study=named")


def test_a_grid_in_another_order_is_the_same_grid(base: list[str]) -> None:
    dimensions = ["seed=1,2", "encoder.text.dropout=0.1,0.2"]
    made = make(*base, *dimensions, option="grid", sampler=GRID)
    desk, _ = open_sweep(made.spec, "")
    for _ in range(2):  # points that fail are tried again by the next command, whatever their place in it
        trial = desk.next()
        assert trial is not None and desk.tell(trial, TrialState.FAIL)
    again = make(*base, *reversed(dimensions), option="grid", sampler=GRID)
    assert again.spec.study == made.spec.study
    done = [trial for trial in work(again).trials if trial.state == TrialState.COMPLETE]
    points = {(trial.params["seed"], trial.params["encoder.text.dropout"]) for trial in done}
    assert len(done) == 4 and points == {(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)}


def test_a_file_that_sets_what_no_trial_would_see_is_refused(base: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import mmsa.sweep.checking as checking

    original = checking._plain
    calls: list[int] = []

    def with_more(cfg: Any) -> dict[str, Any]:  # as a sweep's YAML that sets trainer.batch_size would
        calls.append(1)
        found = original(cfg)
        return {**found, "trainer": {**found["trainer"], "batch_size": 7}} if len(calls) == 1 else found

    monkeypatch.setattr(checking, "_plain", with_more)
    with pytest.raises(ConfigError, match=r"trainer.batch_size=7.*\n  write it under sweep.space"):
        make(*base, LR)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=1,2"], "sweep.seeds=2"),
        ([LR, "sweep.objectives=[test/mae]"], "never reads the test fold"),
        ([LR, "sweep.objectives=[valid/mea]"], "there is no valid/mea"),
        (["trainer.batch_size=range(0,3)"], "greater than or equal to 1"),
        ([LR, "sweep.study=a/b"], "it names a folder"),
        ([LR, "sweep.objectives=[seconds]", "sweep.pruner=median"], "sweep.pruner=none"),
        ([LR, "sweep.trials=0"], "sweep.trials=0"),
        ([LR, "device.devices=1,2"], "\n  type device.devices=1"),
        ([], "type"),
    ],
)
def test_what_is_wrong_is_refused_in_a_few_lines(base: list[str], arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make(*base, *arguments)
    assert said in str(refusal.value) and len(str(refusal.value).splitlines()) <= 4


@pytest.mark.parametrize(("slots", "said"), [("cuda:7", "cuda:7"), (["cuda:0"], "cuda:0"), (["gpu"], "gpu")])
def test_a_slot_that_is_not_there_is_refused(base: list[str], slots: Any, said: str) -> None:
    cfg = compose([word for word in base if word != "device=cpu"])
    with pytest.raises(ConfigError, match=said):
        plan_slots(cfg, {"slots_per_gpu": 1, "gpu_memory": 2}, slots)


def test_what_a_sweeps_folder_names_admits_nothing(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(*base, LR, "sweep.trials=1")
    path = Path(made.spec.folder) / "sweep.json"
    (folder := tmp_path / "my (conf)").mkdir()
    changed = {"packages": "os,guest", "config_folders": [str(folder)]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    for packages, folders in (((), ()), (("os", "guest"), ()), (("os",), [str(folder)])):
        monkeypatch.setattr("mmsa.config.PACKAGES", packages)
        with pytest.raises(ConfigError, match="from its own command line") as refused:
            worker.work(path.parent, config_folders=folders)
    variable, *words = shlex.split(str(refused.value).split("type ")[1])
    monkeypatch.setattr("mmsa.config.PACKAGES", tuple(variable.removeprefix("MMSA_PACKAGES=").split(",")))
    taken: list[SweepSpec] = []
    monkeypatch.setattr("mmsa.sweep.hydra_sweep.reopen", lambda spec, command: taken.append(spec) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.command(words[1:])
    assert words[0] == "mmsa" and taken[0].config_folders == [str(folder)]
