"""Training, step by step: our loss, optimiser, schedule and step against 24 steps of the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor

from mmsa.data.batches import Fold
from mmsa.layers.dropout import Dropout
from mmsa.model import Learner, MultimodalModel
from mmsa.objective.task import TaskObjective
from mmsa.stages import Task
from mmsa.training.device import one_device
from mmsa.training.optimizers import adam
from mmsa.training.regression import Regression
from mmsa.training.schedules import plateau
from mmsa.training.trainer import Trainer
from mmsa.types import Batch, Moment
from tests.parity.misa_reference import COLUMNS, misa_model, misa_task, with_word_pieces
from tests.parity.reference import SOURCES, Golden, Names
from tests.parity.test_mmlatch import batch_of, classifier
from tests.parity.test_slp import FusedMaps, slp_model

GOLDEN = {"trajectory": {"epochs", "clip_value", "model"}}
STORED_STEPS = (1, 6, 24)


class StoredFold:
    """The utterances that an archive stores under data/<name>/, evaluated as one batch.

    Args:
        golden: the archive.
        name: train or valid.
        columns: its name of each modality's input.
    """

    def __init__(self, golden: Golden, name: str, columns: Mapping[str, str]) -> None:
        self.data, self.columns = golden.group(f"data/{name}/"), columns
        self.targets = {"sentiment": self.data["target"].squeeze(-1).numpy()}

    def __len__(self) -> int:
        return len(self.data["target"])

    def batch(self, rows: Tensor) -> Batch:
        batch = batch_of(
            {m: self.data[column][rows] for m, column in self.columns.items()}, self.data["lengths"][rows].long()
        )
        batch.targets = {"sentiment": self.data["target"][rows].squeeze(-1)}
        pieces = {name.removeprefix("bert_"): x[rows] for name, x in self.data.items() if name.startswith("bert_")}
        return with_word_pieces(batch, pieces) if pieces else batch

    def batches(self, batch_size: int) -> Iterator[Batch]:
        yield self.batch(torch.arange(len(self)))


def stated(golden: FusedMaps, folder: Path) -> tuple[MultimodalModel, Names, Task, Mapping[str, str]]:
    """The model and the task that a file states, and its name of each modality's input; `folder` for a BERT."""
    config = golden.config | golden.config["model"]
    if "branch" in config:
        pytest.skip("MISA+MMLatch trains through the doubled text embedding of the originals, which is not rebuilt")
    if "use_bert" in config:
        return *misa_model(golden, folder), misa_task(golden), COLUMNS
    loss: Literal["l1", "mse"] = "l1" if golden.config["loss"] == "mean absolute error" else "mse"
    model, names = slp_model(golden) if "modality_feature_sizes" in config else classifier(golden)
    return model, names, Regression(loss=loss), {m: m for m in SOURCES}


def tolerances(golden: Golden) -> dict[str, float]:
    """Ten times the measured conditioning, at least 1e-5, rounded up to a leading digit as the README prints them."""

    def bound(figure: float) -> float:
        least = max(10 * figure, 1e-5)
        unit = 10.0 ** math.floor(math.log10(least))
        return math.ceil(least / unit - 1e-9) * unit

    measured = golden.config["conditioning"]
    weights = max(measured[name] for name in ("w1", "w6", "w24"))
    return {
        "weights": bound(weights),
        "loss": bound(measured["loss"]),
        "valid": bound(measured["valid"]),
        "pred": bound(measured["pred"]),
    }


def check_weights(model: torch.nn.Module, names: dict[str, str], stored: dict[str, Tensor], golden: Golden) -> None:
    bound, skipped = tolerances(golden)["weights"], golden.config["null_gradient"]
    for name, value in stored.items():
        if name not in names and name in golden.config["never_updated"]:
            continue  # what the original builds and never uses
        ours = model.get_parameter(names[name]).detach().clone()
        if name in skipped:
            first, last = skipped[name]
            ours[first:last] = value[first:last]
        assert (ours - value).abs().max() <= bound, name


@pytest.mark.golden("trajectory")
def test_training_follows_the_reference(golden_file: Path, tmp_path: Path) -> None:
    golden = FusedMaps(golden_file)
    config: dict[str, Any] = golden.config
    bound = tolerances(golden)
    model, names, task, columns = stated(golden, tmp_path)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | Dropout):
            assert module.p == 0, "every dropout is off in these files"
    assert config["optimizer"]["name"] == "Adam" and config["optimizer"]["betas"] == [0.9, 0.999]
    optimizer = adam(list(model.parameters()), config["optimizer"]["lr"], config["optimizer"]["weight_decay"])
    schedule, scheduler = config["scheduler"], None
    if schedule is not None:
        lowest = schedule["min_lr"] / config["optimizer"]["lr"]
        scheduler = plateau(
            optimizer, schedule["mode"], schedule["factor"], schedule["patience"], schedule["cooldown"], lowest
        )
    trainer = Trainer(
        one_device(),
        task,
        tmp_path,
        {},
        max_epochs=config["epochs"],
        batch_size=config["batch_size"],
        patience=config["epochs"],
        clip_value=config["clip_value"],
    )
    train, valid = StoredFold(golden, "train", columns), StoredFold(golden, "valid", columns)
    fold = cast(Fold, valid)

    def close(ours: float, name: str, index: int, kind: str) -> None:
        assert abs(ours - golden[name][index].item()) <= bound[kind], (name, index)

    _, predictions = trainer.evaluate(model, fold)
    assert abs(predictions - golden["output/valid_pred_initial"].squeeze(-1).numpy()).max() <= bound["pred"]
    per_epoch = config["steps_per_epoch"]
    learner = Learner(model, TaskObjective(task))
    for index, rows in enumerate(golden["batch_index"].long()):
        model.train()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(golden["step/lr"][index].item(), rel=1e-12)
        epoch, step = divmod(index, per_epoch)
        moment = Moment(epoch + 1, step + 1, config["epochs"], per_epoch)
        (losses,) = trainer.step(learner, {"main": optimizer}, [train.batch(rows)], [moment])
        close(losses["task"].item(), "step/loss", index, "loss")
        if index + 1 in STORED_STEPS:
            check_weights(model, names, golden.group(f"state_step{index + 1}/"), golden)
        if (index + 1) % per_epoch == 0:
            _, predictions = trainer.evaluate(model, fold)
            truth = torch.from_numpy(valid.targets["sentiment"])
            score = task.primary_loss(torch.from_numpy(predictions).float()[:, None], truth).item()
            close(score, "epoch/valid", index // per_epoch, "valid")
            if scheduler is not None:
                scheduler.after_epoch(score)
            after = golden["epoch/lr_after"][index // per_epoch].item()
            assert optimizer.param_groups[0]["lr"] == pytest.approx(after, rel=1e-12)
    _, predictions = trainer.evaluate(model, fold)
    assert abs(predictions - golden["output/valid_pred"].squeeze(-1).numpy()).max() <= bound["pred"]
