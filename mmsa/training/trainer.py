"""The one training loop: it names no model, data set or method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa.data.batches import Fold
from mmsa.errors import TrainingError
from mmsa.training.checkpoints import load_checkpoint, save_checkpoint
from mmsa.training.schedules import Schedule
from mmsa.training.task import Task
from mmsa.types import Batch

CHECK_EVERY = 50
"""Batches between two looks at the losses: a look waits for the accelerator."""


@dataclass
class TrainingState:
    """How far training has come; all of it is in the last checkpoint.

    Args:
        epoch: epochs done.
        best_epoch: epoch of the selected weights, from 1; 0 before the first.
        best_score: its monitored value.
        history: metrics of every epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = math.nan
    history: list[dict[str, float]] = field(default_factory=list)


@torch.no_grad()
def evaluate(
    model: nn.Module, task: Task, fold: Fold, batch_size: int, device: torch.device
) -> tuple[dict[str, float], np.ndarray]:
    """Metrics of a whole fold and its mean loss, and its predictions, (N,) or (N, K), in the order of the fold.

    Args:
        model: Batch -> Output, on the device.
        task: loss and metrics.
        fold: utterances to predict.
        batch_size: utterances at a time, >= 1.
        device: where the batches go.
    """
    model.eval()
    truths = task.truths(fold.targets)
    predictions = np.empty(truths.shape, dtype=np.float64)
    total = 0.0
    for batch in fold.batches(batch_size):
        moved = batch.to(device)
        output = model(moved)
        total += task.loss(output, moved).item() * len(batch.ids)
        decided = task.decide(output.predictions[output.primary])
        predictions[batch.rows.numpy()] = decided.cpu().double().numpy()  # mps has no float64
    metrics = task.metrics(predictions, truths)
    return {"loss": total / len(fold), **metrics}, predictions


EpochCallback = Callable[[TrainingState, Mapping[str, float]], None]


class Trainer:
    """Fits a model on the train fold and selects an epoch on the validation fold.

    Args:
        fabric: where it runs and in which precision.
        task: loss, metrics and what is monitored.
        folder: where the checkpoints go.
        generators: everything random besides dropout, by name; "order" shuffles the utterances.
        max_epochs: most epochs, >= 1.
        batch_size: utterances per step, >= 1.
        patience: epochs without improvement before it stops, >= 1.
        clip_norm: largest norm of the gradient; None does not clip.
        clip_value: largest absolute element of the gradient; None does not clip.
    """

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        folder: Path,
        generators: Mapping[str, torch.Generator],
        *,
        max_epochs: int,
        batch_size: int,
        patience: int,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self.fabric, self.task, self.folder, self.generators = fabric, task, folder, generators
        self.max_epochs, self.batch_size, self.patience = max_epochs, batch_size, patience
        self.clip_norm, self.clip_value = clip_norm, clip_value

    def fit(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: Schedule | None,
        train: Fold,
        valid: Fold,
        on_epoch: EpochCallback,
        resume: bool = False,
    ) -> TrainingState:
        """Train until patience or epochs run out; the selected weights are in best.pt, everything in last.pt.

        Args:
            model: set up on the fabric, like the optimiser.
            optimizer: of the model's parameters.
            scheduler: moves the learning rate when it says so; None keeps it.
            train: utterances to learn from.
            valid: utterances to select by.
            on_epoch: called after each epoch with the progress and the epoch's metrics.
            resume: go on from last.pt.

        Raises:
            TrainingError: a loss is not finite.
        """
        progress = self._restore(model, optimizer, scheduler) if resume else TrainingState()
        while progress.epoch < self.max_epochs and progress.epoch - progress.best_epoch < self.patience:
            progress.epoch += 1
            lr = optimizer.param_groups[0]["lr"]
            loss = self._train_epoch(model, optimizer, scheduler, train, progress.epoch)
            metrics, _ = self.evaluate(model, valid)
            score = metrics[self.task.monitor]
            record = {"train/loss": loss, **{f"valid/{name}": value for name, value in metrics.items()}, "lr": lr}
            progress.history.append(record)
            if scheduler is not None:
                scheduler.after_epoch(score)
            if self._better(score, progress.best_score):
                progress.best_epoch, progress.best_score = progress.epoch, score
                save_checkpoint(self.folder / "best.pt", {"model": model.state_dict(), "epoch": progress.epoch})
            self._save(model, optimizer, scheduler, progress)
            on_epoch(progress, record)
        return progress

    def step(self, model: nn.Module, optimizer: Optimizer, batch: Batch) -> Tensor:
        """One optimiser step on a batch; returns its loss, still on the device."""
        optimizer.zero_grad(set_to_none=True)
        loss = self.task.loss(model(batch), batch)
        self.fabric.backward(loss)
        if self.clip_value is not None:
            self.fabric.clip_gradients(model, optimizer, clip_val=self.clip_value)
        if self.clip_norm is not None:
            self.fabric.clip_gradients(model, optimizer, max_norm=self.clip_norm, error_if_nonfinite=False)
        optimizer.step()
        return loss.detach()

    def evaluate(self, model: nn.Module, fold: Fold) -> tuple[dict[str, float], np.ndarray]:
        """`evaluate` on this trainer's device."""
        return evaluate(model, self.task, fold, self.batch_size, self.fabric.device)

    def restore_best(self, model: nn.Module) -> None:
        """Load the selected weights."""
        model.load_state_dict(load_checkpoint(self.folder / "best.pt")["model"])

    def _train_epoch(
        self, model: nn.Module, optimizer: Optimizer, scheduler: Schedule | None, train: Fold, epoch: int
    ) -> float:
        """Mean loss per utterance over the epoch."""
        model.train()
        total, pending = 0.0, []
        for index, batch in enumerate(train.shuffled(self.batch_size, self.generators["order"]), start=1):
            loss = self.step(model, optimizer, batch.to(self.fabric.device))
            if scheduler is not None:
                scheduler.after_step()
            pending.append((index, batch.ids, loss))
            if len(pending) == CHECK_EVERY:
                total += self._sum(pending, epoch)
                pending = []
        return (total + self._sum(pending, epoch)) / len(train)

    def _sum(self, pending: list[tuple[int, tuple[str, ...], Tensor]], epoch: int) -> float:
        """Sum of the losses over their utterances, once all are seen to be finite."""
        if not pending:
            return 0.0
        losses = torch.stack([loss for _, _, loss in pending]).cpu().double().tolist()
        total = 0.0
        for (index, ids, _), loss in zip(pending, losses, strict=True):
            if not math.isfinite(loss):
                shown = ", ".join(ids[:6]) + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")
                raise TrainingError(
                    f"the training loss is {loss} in epoch {epoch}, batch {index}; its utterances: {shown}.\n"
                    "  look at their features, or type a smaller optimizer.lr, or trainer.clip_norm=1"
                )
            total += loss * len(ids)
        return total

    def _better(self, score: float, best: float) -> bool:
        if math.isnan(best):
            return True
        return score < best if self.task.mode == "min" else score > best

    def _save(
        self, model: nn.Module, optimizer: Optimizer, scheduler: Schedule | None, progress: TrainingState
    ) -> None:
        accelerator = self._accelerator()
        save_checkpoint(
            self.folder / "last.pt",
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": None if scheduler is None else scheduler.state_dict(),
                "progress": vars(progress),
                "generators": {name: generator.get_state() for name, generator in self.generators.items()},
                "dropout": torch.get_rng_state(),
                "dropout_device": accelerator.get_rng_state() if accelerator else None,
            },
        )

    def _restore(self, model: nn.Module, optimizer: Optimizer, scheduler: Schedule | None) -> TrainingState:
        last = load_checkpoint(self.folder / "last.pt")
        model.load_state_dict(last["model"])
        optimizer.load_state_dict(last["optimizer"])
        if scheduler is not None:
            scheduler.load_state_dict(last["scheduler"])
        for name, generator in self.generators.items():
            generator.set_state(last["generators"][name])
        torch.set_rng_state(last["dropout"])
        accelerator = self._accelerator()
        if accelerator and last["dropout_device"] is not None:
            accelerator.set_rng_state(last["dropout_device"])
        return TrainingState(**last["progress"])

    def _accelerator(self) -> Any:
        """torch.cuda or torch.mps, whose generator drops on the device; None on the CPU."""
        return {"cuda": torch.cuda, "mps": torch.mps}.get(self.fabric.device.type)
