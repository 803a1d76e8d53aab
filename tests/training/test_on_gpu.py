"""What only a GPU can show: whole runs by graphs and without, again and resumed, and an epoch that never waits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import mmsa
from mmsa.training.checkpoints import load_checkpoint
from mmsa.training.loss_log import LossLog
from mmsa.training.trainer import Trainer

pytestmark = pytest.mark.gpu
RECIPES = {
    "mmlatch": ("experiment=mmlatch", "regularizer=m3"),
    "no feedback": ("experiment=mmlatch", "feedback=none", "encoder=bigru"),
    "misa": ("experiment=misa_mosei", "encoder/text=misa"),
    "unimodal": ("fusion=concat", "objective=unimodal", "task=classification"),
}


@pytest.fixture
def on_gpu(small: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Overrides of a small run on a GPU; a test that fails shows where a graph or a joint step did."""
    caplog.set_level(logging.DEBUG, "mmsa")
    own = {"device=cpu": "device=cuda", "trainer.max_epochs=2": "trainer.max_epochs=4"}
    return [*(own.get(option, option) for option in small), "trainer.batch_size=32", "dataset.max_length=20"]


def history(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = load_checkpoint(folder / "checkpoints" / "last.pt")["progress"]["history"]
    return found


@pytest.mark.parametrize(
    ("precision", "deterministic"), [("32-true", "true"), ("32-true", "false"), ("bf16-mixed", "true")]
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_by_graphs_has_the_curve_of_the_eager_one(
    recipe: str,
    precision: str,
    deterministic: str,
    on_gpu: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = [*RECIPES[recipe], *on_gpu, f"device.deterministic={deterministic}", f"device.precision={precision}"]
    by_graphs = mmsa.run(typed)
    assert "without CUDA graphs" not in capsys.readouterr().out
    monkeypatch.setattr("mmsa.training.graphs.VISITS", 10**9)
    eager = mmsa.run(typed)
    for ours, theirs in zip(history(by_graphs.folder), history(eager.folder), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3 if precision == "32-true" else 3e-2, abs=1e-3)
    if deterministic == "true":
        assert history(by_graphs.folder) == history(eager.folder)
        assert history(mmsa.run(typed, quiet=True).folder) == history(eager.folder)


def test_a_resumed_run_by_graphs_goes_on_to_the_same_bits(on_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [*RECIPES["mmlatch"], *on_gpu]
    whole = mmsa.run(typed, quiet=True)
    walk = Trainer._walk

    def interrupted(trainer: Trainer, *of: Any) -> Any:
        if of[4] == 3:
            raise KeyboardInterrupt
        return walk(trainer, *of)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_walk", interrupted)
        mmsa.run(typed, quiet=True)
    (stopped,) = (folder for folder in whole.folder.parent.iterdir() if folder != whole.folder)
    resumed = mmsa.run([f"trainer.resume={stopped}"], quiet=True)
    assert history(resumed.folder) == history(whole.folder)
    assert resumed.predictions == whole.predictions


@pytest.fixture
def three_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds that train together."""
    monkeypatch.setattr("mmsa.seeds.FEWEST_ON_GPU", 3)


@pytest.mark.parametrize("graphs", ["auto", "off"])
@pytest.mark.parametrize("recipe", ["mmlatch", "no feedback", "unimodal"])
@pytest.mark.usefixtures("three_are_enough")
def test_seeds_together_have_the_curve_that_each_has_alone_and_the_same_bits_again(
    recipe: str, graphs: str, on_gpu: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [*RECIPES[recipe], *on_gpu, "device.deterministic=true", f"device.graphs={graphs}"]
    packed = mmsa.run(typed, seeds=[1, 2, 3])
    said = capsys.readouterr().out
    assert "one after the other" not in said and "without CUDA graphs" not in said
    again, alone = mmsa.run(typed, seeds=[1, 2, 3], quiet=True), mmsa.run([*typed, "seed=2"], quiet=True)
    for ours, theirs in zip(packed.runs, again.runs, strict=True):
        assert history(ours.folder) == history(theirs.folder) and ours.predictions == theirs.predictions
    for mine, own in zip(history(packed.runs[1].folder), history(alone.folder), strict=True):
        assert mine == pytest.approx(own, rel=1e-2, abs=1e-2)
    assert history(packed.runs[0].folder)[0] != pytest.approx(history(alone.folder)[0], rel=1e-3)


@pytest.mark.parametrize("graphs", ["auto", "off"])
@pytest.mark.parametrize("recipe", [*RECIPES, "self_mm"])
@pytest.mark.usefixtures("three_are_enough")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # is a prototype, PyTorch says
def test_an_epoch_never_waits(recipe: str, graphs: str, on_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the fourth on: in the third the only shape is captured, which waits."""
    walk, look = Trainer._walk, LossLog._look

    def unwaiting(trainer: Trainer, *of: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if of[4] > 3 else "default")
        try:
            return walk(trainer, *of)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def looking(log: LossLog) -> None:
        torch.cuda.set_sync_debug_mode("default")
        look(log)

    monkeypatch.setattr(Trainer, "_walk", unwaiting)
    monkeypatch.setattr(LossLog, "_look", looking)
    chosen = RECIPES.get(recipe, ("experiment=self_mm_mosi", "encoder/text=bilstm"))
    once = ["trainer.batch_size=1000", "trainer.max_epochs=5"]
    typed = [*chosen, *on_gpu, *once, f"device.graphs={graphs}"]
    mmsa.run([*typed, "seed=1"], quiet=True)
    if recipe not in ("misa", "self_mm"):  # which seeds do not train by together
        mmsa.run(typed, seeds=[1, 2, 3], quiet=True)
