"""Regression of one number per utterance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmsa.ranges import DropRate, NonNegative
from mmsa.training.metrics import regression_metrics
from mmsa.training.task import Task

Monitor = Literal["mae", "corr", "acc7", "acc5", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0"]


class Regression(Task):
    """A linear head of one output, trained by the absolute or the squared error.

    Args:
        target: name of the target in the store.
        loss: "l1" (mean absolute error) or "mse".
        monitor: metric of the validation fold that selects the checkpoint.
        head_dropout: rate in [0, 1) before the head, in training only.
        auxiliary: weight >= 0 of each auxiliary loss that a stage returns.
    """

    shown = ("mae", "corr", "acc7", "acc2_has0", "acc2_non0", "f1_non0")
    output_dim = 1

    def __init__(
        self,
        target: str = "sentiment",
        loss: Literal["l1", "mse"] = "l1",
        monitor: Monitor = "mae",
        head_dropout: DropRate = 0.0,
        auxiliary: Mapping[str, NonNegative] | None = None,
    ) -> None:
        super().__init__(target, monitor, head_dropout, auxiliary)
        self._loss = functional.l1_loss if loss == "l1" else functional.mse_loss

    def primary_loss(self, output: Tensor, truth: Tensor) -> Tensor:
        return self._loss(output.squeeze(-1), truth)

    def truth(self, target: Tensor) -> Tensor:
        return target.to(torch.float32)

    def decide(self, output: Tensor) -> Tensor:
        return output.squeeze(-1)

    def metrics(self, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return regression_metrics(prediction, truth)
