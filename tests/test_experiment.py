"""Whole runs: the same seed gives the same run, an interrupted one goes on to the same bits, nothing is lost."""

from __future__ import annotations

import csv
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from lightning_fabric import Fabric
from omegaconf import OmegaConf

import mmsa
from mmsa import experiment
from mmsa.analysis.runs import by_configuration
from mmsa.analysis.selection import read_runs
from mmsa.compose import compose
from mmsa.config import conf_folder
from mmsa.data.batches import Data
from mmsa.errors import ConfigError, TrainingError
from mmsa.experiment import RunResult
from mmsa.overrides import native_overrides, typed_overrides
from mmsa.record import RunRecord
from mmsa.resume import continued, overrides_of
from mmsa.run_folder import read_config, run_name
from mmsa.tracking.none import NullTracker
from mmsa.train import is_of_defaults
from mmsa.training.checkpoints import load_checkpoint
from mmsa.training.device import make_fabric
from mmsa.training.trainer import Trainer
from tests.composition import HYDRA
from tests.conftest import ROOT
from tests.records import documented, fits, record

STEPS = 6
"""Batches of an epoch."""
EVERYTHING = ["regularizer=m3", "feedback=mmlatch", "optimizer=adamw", "trainer.clip_norm=1"]


def weights(result: RunResult, name: str = "best") -> dict[str, torch.Tensor]:
    content = torch.load(result.folder / "checkpoints" / f"{name}.pt", weights_only=True)
    return content["model"]


def same(first: RunResult, second: RunResult) -> None:
    assert first.predictions == second.predictions
    assert (first.folder / "history.csv").read_text() == (second.folder / "history.csv").read_text()
    for name in ("best", "last"):
        ours, theirs = weights(first, name), weights(second, name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def that_fills_memory(**options: Any) -> Fabric:
    """The device of a run; an element that is read before anything has written it is NaN there."""
    fabric = make_fabric(**options)
    torch.utils.deterministic.fill_uninitialized_memory = True
    return fabric


def test_the_same_seed_gives_the_same_run_whoever_looks_on_and_another_seed_another(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = mmsa.run([*small, *EVERYTHING, "seed=4"], quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("mmsa.build.make_fabric", that_fills_memory)
        second = mmsa.run([*small, *EVERYTHING, "seed=3"], quiet=True)
    monkeypatch.setattr("mmsa.display._Screen.isatty", lambda screen: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("mmsa.display.REFRESH_SECONDS", 0.0)
    first = mmsa.run([*small, *EVERYTHING, "seed=3"])
    assert capsys.readouterr().out.count("epoch 2 of 2") >= STEPS
    same(first, second)
    assert first.predictions != other.predictions


def test_the_tracker_opens_after_the_first_step_or_when_the_run_ends_before_it(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    step = Trainer.step

    def seen(self: Trainer, *arguments: Any) -> list[dict[str, torch.Tensor]]:
        order.append("step")
        return step(self, *arguments)

    for name in ("start", "log_epoch", "finish", "fail"):
        monkeypatch.setattr(NullTracker, name, lambda *arguments, name=name, **options: order.append(name))
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            mmsa.run([*small, "trainer.max_epochs=1"], quiet=True)
    assert order == ["start", "fail"]
    order.clear()
    monkeypatch.setattr(Trainer, "step", seen)
    mmsa.run([*small, "trainer.max_epochs=1"], quiet=True)
    assert order == ["step", "start", *(["step"] * (STEPS - 1)), "log_epoch", "finish"]


def stop_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Let a run be stopped as by Ctrl-C after some steps of its training."""
    step, steps_left = Trainer.step, [steps]

    def killed(self: Trainer, *arguments: Any) -> list[dict[str, torch.Tensor]]:
        steps_left[0] -= 1
        if steps_left[0] < 0:
            raise KeyboardInterrupt
        return step(self, *arguments)

    patch.setattr(Trainer, "step", killed)


def kill(small: list[str], overrides: list[str], after_steps: int) -> Path:
    """Start a run, stop it in the middle of an epoch as Ctrl-C does, and return its folder."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, after_steps)
        mmsa.run([*small, *overrides, "name=killed"], quiet=True)
    outputs = Path(small[1].partition("=")[2])
    (folder,) = (outputs / "runs").glob("*_killed")
    assert json.loads((folder / "result.json").read_text())["status"] == "failed"
    return folder


def typed_again(small: list[str], overrides: list[str]) -> list[str]:
    """A run goes on whether all that started it is typed again or nothing of it."""
    return [] if overrides else [*small, "trainer.max_epochs=3"]


@pytest.mark.parametrize("overrides", [[], EVERYTHING], ids=["defaults", "everything"])
def test_a_killed_run_goes_on_to_the_same_bits(small: list[str], overrides: list[str]) -> None:
    whole = mmsa.run([*small, *overrides, "trainer.max_epochs=3"], quiet=True)
    folder = kill(small, [*overrides, "trainer.max_epochs=3"], after_steps=STEPS + 2)
    resumed = mmsa.run([*typed_again(small, overrides), f"trainer.resume={folder}"], quiet=True)
    assert resumed.folder == folder
    same(whole, resumed)


def test_a_finished_run_is_not_trained_further(small: list[str]) -> None:
    result = mmsa.run(small, quiet=True)
    kept = (result.folder / "result.json").read_text()
    with pytest.raises(ConfigError, match=r"is finished[\s\S]*leave trainer\.resume out"):
        mmsa.run([*small, "trainer.max_epochs=9", f"trainer.resume={result.folder}"], quiet=True)
    assert (result.folder / "result.json").read_text() == kept


def test_what_would_change_the_result_of_a_run_that_goes_on_is_refused(small: list[str]) -> None:
    folder = kill(small, [], after_steps=STEPS + 2)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for override, told in {
        "seed=9": r"seed=9 here, but the run has 1\.\n  type seed=1 or leave it out",
        "fusion=concat": r"fusion\._target_=mmsa\.fusion\.concat\.ConcatFusion here, but the run has mmsa\.fusion\.att",
        "hidden_dim=64": r"hidden_dim=64 here, but the run has 6[\s\S]*type \S*hidden_dim=6 or",
    }.items():
        with pytest.raises(ConfigError, match=told):
            mmsa.run([override, f"trainer.resume={folder}"], quiet=True)
    assert kept == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_may_change_of_a_run_that_goes_on_is_named_and_stays(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kill(small, ["fusion=concat"], after_steps=STEPS + 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(patch, STEPS)
        mmsa.run(["trainer.max_epochs=4", small[0], f"trainer.resume={folder}"])
    told = capsys.readouterr().out
    assert "changed: trainer.max_epochs=4 (was 2)\n" in told
    assert re.search(r"^resumes after 1 epoch; best so far: epoch 1, valid/mae \d", told, flags=re.MULTILINE)
    assert re.search(r"^stopped by Ctrl-C after \d+ s and 2 epochs; best so far: epoch ", told, flags=re.MULTILINE)
    back = ["trainer.max_epochs=2", f"trainer.resume={folder}"]  # what it was started with is typed against what it has
    assert continued(compose(back), back)[1] == ["changed: trainer.max_epochs=2 (was 4)"]
    (folder / "checkpoints" / ".last.pt.1.tmp").touch()  # of a process that was killed
    result = mmsa.run([f"trainer.resume={folder}"])
    assert not list(folder.rglob(".*.tmp")) and "changed: " not in capsys.readouterr().out
    assert (result.folder, RunRecord.read(folder).epochs) == (folder, 4)
    assert read_config(folder).fusion._target_.endswith("ConcatFusion")


def test_a_recipe_that_has_changed_since_is_named_and_the_run_keeps_its_own(tmp_path: Path) -> None:
    typed = ["experiment=mmlatch", "trainer.patience=3"]
    (tmp_path / "result.json").write_text(record(status="failed", overrides=typed).model_dump_json())
    started = compose(typed)
    started.optimizer.lr = 0.5  # as the recipe said then
    OmegaConf.save(started, tmp_path / "config.yaml", resolve=True)
    resumed, lines = continued(compose([f"trainer.resume={tmp_path}"]), [f"trainer.resume={tmp_path}"])
    assert resumed.optimizer.lr == 0.5 and resumed.trainer.patience == 3
    (line,) = lines
    assert line.startswith("experiment=mmlatch: changed since") and "optimizer.lr=0.5 (now 0.0005)" in line


def test_a_run_keeps_everything_and_loads_in_two_lines(small: list[str]) -> None:
    result = mmsa.run([*small, "feedback=static"], quiet=True)
    record = json.loads((result.folder / "result.json").read_text())
    assert record["status"] == "finished"
    for name, words in documented().items():
        part, _, key = name.partition(".")
        assert fits(record[part][key] if key else record[part], words), f"{name} is not {words}"
    assert {"valid/mae", "test/mae", "test/acc2_non0", "test/f1_non0_swapped"} <= set(record["metrics"])
    assert {"mean", "majority", "ridge text", "ridge joint"} <= set(record["baselines"])
    with (result.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    test = [row for row in rows if row["fold"] == "test"]
    errors = [abs(float(row["target"]) - float(row["prediction"])) for row in test]
    assert np.mean(errors) == pytest.approx(result.metrics["test/mae"], rel=1e-6)
    assert len(test) == record["data"]["utterances"]["test"]

    trained = mmsa.load(result.folder)
    metrics, predictions = trained.evaluate("test")
    assert metrics["mae"] == result.metrics["test/mae"]
    assert predictions == result.predictions["test"]


def test_the_test_fold_is_opened_once_and_after_training(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    fold, fit = Data.fold, Trainer.fit
    monkeypatch.setattr(Data, "fold", lambda self, name: opened.append(name) or fold(self, name))
    monkeypatch.setattr(Trainer, "fit", lambda self, *a, **k: (fit(self, *a, **k), opened.append("trained"))[0])
    mmsa.run(small, quiet=True)
    assert opened == ["train", "valid", "trained", "test"]


def test_selection_takes_the_best_epoch_of_the_validation_fold(small: list[str]) -> None:
    result = mmsa.run([*small, "trainer.max_epochs=4", "optimizer.lr=0.05"], quiet=True)
    with (result.folder / "history.csv").open() as file:
        scores = [float(row["valid/mae"]) for row in csv.DictReader(file)]
    record = json.loads((result.folder / "result.json").read_text())
    best = 1 + int(np.argmin(scores))
    assert record["best_epoch"] == best
    assert result.metrics["valid/mae"] == pytest.approx(min(scores), rel=1e-6)
    log = (result.folder / "run.log").read_text(encoding="utf-8")
    improved = [epoch for epoch, score in enumerate(scores, start=1) if score == min(scores[:epoch])]
    assert [int(epoch) for epoch in re.findall(r"^  epoch +(\d+)  loss ", log, flags=re.MULTILINE)] == improved
    told = f"\nselected epoch {best}, valid/mae {min(scores):.4f}; stopped: trainer.max_epochs=4 reached; "
    assert re.search(re.escape(told) + r"\d+ s\n", log)


def forms_of_training(printed: str) -> set[str]:
    """The lines between that of the run's data and the table, whatever their numbers."""
    lines = printed[: printed.index("synthetic, test fold")].splitlines()[1:]
    return {re.sub(r" *\d[\d.e+-]*", " 0", line) for line in lines}


def test_patience_stops_a_run_that_does_not_improve_and_it_says_so_as_in_the_readme(small: list[str]) -> None:
    result = mmsa.run([*small, "trainer.max_epochs=50", "trainer.patience=2", "optimizer.lr=1e-12"], quiet=True)
    record = json.loads((result.folder / "result.json").read_text())
    assert record["epochs"] < 50 and record["epochs"] == record["best_epoch"] + 2
    log = (result.folder / "run.log").read_text(encoding="utf-8")
    assert f"\nselected epoch {record['best_epoch']}, " in log and "; stopped: no improvement in 2 epochs; " in log
    shown = (ROOT / "README.md").read_text(encoding="utf-8").partition("<!-- begin: make train -->\n```\n")[2]
    assert forms_of_training(shown) == forms_of_training(log)


def test_a_loss_that_is_not_finite_names_epoch_batch_and_utterances(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = Trainer.step, [0]

    def poisoned(self: Trainer, *arguments: Any) -> list[dict[str, torch.Tensor]]:
        steps[0] += 1
        (losses,) = step(self, *arguments)
        return [{name: loss * float("nan") if steps[0] == 3 else loss for name, loss in losses.items()}]

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1, batch 3; its utterances: \S+\[\d+\], "):
        mmsa.run(small, quiet=True)
    (log,) = Path(small[1].partition("=")[2]).glob("runs/*/run.log")
    assert re.search(
        r"^failed after \d+ s and 0 epochs; run folder: .*\n  the training loss is nan", log.read_text(), re.M
    )


def test_classification_end_to_end(small: list[str]) -> None:
    result = mmsa.run([*small, "task=classification", "task.thresholds=[-1,1]", "fusion=concat"], quiet=True)
    assert set(result.predictions["test"].values()) <= {0.0, 1.0, 2.0}
    assert 0 < result.metrics["test/accuracy"] <= 1


def test_a_method_in_a_folder_of_ones_own(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "gated.py").write_text(
        "import torch\n"
        "from mmsa.fusion.concat import ConcatFusion\n"
        "from mmsa.types import Fused\n"
        "class GatedFusion(ConcatFusion):\n"
        "    def __init__(self, input_dims, power: float = 1.0):\n"
        "        super().__init__(input_dims)\n"
        "        self.gate = torch.nn.Linear(self.output_dim, self.output_dim)\n"
        "    def combine(self, streams):\n"
        "        joined = super().combine(streams).vector\n"
        "        gate = torch.sigmoid(self.gate(joined))\n"
        "        return Fused(joined * gate, {'openness': gate.mean()})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = [*small, "fusion=concat", "fusion._target_=my_methods.gated.GatedFusion", "+fusion.power=2"]
    with pytest.raises(ConfigError, match="MMSA_PACKAGES=my_methods"):
        mmsa.run(own, quiet=True)
    monkeypatch.setattr("mmsa.config.PACKAGES", ("my_methods",))
    mmsa.run([*own, "+task.auxiliary.openness=0.1"], quiet=True)
    with pytest.raises(ConfigError, match=r"task.auxiliary.other[\s\S]*openness"):
        mmsa.run([*own, "+task.auxiliary.other=0.1"], quiet=True)


def test_a_users_part_that_needs_true_widths_is_built_with_them(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options are checked without data, with widths of one: what only that width offends is no refusal."""
    (tmp_path / "grouped.py").write_text(
        "import torch\n"
        "from mmsa.encoder.bilstm import RecurrentEncoder\n"
        "class Grouped(RecurrentEncoder):\n"
        "    def __init__(self, input_dim, hidden_dim):\n"
        "        super().__init__(input_dim, hidden_dim)\n"
        "        self.norm = torch.nn.GroupNorm(2, input_dim)\n"
        "    def embed(self, features):\n"
        "        return self.norm(features.transpose(1, 2)).transpose(1, 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("mmsa.config.PACKAGES", ("grouped",))
    places = [f"encoder.{m}" for m in ("text", "audio", "visual", "default")]
    cfg = compose([*small, "fusion=concat"])
    for place in places:
        OmegaConf.update(cfg, place, None)
        OmegaConf.update(cfg, place, {"_target_": "grouped.Grouped", "hidden_dim": 6}, merge=False)
    assert experiment.run(cfg, quiet=True).metrics


def test_the_weights_that_are_tested_are_those_that_were_selected(small: list[str]) -> None:
    """A name with underscores among them, on which the original loses its best checkpoint."""
    chosen = ["name=a_run_with_underscores", "optimizer.lr=0.1", "trainer.patience=1", "trainer.max_epochs=30"]
    result = mmsa.run([*small, *chosen, "fusion=concat"], quiet=True)
    record = RunRecord.read(result.folder)
    assert (record.best_epoch or 0) < (record.epochs or 0), "else this run shows nothing"
    trained = mmsa.load(result.folder)
    assert trained.evaluate("test")[1] == result.predictions["test"]
    trained.model.load_state_dict(load_checkpoint(result.folder / "checkpoints" / "last.pt")["model"])
    assert trained.evaluate("test")[1] != result.predictions["test"]


def test_what_is_typed_wins_over_every_file(small: list[str]) -> None:
    """In the originals YAML wins over the command line, or `--lr=1e-4` is not seen to be there."""
    typed = ["optimizer.lr=1e-4", "trainer.batch_size=7", "debug=fast", "trainer.max_epochs=1", "name=mine"]
    result = mmsa.run([*(o for o in small if not o.startswith("trainer.")), *typed], quiet=True)
    cfg, record = read_config(result.folder), RunRecord.read(result.folder)
    assert (cfg.optimizer.lr, cfg.trainer.batch_size, cfg.trainer.max_epochs) == (1e-4, 7, 1)
    assert (record.epochs, record.name) == (1, "mine")
    assert (result.folder / "history.csv").read_text().splitlines()[1].endswith("0.0001")


def test_no_run_touches_what_is_in_the_outputs_folder(small: list[str]) -> None:
    outputs = Path(small[1].partition("=")[2])
    kept = outputs / "runs" / "notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    first, second = (mmsa.run([*small, "name=same", "trainer.max_epochs=1"], quiet=True) for _ in range(2))
    assert kept.read_text() == "mine" and first.folder != second.folder
    assert all((run.folder / "checkpoints" / "best.pt").is_file() for run in (first, second))


def test_threads_take_turns(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = [], []

    def run(*_: object, **__: object) -> None:
        begun.append(len(ended))
        time.sleep(0.02)
        ended.append(True)

    monkeypatch.setattr(experiment, "run", run)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda seed: mmsa.run([*small, f"seed={seed}"]), range(3)))
    assert begun == [0, 1, 2]


def test_a_run_repeated_from_its_own_configuration_is_named_by_what_it_computes(small: list[str]) -> None:
    chosen = ["fusion=concat", "regularizer=m3", "trainer.max_epochs=1", "seed=2"]
    typed = mmsa.run([*small, *chosen], quiet=True)
    again = experiment.run(read_config(typed.folder), quiet=True)
    computed = ["fusion=concat", "regularizer=m3", "hidden_dim=6", "seed=2", "device=cpu"]
    assert set(RunRecord.read(again.folder).overrides) == {*computed, "trainer.max_epochs=1"}
    assert "fusion-concat-regularizer-m3" in again.folder.name
    (group,) = by_configuration(read_runs(typed.folder.parents[1]).runs)
    assert "fusion=concat" in group.label and "regularizer=m3" in group.label


def test_a_run_of_typed_options_is_composed_once_and_that_of_another_configuration_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("composed again")

    def begun(cfg: object, overrides: list[str], *arguments: object) -> None:
        raise InterruptedError(*overrides)

    monkeypatch.setattr("mmsa.resume.compose", refuse)
    monkeypatch.setattr("mmsa.experiment.Journal", begun)
    with pytest.raises(InterruptedError, match="seed=3"):
        mmsa.run(["seed=3"])
    with pytest.raises(AssertionError, match="again"):
        experiment.run(compose(["seed=3"]), ["seed=3"])
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    for folder, own in ((conf_folder(), True), (tmp_path, False)):
        with hydra.initialize_config_dir(str(folder)):
            monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
            HydraConfig.instance().set_config(HYDRA("config", return_hydra_config=True))
            assert is_of_defaults() == own


def test_python_records_overrides_as_the_command_line_does(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[list[str]] = []

    def begun(cfg: object, overrides: list[str], *arguments: object) -> None:
        recorded.append(overrides)
        raise InterruptedError

    typed = ["experiment=mmlatch", 'encoder="bigru"', "fusion='concat'", "name='a b'", "hidden_dim= 8"]
    with hydra.initialize_config_dir(str(conf_folder())):
        line = HYDRA("config", native_overrides([*typed, "seed=2"]), return_hydra_config=True).hydra.overrides.task
    monkeypatch.setattr("mmsa.experiment.Journal", begun)
    for own, seeds in (([*typed, "seed=2"], None), (typed, [2])):
        with pytest.raises(InterruptedError):
            mmsa.run(own, quiet=True, seeds=seeds)
    assert recorded[0] == typed_overrides(line) and "fusion=concat" in recorded[0]
    assert set(recorded[1]) == set(recorded[0]) and compose(recorded[0]) == compose([*typed, "seed=2"])


def test_only_a_run_of_the_defaults_is_called_default() -> None:
    assert run_name([]) == run_name(["paths.outputs=elsewhere", "tracking=none", "trainer.resume=x"]) == "default"
    assert run_name(["debug=fast"]) == "debug=fast"
    for typed in ([], ["debug=fast"], ["experiment=mmlatch", "seed=3"]):
        assert overrides_of(compose(typed), typed) == typed
