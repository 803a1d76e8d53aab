"""What a run predicts: the target, the head, the loss, the metrics, and the monitored one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mmsa.data.naming import EMOTIONS
from mmsa.errors import ConfigError, DataError
from mmsa.layers.dropout import Dropout
from mmsa.stages import Task
from mmsa.training.metrics import metric_mode
from mmsa.types import Batch, Mix, Output


class TargetTask(Task):
    """Shared by tasks of one primary target of the data set.

    Args:
        target: name of the target in the store.
        monitor: metric of the validation fold that selects the checkpoint.
        head_dropout: rate in [0, 1) before the linear head, in training only.
        auxiliary: weight of each auxiliary loss that a stage returns, by its name.
    """

    columns: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()
    finest: str = ""

    def __init__(self, target: str, monitor: str, head_dropout: float, auxiliary: Mapping[str, float] | None) -> None:
        self.target = target
        self.monitor = monitor
        self.mode = metric_mode(monitor)
        self.head_dropout = head_dropout
        self.auxiliary = dict(auxiliary or {})

    def shares(self, truth: Tensor) -> Tensor:
        """The truth (B,) or (B, K) as floats (B, ...) whose mixtures `primary_loss` takes for a truth."""
        return truth.to(torch.float32)

    def head(self, input_dim: int) -> nn.Module:
        """The head over the fused vector."""
        linear = nn.Linear(input_dim, self.output_dim)
        return nn.Sequential(Dropout(self.head_dropout), linear) if self.head_dropout else linear

    def select(self, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """This task's target (N,) among those of a fold.

        Raises:
            DataError: the data set has no such target, or it is not one number per utterance.
        """
        if self.target not in targets:
            raise DataError(
                f"task.target={self.target}: the data set has no such target; it has {', '.join(targets)}.\n"
                f"  {of_one_number(targets)}"
            )
        values = targets[self.target]
        if values.ndim != 1:
            raise DataError(
                f"task.target={self.target} has {values.shape[1]} columns; this task predicts one number.\n"
                f"  {of_one_number(targets)}"
            )
        return values

    def truths(self, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """The truths of a fold, (N,) or (N, K)."""
        return self.truth(torch.from_numpy(self.select(targets))).numpy()

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The loss of a batch, its targets mixed as the utterances were, and the weighted auxiliary losses.

        Raises:
            ConfigError: `auxiliary` names a loss that no stage returns, or lacks one that a stage returns.
        """
        truth = self.truth(batch.targets[self.target])
        if output.mix is not None:
            truth = mixed(self.shares(truth), output.mix)
        total = self.primary_loss(output.predictions[self.target], truth)
        unknown = set(self.auxiliary) - set(output.losses)
        if unknown:
            raise ConfigError(
                f"task.auxiliary.{min(unknown)}: no stage returns this loss; choose from "
                f"{', '.join(output.losses) or 'none'}.\n  type ~task.auxiliary.{min(unknown)}"
            )
        unweighted = set(output.losses) - set(self.auxiliary)
        if unweighted:
            raise ConfigError(
                f"the model returns the loss {min(unweighted)}, which has no weight.\n"
                f"  type +task.auxiliary.{min(unweighted)}=1, or =0 to leave it out"
            )
        for name, weight in self.auxiliary.items():
            total = total + weight * output.losses[name]
        return total


def of_one_number(targets: Mapping[str, np.ndarray]) -> str:
    """The option for a target of one number per utterance, or a remedy for columns where there is none."""
    if single := [name for name, values in targets.items() if values.ndim == 1]:
        return f"type task.target={single[0]}"
    emotions = [name for name, values in targets.items() if values.shape[1:] == (len(EMOTIONS),)]
    each = "write each column into the source as a target of its own, target/NAME (N,): docs/custom_data.md"
    return f"type task.target={emotions[0]} task.kind=emotions for degrees of emotions, or {each}" if emotions else each


def mixed(targets: Tensor, mix: Mix) -> Tensor:
    """Targets (B, ...) of the utterances -> (N, ...) of the mixed ones."""
    chosen = targets[mix.rows]  # (N, K, ...)
    weights = mix.targets.reshape(*mix.targets.shape, *[1] * (chosen.dim() - 2))
    return (weights * chosen).sum(dim=1)
