"""Classification of an utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmsa.errors import ConfigError
from mmsa.ranges import DropRate, NonNegative, Positive
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
        class_weights: weight > 0 of each class in the loss, of an emotion of its presence; "balanced" weighs a class by
            the inverse of its frequency in the train fold (N / (C * n_c), an emotion by absent / present utterances),
            None all alike. The loss is the mean over utterances, in training and evaluation; metrics are not weighted.
        monitor: metric of the validation fold that selects the checkpoint, one of the target's kind.
        head_dropout: rate in [0, 1) before the head, in training only.
        auxiliary: weight >= 0 of each auxiliary loss that a stage returns.
        kind: of the target (`mmsa.training.kinds.KINDS`); "auto": as the data set declares it, else by its name.
        kinds: kind of each target that the data set states.

    Raises:
        ConfigError: thresholds that do not increase, none where the kind has none, some where it takes none; weights
            of another number of classes; or the target's kind does not have the monitored metric.
    """

    def __init__(
        self,
        target: str | None = None,
        thresholds: Sequence[float] | None = None,
        class_weights: Literal["balanced"] | Sequence[Positive] | None = None,
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
        self.balanced = class_weights == "balanced"
        self.weights = None if self.balanced or class_weights is None else torch.tensor([*map(float, class_weights)])
        if self.weights is not None and len(self.weights) != self.output_dim:
            raise ConfigError(
                f"task.class_weights={list(class_weights or [])}: needs {self.output_dim} weights, one of each "
                f"{'emotion' if self.columns else 'class'}.\n  type task.class_weights=balanced, or null"
            )
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
                f"task.thresholds=null: task.target={self.target} is a number of an unknown scale and needs "
                "cuts.\n  type for example task.thresholds=[0], or its kind: task.kind=sentiment"
            )
        if not cuts or sorted(set(cuts)) != cuts:
            raise ConfigError(f"task.thresholds={cuts}: needs increasing numbers.\n  type task.thresholds=[0]")
        return cuts

    @property
    def output_dim(self) -> int:
        return len(self.columns) or len(self.cuts) + 1

    def unlearnt(self, targets: Mapping[str, np.ndarray]) -> list[str]:
        """The classes, or emotions, without an example among these utterances."""
        truths = self.truths(targets)
        if self.columns:
            return [name for i, name in enumerate(self.columns) if not truths[:, i].any()]
        bounds = [f"below {self.cuts[0]:g}", *(f"from {cut:g} up" for cut in self.cuts)]
        return [f"class {i} ({bound})" for i, bound in enumerate(bounds) if not (truths == i).any()]

    def primary_loss(self, output: Tensor, truth: Tensor) -> Tensor:
        if self.weights is not None:
            self.weights = self.weights.to(output.device)  # once, as it waits
        weights = None if self.weights is None else self.weights.to(output.dtype)
        if self.columns:
            return functional.binary_cross_entropy_with_logits(output, truth.to(output.dtype), pos_weight=weights)
        if weights is None:
            return functional.cross_entropy(output, truth)
        # PyTorch's own mean divides by the weights of the batch, so a batch of a rare class alone would count as any.
        return functional.cross_entropy(output, truth, weights, reduction="none").mean()

    def begin(self, targets: Mapping[str, np.ndarray]) -> None:
        truths = self.truths(targets)
        if not self.balanced:
            return
        if self.columns:
            held = (truths == 1).sum(axis=0)
            weights = (len(truths) - held) / np.maximum(held, 1)
        else:
            held = np.bincount(truths, minlength=self.output_dim)
            weights = len(truths) / (self.output_dim * np.maximum(held, 1))
        weights[held == 0] = 1.0  # of what training never sees
        self.weights = torch.from_numpy(weights).to(torch.float32)

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
