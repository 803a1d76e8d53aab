"""The one training loop: it names no model, data set or method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa.data.batches import Fold
from mmsa.errors import UndefinedScore
from mmsa.model import Learner
from mmsa.stages import Phase, Task
from mmsa.training.checkpoints import load_checkpoint, restore_weights, restoring, save_checkpoint
from mmsa.training.loss_log import LossLog
from mmsa.training.phases import lowered, num_batches, only_those_of, summed
from mmsa.training.schedules import Schedule
from mmsa.types import Batch, Moment, Output


@dataclass
class TrainingState:
    """The progress of a training; all of it is in the last checkpoint.

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


Outputs = Callable[[nn.Module, Batch], Output]


def predicted(model: nn.Module, batch: Batch) -> Output:
    """The output of a model in evaluation."""
    output: Output = model(batch)
    return output


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    fold: Fold,
    batch_size: int,
    device: torch.device,
    outputs: Outputs = predicted,
) -> tuple[dict[str, float], np.ndarray]:
    """Metrics of a whole fold and its mean loss, and its predictions, (N,) or (N, K), in the order of the fold.

    Args:
        model: Batch -> Output, on the device.
        task: loss and metrics.
        fold: utterances to predict.
        batch_size: utterances at a time, >= 1.
        device: where the batches go.
        outputs: computes the outputs as `predicted` does.
    """
    model.eval()
    truths = task.truths(fold.targets)
    predictions = np.empty(truths.shape, dtype=np.float64)
    rows, losses, decided = [], [], []
    for batch in fold.batches(batch_size):
        moved = batch.to(device)
        output = outputs(model, moved)
        rows.append(batch.rows)
        losses.append(task.loss(output, moved))
        decided.append(task.decide(output.predictions[output.primary]))
    predictions[torch.cat(rows).numpy()] = torch.cat(decided).cpu().double().numpy()  # mps has no float64
    total = sum(loss * len(of_one) for loss, of_one in zip(torch.stack(losses).tolist(), rows, strict=True))
    return {"loss": total / len(fold), **task.metrics(predictions, truths)}, predictions


EpochCallback = Callable[[TrainingState, Mapping[str, float]], None]
BatchCallback = Callable[[int, float], None]
Gradients = Callable[["Trainer", Learner, Sequence[Batch], Sequence[Moment], Phase], list[dict[str, Tensor]]]
Steps = Callable[
    ["Trainer", Learner, Mapping[str, Optimizer], Sequence[Batch], Sequence[Moment], Phase], list[dict[str, Tensor]]
]
MAIN = "main"
"""The run's optimiser among the others, which have the names of their phases."""


def alone(
    trainer: Trainer, learner: Learner, batches: Sequence[Batch], moments: Sequence[Moment], phase: Phase
) -> list[dict[str, Tensor]]:
    """The losses of a group of batches, by name, still on the device; their gradients are in the parameters."""
    learner.zero_grad(set_to_none=True)
    num_utterances = sum(len(batch.ids) for batch in batches)
    found = []
    for batch, moment in zip(batches, moments, strict=True):
        moved = batch.to(trainer.fabric.device)
        losses = lowered(learner(moved, moment), phase)
        total = summed(losses)
        trainer.fabric.backward(total if len(batches) == 1 else total * (len(batch.ids) / num_utterances))
        learner.objective.after_backward(moved, moment)
        found.append({name: loss.detach() for name, loss in losses.items()})
    return found


def by_itself(trainer: Trainer, *inputs: Any) -> list[dict[str, Tensor]]:
    """A step of a trainer, as `Trainer.step` takes it."""
    return trainer.step(*inputs)


class Trainer:
    """Fits a model on the train fold and selects an epoch on the validation fold.

    Args:
        fabric: where it runs and in which precision; of several processes rank 0 evaluates and writes.
        task: loss, metrics and the monitored one.
        folder: where the checkpoints go.
        generators: everything random besides dropout, by name; "order" shuffles the utterances, "places" their batches.
        max_epochs: most epochs, >= 1.
        batch_size: utterances per batch, >= 1.
        accumulate: batches per optimiser step, >= 1; the gradient is a mean over their utterances, and an epoch's last,
            smaller group is stepped too.
        patience: epochs without improvement before it stops, >= 1.
        clip_norm: largest norm of the gradient; None does not clip. Single elements are clipped before.
        clip_value: largest absolute element of the gradient; None does not clip.
        on_batch: called after each step with the epoch and the share of its batches that are done.
        before_save: called before each checkpoint is written.
        gradients: computes losses and gradients as `alone` does.
        steps: takes steps as `by_itself` does.
        outputs: computes outputs as `predicted` does.
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
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        on_batch: BatchCallback = lambda epoch, share: None,
        before_save: Callable[[], None] = lambda: None,
        gradients: Gradients = alone,
        steps: Steps = by_itself,
        outputs: Outputs = predicted,
    ) -> None:
        self.fabric, self.task, self.folder, self.generators = fabric, task, folder, generators
        self.max_epochs, self.batch_size, self.patience = max_epochs, batch_size, patience
        self.accumulate = accumulate
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.on_batch, self.before_save = on_batch, before_save
        self.gradients, self.steps, self.outputs = gradients, steps, outputs

    def fit(
        self,
        learner: Learner,
        optimizers: Mapping[str, Optimizer],
        schedule: Schedule | None,
        train: Fold,
        valid: Fold,
        on_epoch: EpochCallback,
        progress: TrainingState | None = None,
    ) -> TrainingState:
        """Train until patience or epochs run out; the selected weights are in best.pt, everything in last.pt.

        Args:
            learner: set up on the fabric, like the optimisers; its objective has begun.
            optimizers: the run's as "main", and those that phases have of their own, by their names.
            schedule: of the learning rate of "main"; None keeps it.
            train: utterances to learn from.
            valid: utterances to select by.
            on_epoch: called after each epoch with the progress and the epoch's metrics.
            progress: to resume from, as `restored` gives it; None begins.

        Raises:
            TrainingError: a loss is not finite.
            UndefinedScore: the monitored value is undefined in every epoch.
            ConfigError: a phase lowers a loss that the objective does not return.
        """
        progress = progress or TrainingState()
        while self.ended(progress) is None:
            progress.epoch += 1
            lr = optimizers[MAIN].param_groups[0]["lr"]
            losses = self._train_epoch(learner, optimizers, schedule, train, progress.epoch)
            evaluated = self.evaluate(learner.model, valid)[0] if self.fabric.is_global_zero else {}
            metrics = self.fabric.broadcast(evaluated)
            score = metrics[self.task.monitor]
            record = {**losses, **{f"valid/{name}": value for name, value in metrics.items()}, "lr": lr}
            progress.history.append(record)
            if schedule is not None:
                schedule.after_epoch(score)
            if self._better(score, progress.best_score):
                progress.best_epoch, progress.best_score = progress.epoch, score
                self._keep("best.pt", {"model": learner.model.state_dict(), "epoch": progress.epoch})
            self._save(learner, optimizers, schedule, progress)
            on_epoch(progress, record)
        if not progress.best_epoch:
            raise self._undefined(progress)
        return progress

    def ended(self, progress: TrainingState) -> str | None:
        """Why training ends here; None while it continues."""
        stalled = progress.epoch - progress.best_epoch
        if stalled >= self.patience:
            return f"no improvement in {stalled} epoch{'s' if stalled > 1 else ''}"
        return f"trainer.max_epochs={self.max_epochs} reached" if progress.epoch >= self.max_epochs else None

    def step(
        self,
        learner: Learner,
        optimizers: Mapping[str, Optimizer],
        batches: Sequence[Batch],
        moments: Sequence[Moment],
        phase: Phase = Phase(),  # noqa: B008  (frozen)
    ) -> list[dict[str, Tensor]]:
        """One optimiser step on a group of batches; the losses of each, by name, still on the device."""
        found = self.gradients(self, learner, batches, moments, phase)
        self.update(learner, optimizers, phase)
        return found

    def update(self, learner: Learner, optimizers: Mapping[str, Optimizer], phase: Phase) -> None:
        """Clip the gradients and step the optimiser of a phase."""
        clipped = [p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]]
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(clipped, self.clip_value)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(clipped, self.clip_norm)
        optimizer = optimizers[MAIN if phase.optimizer is None else phase.name]
        with only_those_of(phase, learner, optimizer):
            optimizer.step()

    def evaluate(self, model: nn.Module, fold: Fold) -> tuple[dict[str, float], np.ndarray]:
        """`evaluate` on this trainer's device and in its precision."""
        with self.fabric.autocast():
            return evaluate(model, self.task, fold, self.batch_size, self.fabric.device, self.outputs)

    def restore_best(self, model: nn.Module) -> str:
        """Load the selected weights; returns the hash of their checkpoint.

        Raises:
            DataError: the checkpoint is damaged, or not of this model.
        """
        return restore_weights(self.folder / "best.pt", model)

    def _train_epoch(
        self, learner: Learner, optimizers: Mapping[str, Optimizer], schedule: Schedule | None, train: Fold, epoch: int
    ) -> dict[str, float]:
        """Mean losses per utterance over the epoch: the sum, and where there are several, each by its name."""
        learner.train()
        due = [phase for phase in learner.objective.phases if phase.is_due(epoch)]
        sizes = [num_batches(phase, len(train), self.batch_size) for phase in due]
        means: dict[str, float] = {}
        for index, phase in enumerate(due):
            place = sum(sizes[:index]), sum(sizes)
            walked = self._walk(learner, optimizers, schedule, train, epoch, phase, place)
            means |= {name: means.get(name, 0.0) + mean for name, mean in walked.items()}
        each = {f"train/{name}": mean for name, mean in means.items()} if len(means) > 1 else {}
        return {"train/loss": sum(means.values()), **each}

    def _walk(
        self,
        learner: Learner,
        optimizers: Mapping[str, Optimizer],
        schedule: Schedule | None,
        train: Fold,
        epoch: int,
        phase: Phase,
        place: tuple[int, int],
    ) -> dict[str, float]:
        """One phase of an epoch, by the batches before it and those in all; its mean losses per utterance, by name."""
        num_steps = num_batches(phase, len(train), self.batch_size)
        batches = islice(
            train.shuffled(self.batch_size, self.generators["order"], self.generators.get("places")), num_steps
        )
        log = LossLog(epoch)
        done = 0
        while group := list(islice(batches, self.accumulate)):
            numbers = range(done + 1, done + len(group) + 1)
            moments = [Moment(epoch, number, self.max_epochs, num_steps, phase.name) for number in numbers]
            log.add(done, group, self.steps(self, learner, optimizers, group, moments, phase))
            done += len(group)
            self.on_batch(epoch, (place[0] + done) / place[1])
            if schedule is not None and phase.optimizer is None:
                schedule.after_step()
        return log.means()

    def _better(self, score: float, best: float) -> bool:
        if math.isnan(score) or math.isnan(best):
            return not math.isnan(score)
        return score < best if self.task.mode == "min" else score > best

    def _undefined(self, progress: TrainingState) -> UndefinedScore:
        last = progress.history[-1]
        defined = [name for name in self.task.shown if math.isfinite(last.get(f"valid/{name}", math.nan))]
        instead = f"task.monitor={defined[0]}" if defined else "a smaller optimizer.lr"
        return UndefinedScore(
            f"task.monitor={self.task.monitor} is undefined on the validation fold in every one of {progress.epoch} "
            f"epochs, so none can be selected.\n  type {instead}"
        )

    def _save(
        self, learner: Learner, optimizers: Mapping[str, Optimizer], schedule: Schedule | None, progress: TrainingState
    ) -> None:
        accelerator = self._accelerator()
        self._keep(
            "last.pt",
            {
                "model": learner.model.state_dict(),
                "objective": learner.objective.state_dict(),
                "optimizer": optimizers[MAIN].state_dict(),
                "phases": {name: optimizer.state_dict() for name, optimizer in optimizers.items() if name != MAIN},
                "scheduler": None if schedule is None else schedule.state_dict(),
                "progress": vars(progress),
                "generators": {name: generator.get_state() for name, generator in self.generators.items()},
                "dropout": torch.get_rng_state(),
                "dropout_device": accelerator.get_rng_state() if accelerator else None,
            },
        )

    def _keep(self, name: str, content: dict[str, Any]) -> None:
        if self.fabric.is_global_zero:
            self.before_save()
            save_checkpoint(self.folder / name, content)

    def restored(
        self, learner: Learner, optimizers: Mapping[str, Optimizer], schedule: Schedule | None
    ) -> TrainingState:
        """Load the last checkpoint into all parts of a training, to resume it."""
        last = {"objective": {}, "phases": {}} | load_checkpoint(self.folder / "last.pt")  # older runs have neither
        with restoring(self.folder / "last.pt"):
            learner.model.load_state_dict(last["model"])
            learner.objective.load_state_dict(last["objective"])
            for name, state in {MAIN: last["optimizer"], **last["phases"]}.items():
                optimizers[name].load_state_dict(state)
            if schedule is not None:
                schedule.load_state_dict(last["scheduler"])
            for name, state in last["generators"].items():
                self.generators[name].set_state(state)
            torch.set_rng_state(last["dropout"])
            accelerator = self._accelerator()
            if accelerator and last["dropout_device"] is not None:
                accelerator.set_rng_state(last["dropout_device"])
            return TrainingState(**last["progress"])

    def _accelerator(self) -> Any:
        """torch.cuda or torch.mps, whose generator drops on the device; None on the CPU."""
        return {"cuda": torch.cuda, "mps": torch.mps}.get(self.fabric.device.type)
