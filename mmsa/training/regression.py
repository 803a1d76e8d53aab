"""Regression of an utterance's target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmsa.ranges import DropRate, NonNegative
from mmsa.training.kinds import KindName, KindTask

Monitor = Literal[
    "mae", "corr", "acc7", "acc5", "acc2_has0", "acc2_non0", "f1_has0", "f1_non0",
    "mae_sims", "corr_sims", "acc5_sims", "acc3_sims", "acc2_neg0", "f1_neg0", "corr_emotions",
]  # fmt: skip


class Regression(KindTask):
    """A linear head of one output per column of the target, trained by the absolute or the squared error.

    Args:
        target: name of the target in the store; None takes the first that the data set states.
        loss: "l1" (mean absolute error) or "mse".
        monitor: metric of the validation fold that selects the checkpoint, one of the target's kind.
        head_dropout: rate in [0, 1) before the head, in training only.
        auxiliary: weight >= 0 of each auxiliary loss that a stage returns.
        kind: of the target (`mmsa.training.kinds.KINDS`); "auto": as the data set declares it, else by its name.
            Labels of 0 and 1 are regressed as -1 and 1.
        kinds: kind of each target that the data set states.

    Raises:
        ConfigError: the target's kind does not have the monitored metric.
    """

    def __init__(
        self,
        target: str | None = None,
        loss: Literal["l1", "mse"] = "l1",
        monitor: Monitor = "mae",
        head_dropout: DropRate = 0.0,
        auxiliary: Mapping[str, NonNegative] | None = None,
        kind: KindName | Literal["auto"] = "auto",
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(target, kind, kinds, monitor, head_dropout, auxiliary)
        self.shown = self.meaning.shown
        self.levels, self.finest = self.meaning.levels, self.meaning.finest
        self._loss = functional.l1_loss if loss == "l1" else functional.mse_loss
        self.check_monitor()

    @property
    def output_dim(self) -> int:
        return len(self.columns) or 1

    def primary_loss(self, output: Tensor, truth: Tensor) -> Tensor:
        return self._loss(self.decide(output), truth)

    def truth(self, target: Tensor) -> Tensor:
        values = target.to(torch.float32)
        return 2 * values - 1 if self.kind == "binary" else values

    def decide(self, output: Tensor) -> Tensor:
        return output if self.columns else output.squeeze(-1)

    def metrics(self, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        return self.meaning.score(prediction, truth)
