"""Seeds that train in joint steps: each has the curve that it has alone, its own end, and a record of the form."""

from __future__ import annotations

import csv
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from omegaconf import DictConfig

import mmsa
from mmsa import build, experiment
from mmsa.compose import compose
from mmsa.data.batches import Fold
from mmsa.data.resident import resident
from mmsa.display import Display
from mmsa.errors import TrainingError
from mmsa.journal import Journal
from mmsa.lockstep import Lockstep, Member
from mmsa.record import Packing, RunRecord
from mmsa.seeds import why_apart
from mmsa.training.graphs import Graphs
from mmsa.training.joint_learner import JointLearner
from mmsa.training.together import JointStep
from mmsa.training.trainer import Trainer, by_itself, predicted
from mmsa.types import Batch, Output
from tests.training.test_graphs import Repeated

EVERYTHING = [
    "regularizer=m3",
    "feedback=mmlatch",
    "encoder/audio=bigru",
    "trainer.clip_norm=1",
    "trainer.batch_size=150",
]


COLUMNS = ("train/loss", "valid/loss", "valid/mae")


@pytest.fixture(autouse=True)
def two_are_enough(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third seed and smaller batches would cost time and show nothing."""
    if "override" not in request.fixturenames:
        monkeypatch.setattr("mmsa.seeds.FEWEST", 2)
        monkeypatch.setattr("mmsa.seeds.LARGEST", 2048)


def curve(folder: Path) -> list[list[float]]:
    with (folder / "history.csv").open(encoding="utf-8") as file:
        return [[float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)]


def last(run: Path, part: str = "model") -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.pt", weights_only=True)[part]
    return content


def shares(model: torch.nn.Module) -> bool:
    """Whether a parameter is a part of a stack."""
    return any(p.untyped_storage().nbytes() > p.nbytes for p in model.parameters())


def test_each_seed_has_its_curve_alone_and_the_same_bits_again(
    small: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [*small, *EVERYTHING, "trainer.batch_size=150"]
    made, steps = Lockstep._made, list[Any]()

    def noted(lockstep: Lockstep, numbers: list[int]) -> JointStep:
        steps.append(made(lockstep, numbers))
        return steps[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Lockstep, "_made", noted)
        patch.setattr("mmsa.lockstep.by_itself", None)
        patch.setattr("mmsa.lockstep.predicted", None)  # neither a step nor an evaluation is of one seed
        shared = [Mock(wraps=build.open_data), Mock(wraps=experiment.fit_beside)]
        patch.setattr(build, "open_data", shared[0])
        patch.setattr(experiment, "fit_beside", shared[1])
        packed = mmsa.run(typed, seeds=[1, 2])
    assert [once.call_count for once in shared] == [1, 1]
    assert len(steps) == 1 and not any(map(shares, steps[0]._learners)), "who goes on with them finds them as alone"
    lines = capsys.readouterr().out
    assert "1 of 2  " in lines and "2 of 2  " in lines and "one after the other" not in lines
    again = mmsa.run(typed, seeds=[1, 2], quiet=True)
    alone = mmsa.run([*typed, "device.pack_seeds=off"], seeds=[2], quiet=True).runs[0]
    for first, second in zip(packed.runs, again.runs, strict=True):
        weights = last(first.folder), last(second.folder)
        assert all(map(torch.equal, weights[0].values(), weights[1].values()))
        assert first.predictions == second.predictions
        assert RunRecord.read(first.folder).packed == Packing(seeds=(1, 2))
    assert RunRecord.read(alone.folder).packed == Packing()
    ours, theirs, others = (curve(run.folder) for run in (packed.runs[1], alone, packed.runs[0]))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours[1] == pytest.approx(theirs[1], rel=1e-5)
    assert others[0] != pytest.approx(theirs[0], rel=1e-3)
    one, two = (last(run.folder, "generators") for run in packed.runs)
    common = {name for name in one if torch.equal(one[name], two[name])}
    assert common >= {"places"} and "order" not in common, "lengths come at the same places, of other utterances"


def test_ctrl_c_stops_all_and_each_goes_on_to_its_own_end(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [*small, *EVERYTHING, "trainer.batch_size=150"]
    whole = mmsa.run([*typed, "seed=2"], quiet=True)
    calls, batch = count(1), Journal.batch

    def interrupted(journal: Journal, epoch: int, share: float) -> None:
        batch(journal, epoch, share)
        if epoch == 2 and next(calls) == 3:
            raise KeyboardInterrupt("SIGTERM")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        patch.setattr(Journal, "batch", interrupted)
        mmsa.run(typed, seeds=[1, 2])
    said = capsys.readouterr().out
    assert said.count("stopped by SIGTERM") == 2 and said.count("trainer.resume=") == 2
    records = {path: RunRecord.read(path) for path in whole.folder.parent.iterdir()}
    (folder,) = (path for path, one in records.items() if one.seed == 2 and one.status == "failed")
    assert RunRecord.read(folder).packed == Packing(seeds=(1, 2))
    resumed = mmsa.run([f"trainer.resume={folder}"], quiet=True)
    assert RunRecord.read(folder).packed == Packing(seeds=(1, 2), epochs=1)
    assert resumed.score == pytest.approx(whole.score, rel=1e-4)


def test_seeds_that_cannot_go_on_end_alone_and_the_last_has_tensors_of_its_own(
    small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, calls, found = Trainer.evaluate, count(), list[bool]()

    def diverges(trainer: Trainer, *of: Any) -> Any:
        if next(calls) in {0, 3}:  # the first of three, then the first of two
            raise TrainingError("the loss is NaN")
        return evaluate(trainer, *of)

    def alone(trainer: Trainer, learner: Any, *of: Any) -> Any:
        found.append(shares(learner))
        return by_itself(trainer, learner, *of)

    monkeypatch.setattr(Trainer, "evaluate", diverges)
    monkeypatch.setattr("mmsa.lockstep.by_itself", alone)
    typed = [*small, "fusion=concat", "trainer.max_epochs=3", "trainer.batch_size=300"]
    with pytest.raises(TrainingError, match="the loss is NaN"):
        mmsa.run(typed, seeds=[1, 2, 3], quiet=True)
    runs = Path(small[1].partition("=")[2]) / "runs"
    states = {record.seed: record.status for record in map(RunRecord.read, runs.iterdir())}
    assert states == {1: "failed", 2: "failed", 3: "finished"}
    assert found and not any(found)


def test_what_cannot_be_batched_trains_one_after_the_other_and_says_so_once(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [*small, "fusion=bilinear", "trainer.max_epochs=1", "trainer.batch_size=300"]
    packed = mmsa.run(typed, seeds=[1, 2])
    assert capsys.readouterr().out.count("the seeds train one after the other: ") == 1
    reasons = {RunRecord.read(run.folder).packed.reason for run in packed.runs}
    assert len(reasons) == 1 and "aten::bilinear" in str(reasons)
    alone = mmsa.run([*typed, "seed=2"], quiet=True)
    assert packed.runs[1].predictions == alone.predictions


def test_seeds_on_a_gpu_train_by_joint_graphs_on_data_that_lie_there_once(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which the CPU plays the part."""
    capture, folds = Repeated(), []

    def near(device: torch.device, *given: Fold) -> list[Fold]:
        folds.extend(resident(fold, device) for fold in given)
        return folds[-2:]

    typed = [*small, "fusion=concat", "trainer.batch_size=300", "trainer.max_epochs=4"]
    monkeypatch.setattr("mmsa.layers.dropout.OWN_DRAWS", {"cpu"})
    eager = mmsa.run(typed, seeds=[1, 2], quiet=True)
    monkeypatch.setattr("mmsa.experiment.graphs_for", lambda fabric, learner, accumulate, say: Graphs(say, capture))
    monkeypatch.setattr("mmsa.experiment.near", near)
    by_graphs = mmsa.run(typed, seeds=[1, 2])
    assert "steps run without CUDA graphs" not in capsys.readouterr().out
    assert (capture.num_captures, capture.num_repeats, len(folds)) == (1, 2, 2)
    assert [run.predictions for run in by_graphs.runs] == [run.predictions for run in eager.runs], "of one length"


@pytest.mark.parametrize(("part", "said"), [("forward", "out of memory"), ("outputs", None)])
def test_what_fails_later_is_computed_by_each_alone(
    part: str, said: str | None, small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where memory is short for long batches."""
    typed = [*small, "fusion=concat", "trainer.batch_size=300"]
    alone = mmsa.run([*typed, "seed=2"], quiet=True)
    computed, calls, models = getattr(JointLearner, part), count(1), list[Any]()

    def short(joint: JointLearner, *of: Any) -> Any:
        found = computed(joint, *of)
        if next(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return found

    def alone_of(model: Any, batch: Batch) -> Output:
        assert not shares(model), "a GPU's library reads the recurrences of such a one with a warning"
        models.append(model)
        return predicted(model, batch)

    monkeypatch.setattr(JointLearner, part, short)
    monkeypatch.setattr("mmsa.lockstep.predicted", alone_of)
    packed = mmsa.run(typed, seeds=[1, 2])
    assert capsys.readouterr().out.count("the seeds train one after the other: out of memory") == (said is not None)
    form = Packing(seeds=(1, 2), epochs=1 if said else None, reason=said)
    assert RunRecord.read(packed.runs[1].folder).packed == form
    assert curve(packed.runs[1].folder)[1] == pytest.approx(curve(alone.folder)[1], rel=1e-5)
    assert next(calls) > 2 and models and not any(map(shares, models))


def test_seeds_have_their_data_in_common() -> None:
    members = [Member(Display(quiet=True), Packing(seeds=(1, 2))) for _ in range(2)]
    Lockstep(members, [int, int], print)
    assert members[0].kept is members[1].kept


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("hidden_dim=32", "trainer.batch_size=64 is as fast so (up to trainer.batch_size=32 they train together)"),
        ("hidden_dim=65", "hidden_dim=65 is as fast so (up to 64 they train together)"),
        ("trainer.accumulate=2", "trainer.accumulate=2"),
        ("device.devices=2", "device.devices=2"),
        ("device.precision=bf16-mixed", "device.precision=bf16-mixed"),
        ("device=mps", "joint steps are of a CPU or a CUDA device"),
        ("device=cuda", "fewer than 8 on a GPU"),
        ("device=cuda hidden_dim=65", "hidden_dim=65 (up to 64 they train together)"),
        ("objective=self_mm fusion=mlp", "the objective has a memory of its own"),
    ],
)
def test_the_reason_why_seeds_train_one_after_the_other(override: str, reason: str) -> None:
    def configured(*more: str) -> DictConfig:
        return compose(["device=cpu", "hidden_dim=16", "trainer.batch_size=64", *more])

    assert why_apart(configured(), 4) is None
    assert why_apart(configured("hidden_dim=32", "trainer.batch_size=32"), 4) is None
    assert why_apart(configured("hidden_dim=64", "trainer.batch_size=128", "device=cuda"), 8) is None
    assert str(why_apart(configured(*override.split()), 4)).startswith(reason)
    assert why_apart(configured(), 3) == "fewer than 4 are as fast so"
