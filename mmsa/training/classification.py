"""Classification of an utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmsa.errors import ConfigError
from mmsa.ranges import DropRate, NonNegative
from mmsa.training.metrics import classification_metrics
from mmsa.training.task import Task


class Classification(Task):
    """A linear head of one output per class, trained by cross-entropy.

    Args:
        target: name of the target in the store, one number per utterance.
        thresholds: increasing cuts; the class is the number of cuts that the target reaches. [0] is the field's
            negative / non-negative.
        monitor: metric of the validation fold that selects the checkpoint.
        head_dropout: rate in [0, 1) before the head, in training only.
        auxiliary: weight >= 0 of each auxiliary loss that a stage returns.

    Raises:
        ConfigError: thresholds that do not increase, or none.
    """

    shown = ("accuracy", "f1_weighted", "f1_macro")

    def __init__(
        self,
        target: str = "sentiment",
        thresholds: Sequence[float] = (0.0,),
        monitor: Literal["accuracy", "f1_weighted", "f1_macro"] = "accuracy",
        head_dropout: DropRate = 0.0,
        auxiliary: Mapping[str, NonNegative] | None = None,
    ) -> None:
        super().__init__(target, monitor, head_dropout, auxiliary)
        cuts = list(thresholds)
        if not cuts or sorted(set(cuts)) != cuts:
            raise ConfigError(f"task.thresholds={cuts}: needs increasing numbers.\n  type task.thresholds=[0]")
        self._thresholds = torch.tensor(cuts, dtype=torch.float32)

    @property
    def output_dim(self) -> int:
        return len(self._thresholds) + 1

    def primary_loss(self, output: Tensor, truth: Tensor) -> Tensor:
        return functional.cross_entropy(output, truth)

    def truth(self, target: Tensor) -> Tensor:
        cuts = self._thresholds.to(target.device)
        return (target[:, None] >= cuts).sum(dim=1)  # (N,) int64

    def decide(self, output: Tensor) -> Tensor:
        return output.argmax(dim=-1)

    def metrics(self, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return classification_metrics(prediction, truth)
