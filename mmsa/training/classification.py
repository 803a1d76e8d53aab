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
from mmsa.training.emotion_metrics import emotion_metrics
from mmsa.training.kinds import KindName, KindTask
from mmsa.training.metrics import classification_metrics

Monitor = Literal["accuracy", "f1_weighted", "f1_macro", "wacc_emotions", "f1_emotions"]


class Classification(KindTask):
    """A linear head of one output per class, trained by cross-entropy; for emotions of one output each, by the binary.

    Args:
        target: name of the target in the store; None takes the first that the data set states.
        thresholds: increasing cuts; the class is the number of cuts that the target reaches. [0] is the field's
            negative / non-negative. None takes those of the target's kind; an emotion is present above 0.
        monitor: metric of the validation fold that selects the checkpoint, one of the target's kind.
        head_dropout: rate in [0, 1) before the head, in training only.
        auxiliary: weight >= 0 of each auxiliary loss that a stage returns.
        kind: what the target's numbers mean (`mmsa.training.kinds.KINDS`), or "auto" for what the data set states.
        kinds: kind of each target that the data set states.

    Raises:
        ConfigError: thresholds that do not increase, none where the kind has none, some where it takes none; or the
            target's kind does not have the monitored metric.
    """

    def __init__(
        self,
        target: str | None = None,
        thresholds: Sequence[float] | None = None,
        monitor: Monitor = "accuracy",
        head_dropout: DropRate = 0.0,
        auxiliary: Mapping[str, NonNegative] | None = None,
        kind: KindName | Literal["auto"] = "auto",
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(target, kind, kinds, monitor, head_dropout, auxiliary)
        of_classes, of_emotions = ("accuracy", "f1_weighted", "f1_macro"), ("f1_emotions", "wacc_emotions", "accuracy")
        self.shown = of_emotions if self.columns else of_classes
        self.cuts = self._cuts(thresholds)
        self.check_monitor()

    def _cuts(self, typed: Sequence[float] | None) -> list[float]:
        if self.columns:
            if typed is not None:
                raise ConfigError(
                    f"task.thresholds={list(typed)}: each column of task.target={self.target} is present above 0, "
                    "without other cuts.\n  type task.thresholds=null"
                )
            return []
        cuts = list(self.meaning.thresholds if typed is None else typed)
        if typed is None and not cuts:
            raise ConfigError(
                f"task.thresholds=null: task.target={self.target} is a number of which nothing is known, and needs "
                "cuts.\n  type for example task.thresholds=[0], or what its numbers mean: task.kind=sentiment"
            )
        if not cuts or sorted(set(cuts)) != cuts:
            raise ConfigError(f"task.thresholds={cuts}: needs increasing numbers.\n  type task.thresholds=[0]")
        return cuts

    @property
    def output_dim(self) -> int:
        return len(self.columns) or len(self.cuts) + 1

    def unlearnt(self, targets: Mapping[str, np.ndarray]) -> list[str]:
        """The classes, or emotions, that none of these utterances has, so that nobody learns them from these."""
        truths = self.truths(targets)
        if self.columns:
            return [name for i, name in enumerate(self.columns) if not truths[:, i].any()]
        bounds = [f"below {self.cuts[0]:g}", *(f"from {cut:g} up" for cut in self.cuts)]
        return [f"class {i} ({bound})" for i, bound in enumerate(bounds) if not (truths == i).any()]

    def primary_loss(self, output: Tensor, truth: Tensor) -> Tensor:
        if self.columns:
            return functional.binary_cross_entropy_with_logits(output, truth.to(output.dtype))
        return functional.cross_entropy(output, truth)

    def truth(self, target: Tensor) -> Tensor:
        if self.columns:
            return (target > 0).to(torch.int64)  # (N, K)
        return self.classes(target)

    def shares(self, truth: Tensor) -> Tensor:
        if self.columns:
            return super().shares(truth)
        return functional.one_hot(truth, self.output_dim).to(torch.float32)  # (B, C)

    def decide(self, output: Tensor) -> Tensor:
        if self.columns:
            present = (output > 0).to(output.dtype)
            return torch.where(output.isnan(), output, present)  # a diverged model decides nothing
        return output.argmax(dim=-1)

    def metrics(self, prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        compute = emotion_metrics if self.columns else classification_metrics
        return compute(prediction, truth)
